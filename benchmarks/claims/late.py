"""C23: predictions that take several ticks, in worlds where that costs something.

Every way of executing late chunks, against delays and execution horizons. The worlds
are the toys of `course/toolkit/toys.py`, the cube on a belt, and pick-and-place with
and without a push. Policies, trained once a world and seed: ACT as always; told the
committed actions (`prefix`); told where the arm will be (`future`, and with the arm's
lag of three ticks); ACT with a head that corrects every tick (`residual`); and a flow,
of whose chunks one is taken that goes on with the plan, or that is led to it.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from act_minimal.command.demo import STATE
from act_minimal.control import run
from act_minimal.dataset import Demonstrations, Statistics
from act_minimal.evaluation import Lateness, Rate, evaluation_scenes, late_sums
from act_minimal.execution import LATE, ExecutionConfig, Mode
from act_minimal.policy import make_policy
from act_minimal.realtime import InTicks, Switch, draws, make_late_executor
from act_minimal.residual import Residual, train_residual
from act_minimal.sampling import BestOf, Guided
from act_minimal.settings import TrainConfig
from act_minimal.sim import make_task
from act_minimal.sim.robot import SimRobot
from act_minimal.support.files import read_json, write_json
from act_minimal.training import train
from course.figures.lesson_02 import PushedRobot
from course.toolkit import toys

from ..rollouts import PICK_PLACE, Row, grouped, record_once, side_by_side, total
from .claim import Claim, Training

DELAYS = (0, 1, 2, 4, 8, 12, 16)  # ticks of 33 ms
HORIZONS = (1, 10, 25)  # and the delay itself, as far as the clock allows
TOLD = 16  # ticks, the longest delay that policies are trained for
SPREAD = 3.0  # p99 over p50, where delays are drawn


class Way(NamedTuple):
    """An executor, and the policy that it drives with."""

    policy: str
    mode: Mode
    sampled: Literal["", "best", "guided"] = ""
    """How a flow's chunk is made to agree with the plan (`sampling.py`)."""
    least: int = 1
    """Shortest horizon, where a chunk takes too long to be asked for more often."""


WAYS = {
    "arm waits": Way("plain", "receding"),
    "switch": Way("plain", "switch"),
    "overlap": Way("plain", "overlap"),
    "ensemble": Way("plain", "ensemble"),
    "align and fade": Way("plain", "fade"),
    "prefix": Way("prefix", "switch"),
    "prefix, fade": Way("prefix", "fade"),
    "future state": Way("future", "switch"),
    "future state, lag": Way("future_lag", "switch"),
    "residual": Way("residual", "switch"),
    "flow": Way("flow", "switch"),
    "flow, best of 16": Way("flow", "switch", "best", 25),
    "flow, guided": Way("flow", "switch", "guided", 8),
}
POLICIES: dict[str, dict[str, Any]] = {
    "plain": {},
    "prefix": {"prefix_max": TOLD},
    "future": {"future_max": TOLD},
    "future_lag": {"future_max": TOLD, "future_lag": 3},
    "flow": {"head": "flow"},
}


class World(NamedTuple):
    """Where it is tried."""

    task: str
    """Of the simulator, or a toy."""
    robot: Any = SimRobot
    chunk: int = 50
    effort: float = 1.0
    """Of training, in `Late.steps`; toys are learnt sooner."""
    shortest: int = 1
    """Horizon of `Late.horizons` that is tried; a delay is a horizon, too."""


WORLDS = {
    **{name: World(name, toy, 40, 0.4) for name, toy in toys.TOYS.items()},
    "belt": World("so100_belt", shortest=25),
    "push": World(PICK_PLACE, PushedRobot, shortest=25),
    "static": World(PICK_PLACE, shortest=25),
}


@dataclass
class Late(Training):
    """Sizes of C23."""

    worlds: tuple[str, ...] = tuple(WORLDS)
    delays: tuple[int, ...] = DELAYS
    horizons: tuple[int, ...] = HORIZONS
    demonstrations: int = 50


def policies(world: str, seed: int, settings: Late) -> dict[str, Any]:
    """All of `WAYS`; what was trained before is found again."""
    where, out = WORLDS[world], settings.runs / "late" / WORLDS[world].task
    data = out / f"demonstrations_{seed}"
    if where.task in toys.TOYS:
        if not data.exists():
            toys.record(toys.TOYS[where.task], data, settings.demonstrations, seed)
    else:
        record_once(data, "human", settings.demonstrations, seed, where.task)
    how: dict[str, Any] = STATE.act | {
        "steps": round(where.effort * settings.steps),
        "threads": 1,
        "val_fraction": 0.0,
    }
    how |= {"tensorboard": False, "seed": seed, "chunk_size": where.chunk}
    found: dict[str, Any] = {}
    for name, model in POLICIES.items():
        given: dict[str, Any] = how | {"model": dict(how.get("model", {})) | model}
        config = TrainConfig(data=data, out=out / f"{name}_{seed}", **given)
        found[name] = train(config, progress=False).policy
    demos = Demonstrations.load(data, use_env_state=True)
    oldest = min(where.chunk - 1, TOLD + max(HORIZONS))
    found["residual"] = train_residual(found["plain"], demos, oldest=oldest, seed=seed)
    return found


def cells(world: str, settings: Late) -> Iterator[tuple[str, int, int, float]]:
    """Way, delay, horizon and spread of all that fit the clock."""
    chunk, given = WORLDS[world].chunk, settings.horizons
    given = [h for h in given if h >= WORLDS[world].shortest]
    for way, (_, mode, _, shortest) in WAYS.items():
        for delay in settings.delays:
            waits = mode == "receding"
            least, most = (1, chunk) if waits else (max(1, delay), chunk - delay)
            least = max(least, shortest)
            fits = sorted({h for h in (*given, delay) if least <= h <= most})
            for horizon in [least] if mode == "ensemble" else fits:
                yield way, delay, horizon, 1.0
                if delay in (4, 8) and (horizon == 25 or mode == "ensemble"):
                    yield way, delay, horizon, SPREAD


def tried(
    world: str,
    policy: Any,
    how: Way,
    delay: int,
    horizon: int,
    spread: float,
    seed: int,
    n: int,
) -> Row:
    """One cell: roll out on fresh scenes."""
    start, late, mode = time.perf_counter(), Lateness(), how.mode
    if mode == "ensemble":
        config = ExecutionConfig(mode, every=horizon)
    else:
        config = ExecutionConfig(mode, execute=horizon)
    # Scenes side by side have one clock: drawn delays are those of all of them.
    together = n if spread == 1 else 10
    won, took = 0, list[float]()
    for first in range(0, n, together):
        scenes = evaluation_scenes(seed, n)[first : first + together]
        executor = make_late_executor(config, policy.chunk_size, delay)
        drives = policy
        if policy.samples:
            policy.reseed(scenes[0])
        if how.sampled:
            assert isinstance(executor, Switch)
            drives = (
                BestOf(policy, executor, seed=scenes[0])
                if how.sampled == "best"
                else Guided(policy, executor)
            )
        inference = InTicks(drives, draws(delay, spread, scenes[0]), delay)
        success, arms, ends = driven(world, drives, executor, inference, scenes)
        won += int(success.sum())
        took += list(ends[success] / toys.FPS)
        if delay:
            angles = np.ones(arms[0].shape[1], bool)
            angles[5:] = False  # the SO-100's gripper; toys have fewer joints
            late.add(late_sums(executor, arms, toys.FPS, angles))
    return {
        "delay": delay,
        "horizon": horizon,
        "spread": spread,
        "seed": seed,
        **Rate(won, n).to_json(),
        "late": late.means(n) if delay else {},
        "seconds_to_success": float(np.median(took)) if took else None,
        "seconds": round(time.perf_counter() - start, 1),
    }


def driven(
    world: str, policy: Any, executor: Any, inference: InTicks, scenes: list[int]
) -> tuple[np.ndarray, list[np.ndarray], np.ndarray]:
    """Success (n,), the joints (T, S) of each scene, and the ticks (n,) it took."""
    where = WORLDS[world]
    if where.task in toys.TOYS:
        robot: Any = where.robot(scenes)
        ticks = robot.ticks
    else:
        robot = where.robot(make_task(where.task), scenes, threads=1)
        ticks = robot.world.task.max_ticks
    robot.connect()
    places: list[np.ndarray] = []

    def on_tick(tick: int, observation: Any, action: np.ndarray) -> bool:
        places.append(observation["qpos"])
        return len(getattr(robot, "alive", "some")) == 0

    run(robot, policy, executor, ticks, inference=inference, on_tick=on_tick)
    arms = np.stack(places, 1)  # (n, T, S)
    if isinstance(robot, SimRobot):
        success, ends = robot.world.success, robot.world.ticks
    else:
        success, ends = robot.success, np.full(len(scenes), ticks)
    robot.close()
    return (
        np.array(success),
        [arm[:end] for arm, end in zip(arms, ends, strict=True)],
        np.array(ends),
    )


def task_rows(task: str, seed: int, settings: Late) -> list[Row]:
    """Every cell of a task's worlds, which share policies, with one seed; kept."""
    import torch

    torch.set_num_threads(1)
    made: dict[str, Any] = {}
    rows = []
    for world in (w for w in settings.worlds if WORLDS[w].task == task):
        sizes = settings.n, settings.steps, settings.demonstrations
        name = "_".join(map(str, (world, seed, *sizes)))
        path: Path = settings.runs / "late" / f"{name}.json"
        kept: dict[str, Row] = read_json(path) if path.exists() else {}
        for cell in cells(world, settings):
            way, delay, horizon, spread = cell
            key = f"{way}, delay {delay}, horizon {horizon}, spread {spread:g}"
            if key not in kept:
                made = made or policies(world, seed, settings)
                how = WAYS[way]
                kept[key] = tried(
                    world, made[how.policy], how, *cell[1:], seed, settings.n
                )
                write_json(path, kept)
                print(world, seed, key, kept[key]["rate"], flush=True)
            rows.append({"world": world, "way": way} | kept[key])
    return rows


def costs(ticks: int = 3000) -> Row:
    """Time of each executor a tick (k = 100, 14 joints, d = 8), and of a head."""
    k, joints, delay = 100, 14, 8
    rng = np.random.default_rng(0)
    chunks, found = rng.normal(size=(20, 1, k, joints)), {}
    for mode in (*LATE, "ensemble"):
        executor = make_late_executor(ExecutionConfig(mode), k, delay)
        executor.reset(np.zeros((1, joints)))
        due: list[int] = []

        def tick(now: int, executor: Any = executor, due: list[int] = due) -> None:
            if due and due[0] == now:
                due.clear()
                executor.deliver(chunks[now % len(chunks)], delay)
            if executor.wants_chunk():
                executor.commit(delay)
                due.append(now + delay)
            executor.step()

        found[mode] = timed(tick, ticks)
    one = {name: np.ones(joints) for name in ("qpos", "action", "action_delta")}
    policy = make_policy(
        "act", Statistics(one, one), state_dim=joints, action_dim=joints, chunk_size=k
    )
    head, seen = Residual(policy, k).eval(), {"qpos": np.zeros((1, joints), np.float32)}
    action = chunks[0, :, 0]
    found["residual head"] = timed(lambda now: head.correct(seen, action, 3), ticks)
    return {"n": ticks, "chunk_size": k, "joints": joints, "ms_a_tick": found}


def timed(work: Callable[[int], Any], n: int) -> Row:
    """Mean and 99th percentile of ms that some work takes."""
    taken = []
    for i in range(n):
        start = time.perf_counter()
        work(i)
        taken.append(1000 * (time.perf_counter() - start))
    return {"mean": float(np.mean(taken)), "p99": float(np.percentile(taken, 99))}


def measure(settings: Late) -> Row:
    """All worlds with all seeds."""
    tasks = dict.fromkeys(WORLDS[world].task for world in settings.worlds)
    todo = [(task, seed, settings) for task in tasks for seed in settings.seeds]
    rows = [r for part in side_by_side(task_rows, todo, settings.jobs) for r in part]
    labels = ("world", "way", "delay", "horizon", "spread")

    def means(group: list[Row]) -> Row:
        names = {name for row in group for name in row["late"]}
        return {
            name: float(np.mean([r["late"][name] for r in group if name in r["late"]]))
            for name in sorted(names)
        }

    return {
        "tick_seconds": 1 / toys.FPS,
        "seeds": settings.seeds,
        "told": TOLD,
        "costs": costs(),
        "steps": settings.steps,
        "summary": [
            label | total(group) | means(group)
            for label, group in grouped(rows, labels)
        ],
        "seconds": sum(row["seconds"] for row in rows),
    }


def at(world: str, way: str, delay: int, horizon: int = 25) -> str:
    """A number, as prose names it."""
    labels = f"way='{way}' delay={delay} horizon={horizon} spread=1.0"
    return f"{{{{world={world} {labels}}}}}"


belt, post, catch = (partial(at, world) for world in ("belt", "post", "catch"))
C23 = Claim(
    "C23",
    "When inference is slower than control, switching between chunks jerks; real-time "
    "chunking and its relatives cure it.",
    "The papers on real-time chunking: it works with delays of more than 300 ms.",
    measure,
    Late(steps=3000),
    ours="A cube that rides past on a belt, chunks of 50 actions at 30 Hz, a new one "
    f"asked for every 25 ticks. Without delay: {belt('switch', 0)}. With 8 ticks (267 "
    f"ms): the arm waits {belt('arm waits', 8)}; it goes on, and switches "
    f"{belt('switch', 8)}, overlaps {belt('overlap', 8)}, aligns and fades "
    f"{belt('align and fade', 8)}, ensembles {belt('ensemble', 8, 8)}; told what is "
    f"committed, {belt('prefix', 8)}; shown the future, "
    f"{belt('future state, lag', 8)}; corrected every tick, {belt('residual', 8)}. "
    f"With 16 ticks (533 ms): it waits {belt('arm waits', 16)}, switches "
    f"{belt('switch', 16)}, fades {belt('align and fade', 16)}. Two ways around a "
    "post, 8 ticks, a new chunk asked for as soon as one has come: L1 switches "
    f"{post('switch', 8, 8)}, told what is committed {post('prefix', 8, 8)}; a flow "
    f"switches {post('flow', 8, 8)}, guided by its plan "
    f"{post('flow, guided', 8, 8)}. A ball that a gust takes aside, 4 ticks, asked for "
    f"as often: switches {catch('switch', 4, 4)}, overlaps {catch('overlap', 4, 4)}, "
    f"fades {catch('align and fade', 4, 4)}, ensembles {catch('ensemble', 4, 4)}, told "
    f"what is committed {catch('prefix', 4, 4)}, shown the future "
    f"{catch('future state, lag', 4, 4)}, corrected every tick "
    f"{catch('residual', 4, 4)}; with 8 ticks {catch('switch', 8, 8)} by switching and "
    f"{catch('residual', 8, 8)} by correcting.",
    verdict="under a condition",
    line="Where the world can be foreseen, going on and fading suffice; elsewhere a "
    "correction at each tick helps most.",
    why="Sticking to the plan keeps a flow on its way around a post, which is what "
    "real-time chunking was made for; where something happens meanwhile (a gust, a "
    "balanced pole, a target that turns) the same sticking costs successes, and from 4 "
    "ticks on a head that corrects each action is the best of all.",
)
