"""C20: with and without normalisation, and a joint that never moved.

    uv run python -m benchmarks.claims.c20_normalisation --jobs 2

"none" is the same loop with mean 0 and deviation 1. For the second part a seventh
joint rests at 0.5 rad in every demonstration (tremor 0.0001 rad); the error is measured
after it has been moved. It has nothing to do with the task.
"""

import json
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro

from act_minimal.course import practice
from act_minimal.dataset import Demonstrations, Statistics, Windows
from act_minimal.errors import UserError
from act_minimal.evaluation import evaluate
from act_minimal.files import write_json
from act_minimal.sim import make_task
from act_minimal.sim.recording import record
from benchmarks.results import write
from benchmarks.rollouts import pooled

K = 25
FLOORS = (0.01, 1e-8)
DEGREES = (0.0, 0.1, 0.3, 1.0, 3.0)


@dataclass
class Settings:
    """What is run, and where it is kept."""

    runs: Path = Path("runs/benchmarks")
    """Folder of demonstrations and results of each seed."""
    jobs: int = 1
    """Seeds side by side, one thread each."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Demonstrations, weights and scenes of each seed belong together."""
    n: int = 100
    """Rollouts a seed."""
    steps: int = 1000
    """Updates of every policy."""


def identity(statistics: Statistics) -> Statistics:
    """Mean 0 and deviation 1: numbers stay as they are."""
    return Statistics(
        {key: np.zeros_like(x) for key, x in statistics.mean.items()},
        {key: np.ones_like(x) for key, x in statistics.std.items()},
    )


def run(seed: int, settings: Settings) -> dict[str, Any]:
    """Everything of one seed; found again."""
    path = settings.runs / f"c20_{seed}.json"
    what = json.loads(json.dumps(asdict(settings) | {"seed": seed}, default=str))
    for free in ("runs", "jobs", "seeds"):
        del what[free]
    if path.exists():
        found = json.loads(path.read_text(encoding="utf-8"))
        if found["settings"] != what:
            raise UserError(f"{path} was made with other settings; remove it")
        return found
    start = time.perf_counter()
    torch.set_num_threads(1)
    data = settings.runs / f"state_human_50_{seed}"
    task = make_task("so100_pick_place")
    record(task, data, 50, demonstrator="human", seed=seed, progress=False)
    demos = Demonstrations.load(data)
    standard = Windows(demos, range(50), K).statistics()
    rows, still = [], []
    for name, statistics in (("standard", standard), ("none", identity(standard))):
        began = time.perf_counter()
        policy, _ = practice.short_run(
            demos, statistics, steps=settings.steps, chunk_size=K, seed=seed
        )
        seconds = time.perf_counter() - began
        found = evaluate(policy, n=settings.n, seed=seed, threads=1, progress=False)
        print(f"seed {seed}, {name}: {found}", flush=True)
        rows.append(
            {"statistics": name, "seed": seed, "execution": "half"}
            | {"steps": settings.steps, "train_seconds": round(seconds, 1)}
            | found.to_json()
        )
    seven = practice.still_joint(demos, seed=seed)
    windows = Windows(seven, range(50), K)
    for floor in FLOORS:
        policy, _ = practice.short_run(
            seven,
            windows.statistics(floor),
            steps=settings.steps,
            chunk_size=K,
            seed=seed,
        )
        errors = practice.error_when_moved(policy, seven, np.deg2rad(DEGREES).tolist())
        for degrees, l1 in zip(DEGREES, errors, strict=True):
            still.append({"floor": floor, "degrees": degrees, "seed": seed, "l1": l1})
    found = {"settings": what, "rows": rows, "still": still}
    found["seconds"] = time.perf_counter() - start
    write_json(path, found)
    return found


def main(settings: Settings) -> None:
    """Train, roll out, and write data/results/claims/C20.json."""
    with ProcessPoolExecutor(settings.jobs, mp_context=get_context("spawn")) as pool:
        each = list(pool.map(run, settings.seeds, [settings] * len(settings.seeds)))
    rows = [row for one in each for row in one["rows"]]
    still = []
    for floor in FLOORS:
        for degrees in DEGREES:
            l1 = [
                row["l1"]
                for one in each
                for row in one["still"]
                if (row["floor"], row["degrees"]) == (floor, degrees)
            ]
            still.append(
                {"floor": floor, "degrees": degrees}
                | {"l1": float(np.mean(l1)), "l1_each_seed": l1}
            )
    write(
        "claims/C20",
        sum(one["seconds"] for one in each),
        {
            "claim": "Actions must be normalised; joints of different scale break "
            "training, and a joint that hardly moves needs a floor on its deviation.",
            "published": "A tuning guide; the original code's floor is 0.01.",
            "task": "so100_pick_place",
            "seeds": settings.seeds,
            "steps": settings.steps,
            "summary": pooled(rows, ["statistics"]),
            "still": still,
            "runs": rows,
        },
    )


if __name__ == "__main__":
    main(tyro.cli(Settings))
