"""What C8, C9, C10 and C18 share: one thing varied, the same updates, many seeds."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from act_minimal.demo import STATE
from benchmarks.results import write
from benchmarks.rollouts import HALF, Job, pooled, rows_of


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
    steps: int = 1000
    """Updates of every policy."""


def job(
    name: str,
    seed: int,
    settings: Settings,
    labels: dict[str, Any],
    *,
    demonstrations: int = 50,
    model: dict[str, Any] | None = None,
    **training: Any,
) -> Job:
    """A policy with k = 25, trained as the demo's but for what is varied."""
    common = {"chunk_size": 25, "steps": settings.steps, "threads": 1}
    common |= {"model": {"cvae_actions_per_token": 5} | (model or {})}
    return Job(
        f"{name}_{seed}",
        "human",
        demonstrations,
        seed,
        STATE.act | common | training,
        {"half": HALF},
        n=settings.n,
        labels=labels,
    )


def run(
    number: str,
    jobs: Iterable[Job],
    settings: Settings,
    about: dict[str, Any],
    *,
    work: Callable[[Job, Path], list[dict[str, Any]]] | None = None,
) -> None:
    """Train and roll out, and write data/results/claims/<number>.json.

    Args:
        number: of the claim, "C08".
        jobs: what is trained and rolled out.
        settings: sizes and places.
        about: the claim and what was published.
        work: makes the rows of a job.
    """
    todo = list(jobs)
    rows = rows_of(todo, settings.runs, settings.jobs, work)
    summary = pooled(rows, list(todo[0].labels))
    for one in summary:
        seconds = one["train_seconds"]
        one["train_seconds_mean"] = sum(seconds) / len(seconds)
    write(
        f"claims/{number}",
        sum(row.get("job_seconds", 0.0) for row in rows),
        about
        | {
            "task": "so100_pick_place",
            "seeds": settings.seeds,
            "steps": settings.steps,
            "jobs": settings.jobs,
            "summary": summary,
            "runs": rows,
        },
    )
