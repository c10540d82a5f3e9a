"""C19: checkpoints of a run, rolled out: does a loss tell which is best?

A tenth of the demonstrations is held out; validation is at z = 0. Rank correlations are
of each run, then their mean.
"""

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from act_minimal.checkpoint import load_policy
from act_minimal.command.demo import STATE
from act_minimal.settings import TrainConfig
from act_minimal.training import train
from course.figures.lesson_06 import checkpoints, rank_correlation

from ..rollouts import Row, record_once, roll_out, side_by_side
from .claim import Claim, Training, means, outcome

LAST = 20  # training steps that a checkpoint's training loss averages over


@dataclass
class Checkpoints(Training):
    """Sizes of C19."""

    every: int = 100
    """Steps between two checkpoints."""
    chosen: tuple[int, ...] = (100, 200, 300, 400, 600, 800, 1200, 1600, 2000)
    """Checkpoints that are rolled out."""


def run(seed: int, settings: Checkpoints) -> list[Row]:
    """Train once, roll the chosen checkpoints out; both are found again."""
    data = settings.runs / f"state_human_50_{seed}"
    record_once(data, "human", 50, seed)
    out = settings.runs / f"c19_{seed}"
    common: dict[str, Any] = {"chunk_size": 25, "steps": settings.steps, "threads": 1}
    common |= {"model": {"cvae_actions_per_token": 5}, "tensorboard": False}
    common |= {"val_every": settings.every, "save_every": settings.every, "keep": 0}
    config = TrainConfig(
        data=data, out=out, seed=seed, val_fraction=0.1, **(STATE.act | common)
    )
    trained = train(config, progress=False)
    l1 = [r["l1"] for r in trained.losses if "l1" in r]
    val = {r["step"]: r["val_l1"] for r in trained.losses if "val_l1" in r}
    folders, rows = checkpoints(trained), []
    for step in settings.chosen:
        kept = out / "rollouts" / str(step)
        found = roll_out(load_policy(folders[step]), settings.n, seed, kept)
        print(f"seed {seed}, step {step}: {found}", flush=True)
        rows.append(
            {"step": step, "seed": seed, "execution": "half", "steps": step}
            | {"train_seconds": round(trained.seconds, 1)}
            | {"train_l1": float(np.mean(l1[max(0, step - LAST) : step]))}
            | {"val_l1": val[step]}
            | found.to_json()
        )
    return rows


def correlations(rows: list[Row], chosen: list[int]) -> Row:
    """Rank correlation of each loss with success, mean over seeds, over `chosen`."""
    found: dict[str, Any] = {}
    seeds = sorted({row["seed"] for row in rows})
    for name in ("train", "val"):
        each = []
        for seed in seeds:
            own = [r for r in rows if r["seed"] == seed and r["step"] in chosen]
            losses, rates = [r[f"{name}_l1"] for r in own], [r["rate"] for r in own]
            each.append(rank_correlation(losses, rates))
        kept = [x for x in each if not math.isnan(x)]  # NaN: all succeed equally often
        found[name] = float(np.mean(kept)) if kept else 0.0
        found[f"{name}_each_seed"] = [None if math.isnan(x) else x for x in each]
    return found


def gap(rows: list[Row]) -> list[Row]:
    """For each seed: what the checkpoint of lowest validation loss does, and others."""
    found = []
    for seed in sorted({row["seed"] for row in rows}):
        own = [r for r in rows if r["seed"] == seed]
        chosen = min(own, key=lambda r: r["val_l1"])
        best = max(own, key=lambda r: r["rate"])
        found.append(
            {
                "seed": seed,
                "lowest_val_step": chosen["step"],
                "lowest_val_success": chosen["rate"],
                "last_success": own[-1]["rate"],
                "best_step": best["step"],
                "best_success": best["rate"],
            }
        )
    return found


def epochs() -> dict[str, int]:
    """The original's 2000 epochs in updates: one window an episode and epoch."""
    training, batch = round(0.8 * 50), 8
    updates = 2000 * math.ceil(training / batch)
    return {"epochs": 2000, "updates": updates, "windows": 2000 * training}


def measure(settings: Checkpoints) -> Row:
    """All runs, and how losses and success go together."""
    todo = [(seed, settings) for seed in settings.seeds]
    rows = [row for rows in side_by_side(run, todo, settings.jobs) for row in rows]
    chosen = list(settings.chosen)
    late = chosen[len(chosen) // 2 :]
    trained = sum({row["seed"]: row["train_seconds"] for row in rows}.values())
    about = {
        "rollouts_each": settings.n,
        "original": epochs(),
        "correlation": {
            "all": correlations(rows, chosen),
            "late": correlations(rows, late) | {"from_step": late[0]},
        },
        "choosing": gap(rows),
    }
    losses = partial(means, keys=("train_l1", "val_l1"))
    seconds = trained + sum(row["seconds"] for row in rows)
    return about | outcome(settings, rows, ["step"], losses) | {"seconds": seconds}


C19 = Claim(
    "C19",
    "Train 2000 epochs; success comes late and the loss is a poor guide.",
    "The original code, whose README says to train on after the loss has levelled off. "
    "Its epoch draws one step of each episode: 2000 epochs are about 10 000 updates.",
    measure,
    Checkpoints(steps=2000),
    ours="Three runs, nine checkpoints each: after 200 updates {{step=200}}, 600: "
    "{{step=600}}, 1200: {{step=1200}}, 2000: {{step=2000}}. Rank correlation of "
    "success with the validation loss at z = 0: {{claims/C19 correlation.all -> val "
    "2}} over all checkpoints, {{claims/C19 correlation.late -> val 2}} over the "
    "later half; with the training loss {{claims/C19 correlation.all -> train 2}} and "
    "{{claims/C19 correlation.late -> train 2}}. Training and validation loss at 200: "
    "{{step=200 -> train_l1 3}} and {{step=200 -> val_l1 3}}, 600: {{step=600 -> "
    "train_l1 3}} and {{step=600 -> val_l1 3}}, 2000: {{step=2000 -> train_l1 3}} and "
    "{{step=2000 -> val_l1 3}}.",
    verdict="under a condition",
    line="Success comes early here, within 600 updates; afterwards no loss tells "
    "which checkpoint is better.",
    why="While success rises both losses fall. Afterwards the training loss keeps "
    "falling and the validation loss rises, while success stays the same; five "
    "checkpoints a run are few for a correlation.",
)
