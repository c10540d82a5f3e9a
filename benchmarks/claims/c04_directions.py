"""C4: which end of the ensemble weighs most, and what m = 0 and m < 0 mean.

    uv run python -m benchmarks.claims.c04_directions --jobs 2

The policies of `benchmarks.rollouts chunk_size` (k = 50, human demonstrations), found
again or trained, executed with both orders and several m.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import tyro

from act_minimal.execution import ExecutionConfig, Order
from benchmarks.results import write
from benchmarks.rollouts import Job, chunk_size_jobs, pooled, rows_of

DECAYS = (-0.1, -0.01, 0.0, 0.01, 0.1)
ORDERS: tuple[Order, ...] = ("oldest_first", "newest_first")


@dataclass
class Settings:
    """What is run, and where it is kept."""

    runs: Path = Path("runs/benchmarks")
    """Folder of demonstrations and training runs."""
    jobs: int = 1
    """Policies rolled out side by side, one thread each."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Demonstrations, weights and scenes of each seed belong together."""


def jobs(settings: Settings) -> Iterator[Job]:
    """The policies with k = 50 of the table of chunk sizes, executed otherwise."""
    ensembles = {
        f"{order} m={m:g}": ExecutionConfig("ensemble", m=m, order=order)
        for order in ORDERS
        for m in DECAYS
    }
    for job in chunk_size_jobs(settings.seeds):
        if job.labels == {"demonstrator": "human", "k": 50, "cvae": True}:
            yield replace(job, executions=ensembles, rows="rows_c04")


def main(settings: Settings) -> None:
    """Roll out, and write data/results/claims/C04.json."""
    todo = list(jobs(settings))
    rows = rows_of(todo, settings.runs, settings.jobs)
    for row in rows:
        row["m"], row["order"] = row["execute"]["m"], row["execute"]["order"]
    write(
        "claims/C04",
        sum(row["seconds"] for row in rows),
        {
            "claim": "Weights are exp(-m i) with i = 0 the oldest prediction.",
            "published": "The paper and the original code: oldest first, m = 0.01.",
            "seeds": settings.seeds,
            "summary": pooled(rows, ["demonstrator", "k", "cvae", "order", "m"]),
            "runs": rows,
        },
    )


if __name__ == "__main__":
    main(tyro.cli(Settings))
