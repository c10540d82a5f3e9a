"""C22: 50 clean demonstrations against 200 noisy ones, with the same updates.

uv run python -m benchmarks.claims.c22_consistent --jobs 2
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import tyro

from act_minimal.demo import STATE
from benchmarks.results import write
from benchmarks.rollouts import HALF, Job, pooled, rows_of

DATA = (("scripted", 50), ("human", 50), ("human", 200))


@dataclass
class Settings:
    """What is run, and where it is kept."""

    runs: Path = Path("runs/benchmarks")
    """Folder of demonstrations and training runs."""
    jobs: int = 1
    """Policies trained side by side, one thread each."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Demonstrations, weights and scenes of each seed belong together."""
    n: int = 100
    """Rollouts a seed."""
    steps: int = 1500
    """Updates of every policy."""


def jobs(settings: Settings) -> Iterator[Job]:
    """The same network and the same updates on each set of demonstrations."""
    for demonstrator, demonstrations in DATA:
        for seed in settings.seeds:
            yield Job(
                f"c22_{demonstrator}_{demonstrations}_{seed}",
                demonstrator,
                demonstrations,
                seed,
                STATE.act | {"steps": settings.steps, "threads": 1},
                {"half": HALF},
                n=settings.n,
                labels={
                    "demonstrator": demonstrator,
                    "demonstrations": demonstrations,
                },
            )


def main(settings: Settings) -> None:
    """Train, roll out, and write data/results/claims/C22.json."""
    todo = list(jobs(settings))
    rows = rows_of(todo, settings.runs, settings.jobs)
    write(
        "claims/C22",
        sum(row.get("job_seconds", 0.0) for row in rows),
        {
            "claim": "Consistent demonstrations beat many noisy ones.",
            "published": "A checklist's advice; no number is given.",
            "task": "so100_pick_place",
            "seeds": settings.seeds,
            "steps": settings.steps,
            "summary": pooled(rows, ["demonstrator", "demonstrations"]),
            "runs": rows,
        },
    )


if __name__ == "__main__":
    main(tyro.cli(Settings))
