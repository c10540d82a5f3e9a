"""C28: one policy over both arms, or one an arm.

Two networks of the same size side by side, each for the 8 numbers of its arm: one kind
sees its own arm's joints, the other those of both arms, which tells seeing from
deciding together. One policy is the one of `benchmarks.rollouts openarm`.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from act_minimal.checkpoint import load_policy
from act_minimal.command.demo import recipe_for
from act_minimal.episodes import Episode
from act_minimal.policy import Policy
from act_minimal.settings import TrainConfig
from act_minimal.support.files import read_json, write_json
from act_minimal.training import train
from course.figures.lesson_09_two_arms import (
    ARMS,
    KINDS,
    SideBySide,
    moments,
    observe,
    overlap,
    sort_out,
)
from course.toolkit.runs import alone

from ..rollouts import (
    Job,
    Row,
    openarm_jobs,
    pooled,
    record_once,
    roll_out,
    run_job,
)
from .claim import Claim
from .trial import changed_copies

TASK = "openarm_handover"
RECIPE = recipe_for(TASK, vision=False)
# (how many policies, whose joints each sees)
WAYS = (("one", "both"), ("two", "own"), ("two", "both"))


@dataclass
class ArmSizes:
    """Sizes of C28."""

    runs: Path = Path("runs/claims")
    """Folder of the training runs of one arm."""
    joint: Path = Path("runs/benchmarks")
    """Folder of demonstrations, and of the runs of one policy for both."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Of demonstrations, weights and scenes."""
    n: int = 100
    """Rollouts a seed."""
    seeing: bool = True
    """Also train two policies that see the joints of both arms: half of all."""

    @property
    def ways(self) -> tuple[tuple[str, str], ...]:
        """What is compared."""
        return WAYS if self.seeing else WAYS[:2]


def joint_job(seed: int) -> Job:
    """The job that trains one policy for both arms."""
    jobs = {job.name: job for job in openarm_jobs((seed,))}
    return jobs[f"{TASK}_human_{seed}"]


def train_arm(data: Path, side: str, sees: str, seed: int, runs: Path) -> Any:
    """Train on one arm's actions alone; or find what was trained before."""
    arm, seen = ARMS[side], ARMS[side] if sees == "own" else slice(0, 16)

    def change(episode: Episode) -> None:
        episode.qpos = episode.qpos[:, seen]
        episode.qvel, episode.effort = episode.qvel[:, seen], episode.effort[:, seen]
        episode.action = episode.action[:, arm]

    out = runs / f"c28_{sees}_{side}_{seed}"
    half = changed_copies(data, runs / f"{data.name}_{sees}_{side}", change)
    settings = RECIPE.act | {"threads": 1, "val_fraction": 0.0, "tensorboard": False}
    return train(TrainConfig(data=half, out=out, seed=seed, **settings), progress=False)


def two_rows(sees: str, seed: int, settings: ArmSizes) -> Row:
    """Train two policies, roll them out side by side; or find what was done before."""
    out = settings.runs / f"c28_{sees}_{seed}"
    done, n = out / "row.json", settings.n
    if done.exists() and (found := read_json(done))["n"] == n:
        return found
    data = settings.joint / joint_job(seed).data
    with alone(data):
        record_once(data, "human", RECIPE.demonstrations, seed, TASK)
    trained = {s: train_arm(data, s, sees, seed, settings.runs) for s in ARMS}
    both = SideBySide(trained["right"].policy, trained["left"].policy)
    row = rolled_out(cast(Policy, both), seed, n, out)
    row |= {"policies": "two", "sees": sees}
    row |= {"train_seconds": round(sum(t.seconds for t in trained.values()), 1)}
    row |= {"steps": RECIPE.act["steps"]}
    write_json(done, row)
    return row


def one_row(seed: int, settings: ArmSizes) -> Row:
    """The row of one policy for both arms."""
    job = joint_job(seed)
    (made,) = run_job(job, settings.joint)
    policy = load_policy(settings.joint / job.name)
    out = settings.joint / job.name / "rollouts" / "demo"
    row = rolled_out(policy, seed, settings.n, out)
    row |= {"policies": "one", "sees": "both"}
    return row | {k: made[k] for k in ("train_seconds", "steps")}


def rolled_out(policy: Policy, seed: int, n: int, out: Path) -> Row:
    """Success, kinds of failure, and for how long both hands held the bar, s."""
    start = time.perf_counter()
    result = roll_out(policy, n, seed, out, TASK, RECIPE.execution)
    row = {"seed": seed, "execution": "half"} | result.to_json()
    held = sorted(round(overlap(r), 2) for r in result.rollouts if r.success)
    row |= {"kinds": sort_out(result.rollouts), "overlap_s": held}
    row |= {"parameters": sum(p.numel() for p in policy.parameters())}
    print(type(policy).__name__, seed, result, row["kinds"], flush=True)
    return row | {"rollout_seconds": round(time.perf_counter() - start, 1)}


def plans(settings: ArmSizes) -> Row:
    """What each way plans for the right hand, in the same scenes.

    The scenes are those of the rollouts of one policy, 0.2 s after the left hand has
    closed on the bar; the plans' quartiles are of its opening in the next 50 ticks.
    """
    chunks: dict[tuple[str, str], list[np.ndarray]] = {w: [] for w in settings.ways}
    for seed in settings.seeds:
        joint = settings.joint / joint_job(seed).name
        policy = load_policy(joint)
        kept = joint / "rollouts" / "demo"
        found = roll_out(policy, settings.n, seed, kept, TASK, RECIPE.execution)
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


def together(group: list[Row]) -> Row:
    """Kinds of failure, size, and for how long both hands held the bar."""
    kinds = {k: sum(r["kinds"][k] for r in group) for k in group[0]["kinds"]}
    held = np.concatenate([r["overlap_s"] for r in group])
    return {
        "kinds": kinds,
        "changing_hands": sum(kinds.values()) - kinds[KINDS[0]],
        "parameters": group[0]["parameters"],
        "overlap_median_s": float(np.median(held)) if len(held) else None,
    }


def measure(settings: ArmSizes) -> Row:
    """Every way with every seed."""
    rows = [
        one_row(seed, settings) if policies == "one" else two_rows(sees, seed, settings)
        for policies, sees in settings.ways
        for seed in settings.seeds
    ]
    return {
        "task": TASK,
        "seeds": settings.seeds,
        "demonstrations": RECIPE.demonstrations,
        "note": "Seconds of training are not a result: the computer was shared.",
        "summary": pooled(rows, ["policies", "sees"], together),
        "moment": plans(settings),
        "runs": rows,
        "seconds": sum(r["train_seconds"] + r["seconds"] for r in rows),
    }


C28 = Claim(
    "C28",
    "Two arms need one policy over one action vector.",
    "Zhao et al. have one policy for both arms' 14 joints, and no comparison.",
    measure,
    ArmSizes(),
    ours="Handover by two OpenArms, 50 human-like demonstrations, the bar's pose as "
    "input, 4000 updates a network. One policy for all 16 numbers {{policies=one "
    "sees=both}}; two side by side, each for one arm and shown that arm's joints, "
    "{{policies=two sees=own}}; the same two, shown the joints of both arms, "
    "{{policies=two sees=both}}. Failures once the bar was up: {{policies=one "
    "sees=both -> changing_hands 0}}, {{policies=two sees=own -> changing_hands 0}} "
    "and {{policies=two sees=both -> changing_hands 0}}.",
    verdict="did not hold",
    line="Two policies, one an arm, do as well as one policy, as long as each sees "
    "both arms.",
    why="They have twice the parameters to train. If each sees its own arm only, the "
    "right hand opens too early or never: nothing that it sees says whether the left "
    "hand holds the bar.",
)
