"""One policy on changed scenes: what C21 and C27 share.

Each (policy, change, seed) is one evaluation, kept in --runs and found again. The
committed vision checkpoint is one training seed: seeds here are of scenes.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from act_minimal.demo import VISION
from act_minimal.evaluation import evaluate
from act_minimal.policy import load_policy
from act_minimal.sim.variants import Change, ChangedPickPlace
from benchmarks.results import RESULTS
from benchmarks.rollouts import HALF, Job, run_job, total

CHECKPOINTS = RESULTS.parents[0] / "checkpoints"
VISION_CHECKPOINT = CHECKPOINTS / "so100_pick_place_vision"
STATE_CHECKPOINT = CHECKPOINTS / "so100_pick_place_state"
SCENES = 20  # scene seeds 20, 21, 22: neither the demonstrations' nor lesson 07's
RETRAIN = (
    "same 200 demonstrations, 7500 steps and one training seed (0) as the committed "
    "checkpoint; images shifted by up to 12 pixels instead of 4, brightness, contrast "
    "and saturation varied by up to 0.5"
)


@dataclass
class Settings:
    """What is run, and where it is kept."""

    runs: Path = Path("runs/benchmarks")
    """Folder of rollouts and training runs."""
    jobs: int = 1
    """Evaluations side by side, one thread each."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of scenes."""
    n: int = 100
    """Rollouts a seed."""
    retrain: bool = False
    """Also train one vision policy with strong augmentation (about 20 core-minutes and
    2 to record; C21 and C27 share it) and roll it out on the same changes."""


@dataclass(frozen=True)
class Trial:
    """One policy under one change, on the scenes of one seed."""

    policy: Path
    change: Change
    labels: Mapping[str, Any]
    seed: int
    n: int
    out: Path


def augmented_policy(settings: Settings) -> Path:
    """Train the vision policy with strong augmentation, or find it."""
    job = Job(
        "field_augmented_0",
        "human",
        200,
        0,
        VISION.act
        | {"cameras": VISION.cameras, "limit": 200, "shift_px": 12}
        | {"brightness": 0.5, "contrast": 0.5, "saturation": 0.5},
        {"half": HALF},
        n=settings.n,
    )
    run_job(job, settings.runs)
    return settings.runs / job.name


def trials(
    policies: Mapping[str, Path],
    changes: Sequence[tuple[Mapping[str, Any], Change]],
    settings: Settings,
) -> list[Trial]:
    """Every policy under every change on every seed's scenes."""
    todo = []
    for name, path in policies.items():
        for labels, change in changes:
            for seed in (SCENES + seed for seed in settings.seeds):
                what = f"{name}_{change.name or 'unchanged'}_{seed}_{settings.n}"
                out = settings.runs / "field" / what.replace(" ", "_")
                one = {"policy": name, **labels}
                todo.append(Trial(path, change, one, seed, settings.n, out))
    return todo


def run_trial(trial: Trial) -> dict[str, Any]:
    """Roll out; the row says how often it succeeded, and how it failed."""
    import torch

    from act_minimal.course.field import sort_failures

    torch.set_num_threads(1)
    result = evaluate(
        load_policy(trial.policy),
        ChangedPickPlace(trial.change),
        n=trial.n,
        seed=trial.seed,
        out=trial.out,
        threads=1,
        progress=False,
    )
    kinds = {k: len(v) for k, v in sort_failures(result.rollouts).items()}
    print(dict(trial.labels), trial.seed, result, kinds, flush=True)
    return {**trial.labels, "kinds": kinds, **result.to_json()}


def run_trials(todo: list[Trial], jobs: int) -> list[dict[str, Any]]:
    """All trials, `jobs` at a time, in order."""
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        return list(pool.map(run_trial, todo))


def pooled(rows: list[dict[str, Any]], labels: list[str]) -> list[dict[str, Any]]:
    """Rows over all seeds: successes, n and kinds of failure added up."""
    groups: dict[tuple, list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(tuple(row[name] for name in labels), []).append(row)
    return [
        dict(zip(labels, key, strict=True))
        | total(group)
        | {
            "jerk": sum(r["jerk"] for r in group) / len(group),
            "frozen": sum(r["frozen"] for r in group) / len(group),
            "kinds": {k: sum(r["kinds"][k] for r in group) for k in group[0]["kinds"]},
        }
        for key, group in groups.items()
    ]
