"""C11: a chunk is as long as one sub-motion, times the rate, rounded up to 25.

    uv run python -m benchmarks.claims.c11_rule --runs runs/benchmarks
    uv run python -m benchmarks.claims.c11_rule --runs runs/benchmarks --no-fifty

The rule with the median sub-motion of the demonstrations, against the curve of
data/results/chunk_size.json (30 Hz, half of each chunk executed). Then the same task,
demonstrated and controlled at 50 Hz, with three chunk sizes: if seconds decide, a chunk
of 25 should now do as 15 would at 30 Hz.
"""

import json
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from act_minimal.course.chunks import faster_task, rule_of_thumb, submotions
from act_minimal.dataset import Demonstrations
from act_minimal.demo import STATE
from act_minimal.errors import UserError
from act_minimal.evaluation import evaluate
from act_minimal.sim import make_task
from act_minimal.sim.recording import record
from act_minimal.training import TrainConfig, train
from benchmarks.results import RESULTS, write
from benchmarks.rollouts import pooled

DEMONSTRATORS = ("human", "scripted")
FIFTY = (10, 25, 50)  # chunk sizes at 50 Hz


@dataclass
class Settings:
    """What is run, and where it is kept."""

    runs: Path = Path("runs/benchmarks")
    """Folder of demonstrations and training runs."""
    results: Path = RESULTS
    """Where chunk_size.json is read."""
    jobs: int = 1
    """Policies side by side, one thread each."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Demonstrations, weights and scenes of each seed belong together."""
    n: int = 100
    """Rollouts a seed at 50 Hz."""
    steps: int = 1000
    """Updates of every policy at 50 Hz."""
    demonstrations: int = 50
    fifty: bool = True
    """Whether to train at 50 Hz, too."""


def durations(demonstrator: str, settings: Settings) -> np.ndarray:
    """Sub-motions in s of all seeds' demonstrations."""
    found = []
    for seed in settings.seeds:
        n = settings.demonstrations
        data = settings.runs / f"state_{demonstrator}_{n}_{seed}"
        task = make_task("so100_pick_place")
        record(task, data, n, demonstrator=demonstrator, seed=seed, progress=False)
        found.append(submotions(Demonstrations.load(data)))
    return np.concatenate(found)


def judge(demonstrator: str, seconds: np.ndarray, curve: list[dict]) -> dict[str, Any]:
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


def run(k: int, seed: int, settings: Settings) -> dict[str, Any]:
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
    result = evaluate(
        trained.policy,
        task,
        n=settings.n,
        seed=seed,
        out=out / "rollouts",
        threads=1,
        progress=False,
    )
    print(f"50 Hz, k = {k}, seed {seed}: {result}", flush=True)
    row = {"k": k, "seed": seed, "execution": "half", "steps": trained.steps}
    row |= {"chunk_seconds": k / 50, "train_seconds": round(trained.seconds, 1)}
    return row | result.to_json()


def fifty(settings: Settings) -> list[dict[str, Any]]:
    """Rows of all policies at 50 Hz."""
    for seed in settings.seeds:
        n = settings.demonstrations
        data = settings.runs / f"fast_human_{n}_{seed}"
        record(
            faster_task(50), data, n, demonstrator="human", seed=seed, progress=False
        )
    todo = [(k, seed, settings) for k in FIFTY for seed in settings.seeds]
    with ProcessPoolExecutor(settings.jobs, mp_context=get_context("spawn")) as pool:
        return [f.result() for f in [pool.submit(run, *one) for one in todo]]


def main(settings: Settings) -> None:
    """Write data/results/claims/C11.json."""
    start = time.perf_counter()
    path = settings.results / "chunk_size.json"
    if not path.exists():
        raise UserError(
            f"{path} is missing; make it with: uv run python -m benchmarks.rollouts "
            "chunk_size"
        )
    curve = json.loads(path.read_text(encoding="utf-8"))["summary"]
    rule = [judge(d, durations(d, settings), curve) for d in DEMONSTRATORS]
    rows = fifty(settings) if settings.fifty else []
    spent = sum(row["seconds"] + row["train_seconds"] for row in rows)
    write(
        "claims/C11",
        spent or time.perf_counter() - start,
        {
            "claim": "A chunk should be as long as one sub-motion: its duration times "
            "the control rate, rounded up to 25.",
            "published": "A tuning guide: 0.5 to 4 s at 50 Hz.",
            "task": "so100_pick_place at 30 Hz; `fifty`: the same at 50 Hz",
            "seeds": settings.seeds,
            "rule": rule,
            "fifty": pooled(rows, ["k", "chunk_seconds"]),
            "runs": rows,
        },
    )


if __name__ == "__main__":
    main(tyro.cli(Settings))
