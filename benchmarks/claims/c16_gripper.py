"""C16: gripper timing that varies, and two remedies.

    uv run python -m benchmarks.claims.c16_gripper --jobs 2

Three sets of demonstrations that differ only in when and how fast the jaw moves
("steady", "human", "hesitant"), L1 and L2 loss, and two grippers at execution: one that
goes where it is asked to, one that is only ever open or closed. "Half open" is measured
where the policy predicts it: on fresh demonstrations of the same kind, the share of
predicted openings between 0.15 and 0.6, beside the demonstrations' own share.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from act_minimal.dataset import Demonstrations
from act_minimal.demo import STATE
from act_minimal.episodes import episode_path, list_episodes, save_episode
from act_minimal.evaluation import evaluate
from act_minimal.policy import Policy, load_policy
from act_minimal.sim import make_task
from act_minimal.sim.experts import Expert, Style, human_style, tremor
from act_minimal.sim.recording import TOGETHER, _play, scene_seed
from act_minimal.sim.so100 import jaw_to_gripper
from act_minimal.sim.variants import Change, ChangedPickPlace
from act_minimal.sim.world import World
from benchmarks.results import write
from benchmarks.rollouts import HALF, Job, pooled, rows_of, run_job

THRESHOLD = 0.4  # between closed (0.02) and open (0.68 to 0.82)
HALF_OPEN = (0.15, 0.6)
FRESH = 20  # demonstrations on which predictions are looked at
AT_GRASP, AT_BIN = 1, 4  # moves after which the jaw moves


@dataclass
class Settings:
    """What is run, and where it is kept."""

    runs: Path = Path("runs/benchmarks")
    """Folder of demonstrations and training runs."""
    jobs: int = 1
    """Policies trained side by side, one thread each."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Demonstrations, weights and scenes of each seed belong together."""
    n: int = 100
    """Rollouts a seed."""
    steps: int = 1200
    """Updates of every policy."""


def style(timing: str, rng: np.random.Generator) -> Style:
    """A human style with the gripper's timing made steady, left, or made worse."""
    found = human_style(rng)
    pauses = found.pauses.copy()
    if timing == "steady":
        pauses[[AT_GRASP, AT_BIN]] = 0.0
        clean = Style()
        return replace(
            found,
            pauses=pauses,
            squeeze=clean.squeeze,
            early=clean.early,
            release=clean.release,
        )
    if timing == "hesitant":
        pauses[[AT_GRASP, AT_BIN]] = rng.uniform(0.0, 1.5, 2)
        return replace(found, pauses=pauses)
    return found


def record(folder: Path, timing: str, n: int, seed: int) -> None:
    """`n` successful demonstrations, as `sim.recording.record` would keep them.

    Scenes and everything else of a style are those of the human demonstrator.
    """
    if len(list_episodes(folder)) >= n:
        return
    task = make_task("so100_pick_place")
    expert, world = Expert(task, "human"), World(task, TOGETHER)
    kept, attempt = len(list_episodes(folder)), 0
    if kept:  # a recording that was stopped starts over: it takes seconds
        for path in list_episodes(folder):
            path.unlink()
        kept = 0
    while kept < n:
        scenes = [scene_seed(seed, attempt + j) for j in range(TOGETHER)]
        world.reset(scenes)
        plans = []
        for j, scene in enumerate(scenes):
            rng = np.random.default_rng([scene, 1])
            qpos, one = world.qpos[j], style(timing, rng)
            first = np.append(qpos[:5], jaw_to_gripper(qpos[5]))
            plan = expert._moves(first, qpos[6:13], one)
            plans.append(plan + tremor(len(plan), one.tremor, task.fps, rng))
        for j, episode in enumerate(_play(world, plans, (), (96, 128))):
            if episode.attributes["success"] and kept < n:
                episode.attributes |= {
                    "task": task.name,
                    "demonstrator": timing,
                    "seed": seed,
                    "scene": scenes[j],
                    "attempt": attempt + j,
                }
                save_episode(episode_path(folder, kept), episode)
                kept += 1
        attempt += TOGETHER
    world.close()


def jobs(settings: Settings) -> Iterator[Job]:
    """The same network and updates; timing and loss differ."""
    for timing, losses in (
        ("steady", ("l1",)),
        ("human", ("l1", "l2")),
        ("hesitant", ("l1", "l2")),
    ):
        for loss in losses:
            for seed in settings.seeds:
                model = STATE.act["model"] | {"loss": loss}
                yield Job(
                    f"c16_{timing}_{loss}_{seed}",
                    timing,
                    50,
                    seed,
                    STATE.act | {"model": model, "steps": settings.steps, "threads": 1},
                    {"half": HALF},
                    n=settings.n,
                    labels={"timing": timing, "loss": loss, "gripper": "as asked"},
                )


def half_open(policy: Policy, folder: Path) -> dict[str, float]:
    """Shares of openings between `HALF_OPEN`, of predictions and of what was done.

    Counted from the tick at which a demonstration has first opened its jaw: at its
    start it is half open by design.
    """
    demos = Demonstrations.load(folder)
    assert demos.env_state is not None
    k, found = policy.chunk_size, []
    for start, length in zip(demos.starts, demos.lengths, strict=True):
        rows = slice(start, start + length)
        done = demos.action[rows, 5]
        seen = {"qpos": demos.qpos[rows], "env_state": demos.env_state[rows]}
        chunks = policy.predict_chunk(seen)[:, :, 5]  # (T, k)
        opened = int(np.argmax(done > HALF_OPEN[1]))
        at, ahead = np.meshgrid(np.arange(length), np.arange(k), indexing="ij")
        valid = (at >= opened) & (at + ahead < length)
        found.append((chunks[valid], done[(at + ahead)[valid]]))
    predicted = np.concatenate([p for p, _ in found])
    done = np.concatenate([d for _, d in found])
    low, high = HALF_OPEN
    between = (predicted > low) & (predicted < high)
    return {
        "predicted": float(between.mean()),
        "demonstrated": float(((done > low) & (done < high)).mean()),
        "on_the_wrong_side": float(
            ((predicted > THRESHOLD) != (done > THRESHOLD)).mean()
        ),
        "predictions": float(len(predicted)),
    }


def run_one(job: Job, runs: Path) -> list[dict[str, Any]]:
    """Record, train, look at the predictions, and roll out with both grippers."""
    if job.demonstrator != "human":
        record(runs / f"state_{job.demonstrator}_50_{job.seed}", job.demonstrator, 50,
               job.seed)  # fmt: skip
    [row] = run_job(job, runs)
    fresh = runs / f"c16_fresh_{job.demonstrator}_{job.seed}"
    record(fresh, job.demonstrator, FRESH, 50 + job.seed)
    policy = load_policy(runs / job.name)
    row |= {"half_open": half_open(policy, fresh)}
    two = evaluate(
        policy,
        ChangedPickPlace(Change(gripper_threshold=THRESHOLD)),
        n=job.n,
        seed=job.seed,
        out=runs / f"{job.name}_two_positions",
        threads=1,
        progress=False,
    )
    print(job.name, "two positions", two, row["half_open"], flush=True)
    other = row | {"gripper": "open or closed", "job_seconds": two.seconds}
    return [row, other | two.to_json()]


def main(settings: Settings) -> None:
    """Train, roll out, and write data/results/claims/C16.json."""
    todo = list(jobs(settings))
    for timing in ("steady", "hesitant"):  # two jobs must not record the same at once
        for seed in settings.seeds:
            record(settings.runs / f"state_{timing}_50_{seed}", timing, 50, seed)
            record(
                settings.runs / f"c16_fresh_{timing}_{seed}", timing, FRESH, 50 + seed
            )
    for seed in settings.seeds:
        record(settings.runs / f"c16_fresh_human_{seed}", "human", FRESH, 50 + seed)
    rows = rows_of(todo, settings.runs, settings.jobs, run_one)
    summary = pooled(rows, ["timing", "loss", "gripper"])
    for one in summary:
        same = [r for r in rows if all(r[k] == one[k] for k in ("timing", "loss"))]
        one["half_open"] = {
            key: float(np.mean([r["half_open"][key] for r in same]))
            for key in same[0]["half_open"]
        }
    write(
        "claims/C16",
        sum(row.get("job_seconds", 0.0) for row in rows),
        {
            "claim": "Gripper timing that varies makes ACT predict 'half open'; a "
            "thresholded gripper or consistent timing mends it.",
            "published": "A list of failures says so; no number is given.",
            "task": "so100_pick_place",
            "seeds": settings.seeds,
            "steps": settings.steps,
            "threshold": THRESHOLD,
            "half_open_between": HALF_OPEN,
            "summary": summary,
            "runs": rows,
        },
    )


if __name__ == "__main__":
    main(tyro.cli(Settings))
