"""C6: the weight of the KL, from 0 to 10, and what its reduction does to it.

    uv run python -m benchmarks.claims.c06_beta --jobs 2

One network (k = 25), the same 50 demonstrations and updates; only `kl_weight` and
`kl_reduction` differ, and one has no CVAE. The KL in the result is always in nats,
summed over the 16 latent dimensions, whatever was trained on. C7 rolls the same
policies out with another z.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from act_minimal.course.latent import posterior
from act_minimal.dataset import Demonstrations
from act_minimal.demo import STATE
from act_minimal.policy import load_policy
from benchmarks.results import write
from benchmarks.rollouts import HALF, Job, pooled, rows_of, run_job

WEIGHTS = (("sum", (0.0, 0.001, 0.01, 0.1, 1.0, 10.0)), ("mean", (0.01, 0.1)))
LABELS = ["kl_weight", "reduction", "z"]


@dataclass
class Settings:
    """What is run, and where it is kept."""

    runs: Path = Path("runs/claims")
    """Folder of demonstrations and training runs."""
    jobs: int = 1
    """Policies trained side by side, one thread each."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Demonstrations, weights and scenes of each seed belong together."""
    n: int = 100
    """Rollouts a seed."""
    steps: int = 1000
    """Updates of every policy."""


def jobs(settings: Settings) -> Iterator[Job]:
    """Every weight with every seed, and no CVAE at all."""
    cases: list[tuple[float | str, str, dict[str, Any]]] = [
        ("none", "none", {"use_cvae": False})
    ]
    for reduction, weights in WEIGHTS:
        for weight in weights:
            model = {"cvae_actions_per_token": 5, "kl_weight": weight}
            cases.append((weight, reduction, model | {"kl_reduction": reduction}))
    for weight, reduction, model in cases:
        for seed in settings.seeds:
            training = {"chunk_size": 25, "steps": settings.steps, "threads": 1}
            yield Job(
                f"c06_{weight}_{reduction}_{seed}",
                "human",
                50,
                seed,
                STATE.act | training | {"model": model},
                {"half": HALF},
                n=settings.n,
                labels={"kl_weight": weight, "reduction": reduction, "z": "zero"},
            )


def run(job: Job, runs: Path) -> list[dict[str, Any]]:
    """Train and roll out; then ask the encoder about demonstrations."""
    rows = run_job(job, runs)
    if job.labels["kl_weight"] == "none":
        return rows
    data = runs / f"state_{job.demonstrator}_{job.demonstrations}_{job.seed}"
    found = posterior(load_policy(runs / job.name), Demonstrations.load(data), 2048)
    alive = int((found.per_dimension > 0.01).sum())
    more = {"kl": found.nats, "alive_dimensions": alive}
    more |= {"l1_posterior": found.l1, "l1_zero": found.l1_prior}
    return [row | more for row in rows]


def with_means(summary: list[dict], rows: list[dict]) -> list[dict]:
    """The summary with the mean over seeds of what `run` measured."""
    for one in summary:
        ours = [r for r in rows if all(r[key] == one[key] for key in LABELS)]
        for key in ("kl", "alive_dimensions", "l1_posterior", "l1_zero"):
            if key in ours[0]:
                one[key] = float(np.mean([r[key] for r in ours]))
                one[f"{key}_each_seed"] = [r[key] for r in ours]
    return summary


def main(settings: Settings) -> None:
    """Train, roll out, and write data/results/claims/C06.json."""
    todo = list(jobs(settings))
    rows = rows_of(todo, settings.runs, settings.jobs, run)
    write(
        "claims/C06",
        sum(row["job_seconds"] for row in rows),
        {
            "claim": "A KL weight of 10 balances; 0 is plain cloning; above 100 the "
            "data is ignored.",
            "published": "A tuning guide, for the paper's 32 dimensions, KL summed; "
            "one article averages it.",
            "task": "so100_pick_place",
            "seeds": settings.seeds,
            "latent_dim": 16,
            "summary": with_means(pooled(rows, LABELS), rows),
            "runs": rows,
        },
    )


if __name__ == "__main__":
    main(tyro.cli(Settings))
