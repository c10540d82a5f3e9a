"""C11: a chunk is as long as one sub-motion, times the rate, rounded up to 25.

Against the curve of data/results/chunk_size.json (30 Hz, half of each chunk executed).
Then the same task at 50 Hz: if seconds decide, a chunk of 25 does as 15 would at 30 Hz.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from act_minimal.command.demo import STATE
from act_minimal.dataset import Demonstrations
from act_minimal.settings import TrainConfig
from act_minimal.support.errors import UserError
from act_minimal.training import train
from course.figures.lesson_02 import faster_task, rule_of_thumb, submotions

from ..results import RESULTS
from ..rollouts import PICK_PLACE, Row, pooled, record_once, roll_out, side_by_side
from .chunk_size import DEMONSTRATORS, load
from .claim import Claim, Training

FIFTY = (10, 25, 50)  # chunk sizes at 50 Hz


@dataclass
class RuleSizes(Training):
    """Sizes of C11; rollouts and updates are those at 50 Hz."""

    results: Path = RESULTS
    """Where chunk_size.json is read."""
    demonstrations: int = 50
    """Of each seed."""
    fifty: bool = True
    """Whether to train at 50 Hz, too."""


def durations(demonstrator: str, settings: RuleSizes) -> np.ndarray:
    """Sub-motions in s of all seeds' demonstrations."""
    found = []
    for seed in settings.seeds:
        n = settings.demonstrations
        data = settings.runs / f"state_{demonstrator}_{n}_{seed}"
        record_once(data, demonstrator, n, seed)
        found.append(submotions(Demonstrations.load(data)))
    return np.concatenate(found)


def judge(demonstrator: str, seconds: np.ndarray, curve: list[Row]) -> Row:
    """What the rule says, and how that does on the curve.

    Raises:
        UserError: the curve lacks the rule's chunk size.
    """
    ours = [
        r
        for r in curve
        if (r["demonstrator"], r["execution"], r["cvae"])
        == (demonstrator, "half", True)
    ]
    quartiles = [float(np.percentile(seconds, p)) for p in (25, 50, 75)]
    k = rule_of_thumb(quartiles[1], 30)
    chosen = next((r for r in ours if r["k"] == k), None)
    if chosen is None:
        known = [r["k"] for r in ours]
        raise UserError(f"the rule says k = {k}, the curve holds {known}")
    best = max(ours, key=lambda r: r["success"])
    return {
        "demonstrator": demonstrator,
        "sub_motions": len(seconds),
        "seconds_quartiles": quartiles,
        "k": k,
        "k_quartiles": [rule_of_thumb(s, 30) for s in quartiles],
        "k_at_50_hz": rule_of_thumb(quartiles[1], 50),
        "success": chosen["success"],
        "interval": chosen["interval"],
        "n": chosen["n"],
        "best_k": best["k"],
        "best_success": best["success"],
        "best_interval": best["interval"],
        "intervals_overlap": chosen["interval"][1] >= best["interval"][0],
    }


def run(k: int, seed: int, settings: RuleSizes) -> Row:
    """One policy at 50 Hz."""
    task = faster_task(50)
    data = settings.runs / f"fast_human_{settings.demonstrations}_{seed}"
    out = settings.runs / f"c11_k{k}_{seed}"
    model = {"cvae_actions_per_token": 5}
    chosen = STATE.act | {"chunk_size": k, "model": model, "steps": settings.steps}
    chosen |= {"threads": 1, "val_fraction": 0.0, "tensorboard": False}
    trained = train(
        TrainConfig(data=data, out=out, seed=seed, **chosen), progress=False
    )
    result = roll_out(trained.policy, settings.n, seed, out / "rollouts", task)
    print(f"50 Hz, k = {k}, seed {seed}: {result}", flush=True)
    row = {"k": k, "seed": seed, "execution": "half", "steps": trained.steps}
    row |= {"chunk_seconds": k / 50, "train_seconds": round(trained.seconds, 1)}
    return row | result.to_json()


def fifty(settings: RuleSizes) -> list[Row]:
    """Rows of all policies at 50 Hz."""
    for seed in settings.seeds:
        n = settings.demonstrations
        data = settings.runs / f"fast_human_{n}_{seed}"
        record_once(data, "human", n, seed, faster_task(50))
    todo = [(k, seed, settings) for k in FIFTY for seed in settings.seeds]
    return side_by_side(run, todo, settings.jobs)


def measure(settings: RuleSizes) -> Row:
    """The rule on the curve, and policies at 50 Hz."""
    curve = load(settings.results)["summary"]
    rule = [judge(d, durations(d, settings), curve) for d in DEMONSTRATORS]
    rows = fifty(settings) if settings.fifty else []
    return {
        "task": f"{PICK_PLACE} at 30 Hz; `fifty`: the same at 50 Hz",
        "seeds": settings.seeds,
        "rule": rule,
        "fifty": pooled(rows, ["k", "chunk_seconds"]),
        "runs": rows,
        "seconds": sum(row["seconds"] + row["train_seconds"] for row in rows),
    }


C11 = Claim(
    "C11",
    "A chunk should be as long as one sub-motion: its duration times the control rate, "
    "rounded up to 25.",
    "A tuning guide: 0.5 to 4 s at 50 Hz.",
    measure,
    RuleSizes(),
    ("chunk_size",),
    "30 Hz, human-like: the rule gives k = {{claims/C11 rule demonstrator=human -> k "
    "0}} with {{claims/C11 rule demonstrator=human}}, the best was k = {{claims/C11 "
    "rule demonstrator=human -> best_k 0}} with {{claims/C11 rule demonstrator=human "
    "-> best_success percent}}. 50 Hz: k = 25: {{claims/C11 fifty k=25}}, k = 50: "
    "{{claims/C11 fifty k=50}} (longer ones were not run; {{claims/C11 fifty k=50 -> "
    "steps.0}} updates, at 30 Hz {{chunk_size summary demonstrator=human k=25 "
    "cvae=true execution=half -> steps.0}}).",
    verdict="under a condition",
    line="A sub-motion's duration times the rate is a good first guess; at 30 Hz a "
    "chunk twice as long was better.",
    why="At 50 Hz the same seconds are more ticks: k = 50, the rule's answer there, "
    "does better than k = 25. The trainings differ in length, so that rates at 30 and "
    "at 50 Hz do not compare.",
)
