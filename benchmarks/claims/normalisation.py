"""C20: with and without normalisation, and a joint that never moved.

For the second part a seventh joint, which has nothing to do with the task, rests at 0.5
rad in every demonstration; the error is measured after it has been moved.
"""

import time
from typing import Any

import numpy as np
import torch

from act_minimal.dataset import Demonstrations, Statistics, Windows
from act_minimal.support.errors import UserError
from act_minimal.support.files import read_json, write_json
from course.figures import lesson_06 as practice

from ..rollouts import Row, grouped, record_once, roll_out, side_by_side
from .claim import Claim, Training, means, outcome

K = 25
FLOORS = (0.01, 1e-8)
DEGREES = (0.0, 0.1, 0.3, 1.0, 3.0)


def run(seed: int, settings: Training) -> Row:
    """Everything of one seed; found again."""
    path = settings.runs / f"c20_{seed}.json"
    what = {"n": settings.n, "steps": settings.steps, "seed": seed}
    if path.exists():
        found = read_json(path)
        if found["settings"] != what:
            raise UserError(f"{path} was made with other settings; remove it")
        return found
    start = time.perf_counter()
    torch.set_num_threads(1)
    data = settings.runs / f"state_human_50_{seed}"
    demos = Demonstrations.load(record_once(data, "human", 50, seed))
    standard = Windows(demos, range(50), K).statistics()
    nothing = {key: np.zeros((1, len(x))) for key, x in standard.mean.items()}
    none = Statistics.compute(nothing, std_floor=1.0)  # mean 0, deviation 1
    how: Any = {"steps": settings.steps, "chunk_size": K, "seed": seed}
    rows, still = [], []
    for name, statistics in (("standard", standard), ("none", none)):
        began = time.perf_counter()
        policy, _ = practice.short_run(demos, statistics, **how)
        seconds = time.perf_counter() - began
        found = roll_out(policy, settings.n, seed, None)
        print(f"seed {seed}, {name}: {found}", flush=True)
        rows.append(
            {"statistics": name, "seed": seed, "execution": "half"}
            | {"steps": settings.steps, "train_seconds": round(seconds, 1)}
            | found.to_json()
        )
    seven = practice.still_joint(demos, seed=seed)
    windows = Windows(seven, range(50), K)
    for floor in FLOORS:
        policy, _ = practice.short_run(seven, windows.statistics(floor), **how)
        errors = practice.error_when_moved(policy, seven, np.deg2rad(DEGREES).tolist())
        for degrees, l1 in zip(DEGREES, errors, strict=True):
            still.append({"floor": floor, "degrees": degrees, "seed": seed, "l1": l1})
    found = {"settings": what, "rows": rows, "still": still}
    found["seconds"] = time.perf_counter() - start
    write_json(path, found)
    return found


def measure(settings: Training) -> Row:
    """Every seed, and the error of the displaced joint over seeds."""
    todo = [(seed, settings) for seed in settings.seeds]
    each = side_by_side(run, todo, settings.jobs)
    rows = [row for one in each for row in one["rows"]]
    moved = [row for one in each for row in one["still"]]
    still = [row | means(g, ["l1"]) for row, g in grouped(moved, ["floor", "degrees"])]
    about = {"steps": settings.steps, "still": still}
    seconds = {"seconds": sum(one["seconds"] for one in each)}
    return about | outcome(settings, rows, ["statistics"]) | seconds


C20 = Claim(
    "C20",
    "Actions must be normalised, or joints of different scales break training.",
    "A tuning guide. The original code's floor on a deviation is 0.01.",
    measure,
    Training(),
    ours="State policy, a plain training of 1000 updates: normalised "
    "{{statistics=standard}}, not {{statistics=none}}. A joint that never moved, "
    "displaced by 1 degree: error {{claims/C20 still floor=0.01 degrees=1.0 -> l1 2}} "
    "with a floor of 0.01 rad on the deviation, {{claims/C20 still floor=1e-08 "
    "degrees=1.0 -> l1 2}} without.",
    verdict="Holds only in part: radians and metres are of one size, so leaving them "
    "as they are costs some successes and breaks nothing. A missing floor is worse: a "
    "joint that never moved then ruins every prediction.",
)
