"""C28: one policy over both arms, or one an arm.

    uv run python -m benchmarks.claims.c28_two_arms
    uv run python -m benchmarks.claims.c28_two_arms --no-seeing  # half the training

The same 50 human-like handovers, the same training: once one network for all 16
numbers of an action, once two networks of the same size, each for the 8 of its arm,
side by side at the same ticks. Of these there are two kinds: one sees its own arm's
joints, the other those of both arms, which tells seeing from deciding together. All
see the bar's pose. One policy is the one of `benchmarks.rollouts openarm`.
"""

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import tyro
from filelock import FileLock

from act_minimal.course.two_arms import (
    ARMS,
    KINDS,
    SideBySide,
    moments,
    observe,
    overlap,
    sort_out,
)
from act_minimal.demo import recipe_for
from act_minimal.episodes import (
    episode_path,
    list_episodes,
    load_episode,
    save_episode,
)
from act_minimal.evaluation import Evaluation, evaluate
from act_minimal.files import write_json
from act_minimal.policy import Policy, load_policy
from act_minimal.sim import make_task
from act_minimal.sim.recording import record
from act_minimal.training import TrainConfig, train
from benchmarks.results import write
from benchmarks.rollouts import Job, openarm_jobs, pooled, run_job

TASK = "openarm_handover"
RECIPE = recipe_for(TASK, vision=False)
# (how many policies, whose joints each sees)
WAYS = (("one", "both"), ("two", "own"), ("two", "both"))


@dataclass
class Settings:
    """Sizes; the defaults are the committed result's."""

    runs: Path = Path("runs/claims")
    """Folder of the training runs of one arm."""
    joint: Path = Path("runs/benchmarks")
    """Folder of demonstrations, and of the runs of one policy for both."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Of demonstrations, weights and scenes."""
    n: int = 100
    """Rollouts a seed."""
    seeing: bool = True
    """Also train two policies that see the joints of both arms."""

    @property
    def ways(self) -> tuple[tuple[str, str], ...]:
        """What is compared."""
        return WAYS if self.seeing else WAYS[:2]


def joint_job(seed: int) -> Job:
    """The job that trains one policy for both arms."""
    (job,) = (
        job
        for job in openarm_jobs((seed,))
        if job.task == TASK and job.demonstrator == "human"
    )
    return job


def halve(data: Path, side: str, sees: str, out: Path) -> Path:
    """Copies of demonstrations with the actions of one arm only."""
    paths = list_episodes(data)
    if len(list_episodes(out)) == len(paths):
        return out
    arm, seen = ARMS[side], ARMS[side] if sees == "own" else slice(0, 16)
    for i, path in enumerate(paths):
        if episode_path(out, i).exists():
            continue
        episode = load_episode(path)
        episode.qpos = episode.qpos[:, seen]
        episode.qvel, episode.effort = episode.qvel[:, seen], episode.effort[:, seen]
        episode.action = episode.action[:, arm]
        save_episode(episode_path(out, i), episode)
    return out


def train_arm(data: Path, side: str, sees: str, seed: int, runs: Path) -> Any:
    """Train the policy of one arm; or find what was trained before."""
    out = runs / f"c28_{sees}_{side}_{seed}"
    half = halve(data, side, sees, runs / f"{data.name}_{sees}_{side}")
    settings = RECIPE.act | {"threads": 1, "val_fraction": 0.0, "tensorboard": False}
    return train(TrainConfig(data=half, out=out, seed=seed, **settings), progress=False)


def two_rows(sees: str, seed: int, settings: Settings) -> dict[str, Any]:
    """Train two policies, roll them out side by side; or find what was done before."""
    out = settings.runs / f"c28_{sees}_{seed}"
    done, n = out / "row.json", settings.n
    if (
        done.exists()
        and (found := json.loads(done.read_text(encoding="utf-8")))["n"] == n
    ):
        return found
    data = settings.joint / joint_job(seed).data
    with FileLock(settings.joint / f".{data.name}.lock"):
        record(make_task(TASK), data, RECIPE.demonstrations, demonstrator="human",
               seed=seed, progress=False)  # fmt: skip
    trained = {s: train_arm(data, s, sees, seed, settings.runs) for s in ARMS}
    both = SideBySide(trained["right"].policy, trained["left"].policy)
    row = rolled_out(cast(Policy, both), seed, n, out)
    row |= {"policies": "two", "sees": sees}
    row |= {"train_seconds": round(sum(t.seconds for t in trained.values()), 1)}
    row |= {"steps": RECIPE.act["steps"]}
    write_json(done, row)
    return row


def one_row(seed: int, settings: Settings) -> dict[str, Any]:
    """The row of one policy for both arms."""
    job = joint_job(seed)
    (made,) = run_job(job, settings.joint)
    policy = load_policy(settings.joint / job.name)
    out = settings.joint / job.name / "rollouts" / "demo"
    row = rolled_out(policy, seed, settings.n, out)
    row |= {"policies": "one", "sees": "both"}
    return row | {k: made[k] for k in ("train_seconds", "steps")}


def rolled_out(policy: Policy, seed: int, n: int, out: Path) -> dict[str, Any]:
    """Success, kinds of failure, and for how long both hands held the bar."""
    start = time.perf_counter()
    result = evaluate(
        policy, TASK, RECIPE.execution, n=n, seed=seed, out=out, threads=1,
        progress=False,
    )  # fmt: skip
    row = {"seed": seed, "execution": "half"} | result.to_json()
    row |= {"kinds": sort_out(result.rollouts), "overlap_s": overlaps(result)}
    row |= {"parameters": sum(p.numel() for p in policy.parameters())}
    print(type(policy).__name__, seed, result, row["kinds"], flush=True)
    return row | {"rollout_seconds": round(time.perf_counter() - start, 1)}


def overlaps(result: Evaluation) -> list[float]:
    """Of the successes: seconds in which both hands held the bar, sorted."""
    return sorted(round(overlap(r), 2) for r in result.rollouts if r.success)


def plans(settings: Settings) -> dict[str, Any]:
    """What each way plans for the right hand, in the same scenes.

    The scenes are those of the rollouts of one policy, 0.2 s after the left hand has
    closed on the bar; the plans' quartiles are of its opening in the next 50 ticks.
    """
    chunks: dict[tuple[str, str], list[np.ndarray]] = {w: [] for w in settings.ways}
    for seed in settings.seeds:
        joint = settings.joint / joint_job(seed).name
        policy = load_policy(joint)
        found = evaluate(
            policy, TASK, RECIPE.execution, n=settings.n, seed=seed,
            out=joint / "rollouts" / "demo", progress=False,
        )  # fmt: skip
        seen = observe(moments(found.rollouts))
        for policies, sees in settings.ways:
            drives: Any = policy
            if policies == "two":
                folders = [settings.runs / f"c28_{sees}_{s}_{seed}" for s in ARMS]
                drives = SideBySide(*map(load_policy, folders))
            chunk = drives.predict_chunk(seen)[:, :, ARMS["right"].stop - 1]
            chunks[policies, sees].append(chunk)  # (M, k)
    rows = []
    for (policies, sees), parts in chunks.items():
        quartiles = np.quantile(np.concatenate(parts), [0.25, 0.5, 0.75], axis=0)
        one = {"policies": policies, "sees": sees}
        rows.append(one | {"quartiles": np.round(quartiles, 4).tolist()})
    return {"n": sum(map(len, chunks["one", "both"])), "plans": rows}


def main(settings: Settings) -> None:
    """Train, roll out, and write data/results/claims/C28.json."""
    rows = [
        one_row(seed, settings) if policies == "one" else two_rows(sees, seed, settings)
        for policies, sees in settings.ways
        for seed in settings.seeds
    ]
    summary = pooled(rows, ["policies", "sees"])
    for one in summary:
        group = [r for r in rows if all(r[k] == one[k] for k in ("policies", "sees"))]
        kinds = group[0]["kinds"]
        one["kinds"] = {k: sum(r["kinds"][k] for r in group) for k in kinds}
        one["changing_hands"] = sum(one["kinds"].values()) - one["kinds"][KINDS[0]]
        one["parameters"] = group[0]["parameters"]
        held = np.concatenate([r["overlap_s"] for r in group])
        one["overlap_median_s"] = float(np.median(held)) if len(held) else None
    write(
        "claims/C28",
        sum(r["train_seconds"] + r["seconds"] for r in rows),
        {
            "claim": "Two arms need one policy over one action vector.",
            "published": "The paper has one policy for both arms' 14 joints; it does "
            "not report separate ones.",
            "task": TASK,
            "seeds": settings.seeds,
            "demonstrations": RECIPE.demonstrations,
            "note": "Seconds of training are not a result: the computer was shared.",
            "summary": summary,
            "moment": plans(settings),
            "runs": rows,
        },
    )


if __name__ == "__main__":
    main(tyro.cli(Settings))
