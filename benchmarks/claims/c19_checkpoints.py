"""C19: checkpoints of a run, rolled out: does a loss tell which is best?

    uv run python -m benchmarks.claims.c19_checkpoints --jobs 2

A tenth of the demonstrations is held out. Validation is at z = 0. Rank correlations are
over all checkpoints of a run, and over its later half; their mean over seeds is given.
Also the arithmetic of the original's epochs.
"""

import math
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from act_minimal.course.practice import checkpoints, rank_correlation
from act_minimal.demo import STATE
from act_minimal.evaluation import evaluate
from act_minimal.policy import load_policy
from act_minimal.sim import make_task
from act_minimal.sim.recording import record
from act_minimal.training import TrainConfig, train
from benchmarks.results import write
from benchmarks.rollouts import pooled

LAST = 20  # training steps that a checkpoint's training loss averages over


@dataclass
class Settings:
    """What is run, and where it is kept."""

    runs: Path = Path("runs/benchmarks")
    """Folder of demonstrations and training runs."""
    jobs: int = 1
    """Runs side by side, one thread each."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Demonstrations, weights and scenes of each seed belong together."""
    n: int = 100
    """Rollouts a checkpoint and seed."""
    steps: int = 2000
    """Updates of every run."""
    every: int = 100
    """Steps between two checkpoints."""
    chosen: tuple[int, ...] = (100, 200, 300, 400, 600, 800, 1200, 1600, 2000)
    """Checkpoints that are rolled out."""


def run(seed: int, settings: Settings) -> list[dict[str, Any]]:
    """Train once, roll the chosen checkpoints out; both are found again."""
    data = settings.runs / f"state_human_50_{seed}"
    record(
        make_task("so100_pick_place"),
        data,
        50,
        demonstrator="human",
        seed=seed,
        progress=False,
    )
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
        found = evaluate(
            load_policy(folders[step]),
            n=settings.n,
            seed=seed,
            out=out / "rollouts" / str(step),
            threads=1,
            progress=False,
        )
        print(f"seed {seed}, step {step}: {found}", flush=True)
        rows.append(
            {"step": step, "seed": seed, "execution": "half", "steps": step}
            | {"train_seconds": round(trained.seconds, 1)}
            | {"train_l1": float(np.mean(l1[max(0, step - LAST) : step]))}
            | {"val_l1": val[step]}
            | found.to_json()
        )
    return rows


def correlations(rows: list[dict[str, Any]], chosen: list[int]) -> dict[str, Any]:
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


def gap(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
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


def main(settings: Settings) -> None:
    """Train, roll out, and write data/results/claims/C19.json."""
    with ProcessPoolExecutor(settings.jobs, mp_context=get_context("spawn")) as pool:
        found = pool.map(run, settings.seeds, [settings] * len(settings.seeds))
        rows = [row for rows in found for row in rows]
    summary = pooled(rows, ["step"])
    for one in summary:
        own = [row for row in rows if row["step"] == one["step"]]
        for name in ("train_l1", "val_l1"):
            one[name] = float(np.mean([row[name] for row in own]))
            one[f"{name}_each_seed"] = [row[name] for row in own]
    late = list(settings.chosen[len(settings.chosen) // 2 :])
    trained = sum({row["seed"]: row["train_seconds"] for row in rows}.values())
    write(
        "claims/C19",
        trained + sum(row["seconds"] for row in rows),
        {
            "claim": "Train for 2000 epochs; success jumps late, and loss is a poor "
            "guide to it.",
            "published": "The original's README: train on after the loss has levelled "
            "off; its data set draws one window an episode and epoch.",
            "task": "so100_pick_place",
            "seeds": settings.seeds,
            "rollouts_each": settings.n,
            "original": epochs(),
            "correlation": {
                "all": correlations(rows, list(settings.chosen)),
                "late": correlations(rows, late) | {"from_step": late[0]},
            },
            "choosing": gap(rows),
            "summary": summary,
            "runs": rows,
        },
    )


if __name__ == "__main__":
    main(tyro.cli(Settings))
