"""C1: single-step cloning drifts. How fast, when, and what rescues it.

    uv run python -m benchmarks.claims.c01_drift --jobs 2

Three parts: error against the horizon, success against disturbance, and the fair trial
of single steps: every variant is the same network (a perceptron) with the same number
of demonstrations and of updates. (DAgger's policies between its rounds come on top, a
quarter of the updates each.)
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from act_minimal.course import drift
from act_minimal.evaluation import evaluation_scenes, wilson
from benchmarks.claims import trial as t
from benchmarks.claims.trial import Trial
from benchmarks.results import write
from benchmarks.rollouts import pooled

DART = 0.04  # rad
DISTURB = (0.0, 0.02, 0.04)  # rad, while a policy is rolled out
LOOK = (10, 30, 60, 120)  # ticks at which the distance to the data is told


@dataclass
class Settings:
    """Sizes; the defaults are the committed result's."""

    runs: Path = Path("runs/claims")
    """Folder of demonstrations and training runs."""
    jobs: int = 1
    """Policies trained side by side, each on one thread."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Of demonstrations, weights and scenes."""
    steps: int = 3000
    """Updates of every policy."""
    n: int = 100
    """Rollouts a seed."""


VARIANTS: dict[str, dict[str, Any]] = {
    "absolute": {},
    "delta": {"settings": {"action_target": "delta"}},
    "history-2": {"history": 2},
    "history-3": {"history": 3},
    "delta-noise": {
        "settings": {"action_target": "delta", "state_noise": 0.02, "lr": 2e-3}
    },
    "dart": {"disturb": DART},
    "dart-delta": {"disturb": DART, "settings": {"action_target": "delta"}},
    "dagger": {"dagger": True},
    "chunk-25": {"settings": {"chunk_size": 25}},
}
TRIED = {
    "human": tuple(VARIANTS),
    "scripted": ("absolute", "delta", "delta-noise", "dart", "chunk-25"),
    "feedback": ("absolute",),
}


def trials(settings: Settings) -> list[Trial]:
    """Every variant with every seed."""
    return [
        Trial(
            f"c01_{expert}_{variant}_{seed}",
            seed,
            {"expert": expert, "variant": variant},
            expert=expert,
            steps=settings.steps,
            n=settings.n,
            **VARIANTS[variant],
        )
        for expert, variants in TRIED.items()
        for variant in variants
        for seed in settings.seeds
    ]


def against_horizon(trial: Trial, runs: Path) -> dict[str, Any]:
    """How far from the expert a policy is after T steps of its own, on 50 scenes.

    The expert's paths are those of the expert that it was trained on, which is a
    function of the scene.
    """
    policy = t.trained_policy(trial, runs)
    scenes = evaluation_scenes(trial.seed, min(50, trial.n))
    paths = drift.expert_paths(scenes, trial.expert)
    found = t.roll_out(policy, trial, n=len(scenes), seed=trial.seed)
    states = [
        np.concatenate([drift.TASK.state(r.qpos), r.qpos[:, 6:]], 1) for r in found
    ]
    known = drift.Known(t.demonstrations(trial, runs))
    far = drift.padded([known.distance(s) for s in states], max(LOOK) + 1)
    errors = drift.path_errors(states, paths)
    cost = drift.accumulated({"": errors})[""]
    opened = drift.action_errors(policy, paths)
    at = {str(h): float(cost[h - 1]) for h in drift.ARM_HORIZONS}
    return trial.labels | {
        "seed": trial.seed,
        "n": len(scenes),
        "cost": at,
        "power": drift.horizon_power(cost),
        # By the later ticks a good policy may have finished all of its scenes.
        "distance": {
            str(k): float(np.nanmedian(far[:, k]))
            for k in LOOK
            if np.isfinite(far[:, k]).any()
        },
        "open_loop_rad": float(np.mean(np.concatenate(opened))),
        "closed_loop_rad": float(cost[-1] / len(cost)),
    }


def against_noise(trial: Trial, runs: Path, disturb: float) -> dict[str, Any]:
    """Success while what the policy does is disturbed."""
    policy = t.trained_policy(trial, runs)
    found = t.roll_out(policy, trial, n=trial.n, seed=trial.seed, disturb=disturb)
    row = trial.labels | {"disturb_rad": disturb, "seed": trial.seed}
    return row | t.summarise(found)


def mean_over_seeds(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row a policy: the mean over seeds, and each seed's power."""
    out = []
    for name in sorted({(r["expert"], r["variant"]) for r in rows}):
        group = [r for r in rows if (r["expert"], r["variant"]) == name]
        row: dict[str, Any] = {"expert": name[0], "variant": name[1]}
        row |= {"n": sum(r["n"] for r in group)}
        for key in ("power", "open_loop_rad", "closed_loop_rad"):
            row[key] = float(np.mean([r[key] for r in group]))
        for key in ("cost", "distance"):
            row[key] = {
                k: float(np.mean([r[key][k] for r in group]))
                for k in group[0][key]
                if all(k in r[key] for r in group)
            }
        out.append(row | {"power_each_seed": [r["power"] for r in group]})
    return out


def pool_noise(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row a policy and disturbance, with its interval."""
    out = []
    for key in sorted({(r["expert"], r["variant"], r["disturb_rad"]) for r in rows}):
        group = [
            r for r in rows if (r["expert"], r["variant"], r["disturb_rad"]) == key
        ]
        good, n = sum(r["successes"] for r in group), sum(r["n"] for r in group)
        row = dict(zip(("expert", "variant", "disturb_rad"), key, strict=True))
        row |= {"success": good / n, "interval": list(wilson(good, n)), "n": n}
        out.append(row | {"each_seed": [r["rate"] for r in group]})
    return out


def ridge() -> list[dict[str, Any]]:
    """The toy: steps off the ridge against the horizon, 20 000 walks."""
    rows = []
    for back in (0.0, 0.2):
        cost = {
            h: drift.cliff(h, 0.002, back, n=20_000).sum(1).mean()
            for h in drift.HORIZONS
        }
        power = np.log(cost[200] / cost[25]) / np.log(8)
        rows.append(
            {"back": back, "eps": 0.002, "n": 20_000, "power": float(power)}
            | {"cost": {str(h): float(c) for h, c in cost.items()}}
        )
    return rows


def main(settings: Settings) -> None:
    """Run all parts and write data/results/claims/C01.json."""
    start = time.perf_counter()
    todo, runs = trials(settings), settings.runs
    rows = t.side_by_side(t.run_trial, [(x, runs) for x in todo], settings.jobs)
    drifting = [
        x
        for x in todo
        if x.expert in ("scripted", "feedback")
        and x.labels["variant"] in ("absolute", "chunk-25")
    ]
    far = t.side_by_side(against_horizon, [(x, runs) for x in drifting], settings.jobs)
    pushed = [(x, runs, d) for x in drifting for d in DISTURB]
    noisy = t.side_by_side(against_noise, pushed, settings.jobs)
    extra = sum(row["job_seconds"] for row in rows)
    summary = pooled(rows, ["expert", "variant"])
    for row in summary:
        group = [
            r
            for r in rows
            if (r["expert"], r["variant"]) == (row["expert"], row["variant"])
        ]
        row["error_rad"] = float(np.mean([r["error_rad"]["policy"] for r in group]))
    write(
        "claims/C01",
        max(extra, time.perf_counter() - start),
        {
            "claim": "Single-step behaviour cloning drifts: a small error leads to an "
            "unseen state, which leads to a larger error.",
            "published": "Ross and Bagnell (2010): the cost of plain cloning grows up "
            "to quadratically with the horizon.",
            "task": "so100_pick_place",
            "seeds": settings.seeds,
            "steps": settings.steps,
            "demonstrations": 50,
            "dart_rad": DART,
            "summary": summary,
            "horizon": mean_over_seeds(far),
            "noise": pool_noise(noisy),
            "ridge": ridge(),
            "runs": rows,
        },
    )


if __name__ == "__main__":
    main(tyro.cli(Settings))
