"""C32: chunks as long as half an episode and longer, and errors by place in a chunk."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from act_minimal.checkpoint import load_policy
from act_minimal.episodes import list_episodes, load_episode
from act_minimal.execution import ExecutionConfig

from ..rollouts import (
    HALF,
    PICK_PLACE,
    Job,
    Row,
    every_seed,
    held_out,
    pooled,
    record_once,
)
from ..rollouts import rows_of as rows_of_jobs
from .claim import STATE, Claim, Training

AGAIN = 25  # actions that every chunk size is also executed by
SHOWN = (0, 10, 24, 49, 74, 99, 124, 149, 174, 199)  # places in a chunk
HELD_OUT = 20  # demonstrations


@dataclass
class Chunks(Training):
    """Sizes of C32."""

    sizes: tuple[int, ...] = (50, 100, 150, 200)
    """Chunk sizes."""


def jobs(settings: Chunks) -> list[Job]:
    """Every chunk size, executed by halves, whole, and by 25 actions."""
    found: list[Job] = []
    for k in settings.sizes:
        how = STATE.act | {"steps": settings.steps, "threads": 1, "chunk_size": k}
        ways = {"half": HALF, "whole": ExecutionConfig("open_loop")}
        ways[f"by {AGAIN}"] = ExecutionConfig("receding", execute=AGAIN)
        found += every_seed(
            settings.seeds, f"c32_{k}", {"k": k}, how, ways, n=settings.n
        )
    return found


def errors(job: Job, runs: Path) -> list[float | None]:
    """Mean error (rad) of the arm's joints at `SHOWN` places, on held-out episodes.

    All of the same moments: those with as many ticks left as the last place needs.
    """
    data = runs / f"{job.data}_held_out"
    record_once(data, "human", HELD_OUT, job.seed + 5000)
    lengths = [len(load_episode(path)) for path in list_episodes(data)]
    left = np.concatenate([np.arange(n)[::-1] for n in lengths])  # (M,)
    error, _ = held_out(load_policy(runs / job.name), data)  # (M, k, A)
    error = error[left >= max(SHOWN), :, :5]
    return [
        float(error[:, place].mean()) if place < error.shape[1] else None
        for place in SHOWN
    ]


def measure(settings: Chunks) -> Row:
    """Success of each, and errors by place in the chunk."""
    todo = jobs(settings)
    rows = rows_of_jobs(todo, settings.runs, settings.jobs)
    by_place = {job.name: errors(job, settings.runs) for job in todo}
    table = [
        {
            "k": k,
            "place": place,
            "error_rad": float(np.mean([e[i] for e in found])),  # type: ignore
        }
        for k in settings.sizes
        for i, place in enumerate(SHOWN)
        if place < k
        for found in [[by_place[j.name] for j in todo if j.labels["k"] == k]]
    ]
    return {
        "task": PICK_PLACE,
        "seeds": settings.seeds,
        "steps": settings.steps,
        "summary": pooled(rows, ["k"]),
        "errors": table,
        "runs": rows,
        "seconds": sum(row.get("job_seconds", 0.0) for row in rows),
    }


def at(k: int, execution: str = "half") -> str:
    """A number, as prose names it."""
    return f"{{{{k={k} execution='{execution}'}}}}"


def error(k: int, place: int) -> str:
    """An error in rad, as prose names it."""
    return f"{{{{claims/C32 errors k={k} place={place} -> error_rad 3}}}}"


C32 = Claim(
    "C32",
    "Chunks that are too long are worse: they waste capacity on what nobody can "
    "predict.",
    "A table of articles: 150 to 200 for long tasks, and too long is worse.",
    measure,
    Chunks(steps=2000),
    ours="Human-like demonstrations of 130 to 300 ticks, halves of chunks executed: k "
    f"= 50 {at(50)}, 100 {at(100)}, 150 {at(150)}, 200 {at(200)}; whole chunks "
    f"{at(50, 'whole')}, {at(100, 'whole')}, {at(150, 'whole')}, {at(200, 'whole')}; "
    f"25 actions of each {at(50, 'by 25')}, {at(100, 'by 25')}, {at(150, 'by 25')}, "
    f"{at(200, 'by 25')}. Error on held-out demonstrations, where 200 "
    f"ticks are left: the first action "
    f"{error(50, 0)} rad at k = 50 and {error(200, 0)} at 200, the 50th "
    f"{error(50, 49)} and {error(200, 49)}, the 200th {error(200, 199)}.",
)
