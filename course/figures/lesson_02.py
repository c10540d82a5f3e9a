"""Lesson 02: windows, chunk sizes, executed lengths, and a cube that is pushed."""

from collections.abc import Mapping
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from act_minimal.control import Observation, run
from act_minimal.dataset import Demonstrations, Windows
from act_minimal.evaluation import (
    Evaluation,
    Rate,
    evaluation_scenes,
    fingerprint,
)
from act_minimal.execution import ExecutionConfig, make_executor
from act_minimal.policy import Policy
from act_minimal.sim import PickPlace, make_task
from act_minimal.sim.robot import SimRobot
from act_minimal.sim.so100.pick_place import ZONE_CENTRE, ZONE_SIZE
from act_minimal.sim.world import Task
from act_minimal.support.files import read_json, write_json

from ..toolkit.paths import home
from ..toolkit.plots import (
    COLOURS,
    figure,
    label,
    log_ticks,
    plot_rates,
    still_layout,
    style,
)
from ..toolkit.results import ResultError, load_result
from ..toolkit.widgets import Explorer, steps

JOINT = 1  # shoulder lift: it moves most
SIZES = (1, 5, 10, 25, 50, 100)  # chunk sizes of data/results/chunk_size.json


# --- how far ahead -------------------------------------------------------------------


def error_ahead(policy: Policy, data: Path, n: int = 512) -> np.ndarray:
    """(k,) mean absolute error in rad of the arm, against how far ahead was predicted.

    The policy is asked at `n` random frames with z = 0; best of demonstrations that it
    was not trained on.
    """
    demos = Demonstrations.load(data)
    windows = Windows(demos, np.arange(len(demos)), policy.chunk_size)
    chosen = np.random.default_rng(0).choice(len(windows), n, replace=False)
    batch = windows.batch(chosen)
    seen = {k: v for k, v in batch.items() if k in ("qpos", "env_state")}
    error = np.abs(policy.predict_chunk(seen) - batch["action"].numpy())[..., :5]
    valid = ~batch["is_pad"].numpy()  # (n, k)
    return (error.mean(-1) * valid).sum(0) / np.maximum(valid.sum(0), 1)


# --- how long a sub-motion is ---------------------------------------------------------


def submotions(demos: Demonstrations) -> np.ndarray:
    """Durations in s of the arm's moves: from standing still to standing still.

    The fastest joint slower than 0.1 rad/s is standing still, so the gentle beginning
    and end of a move are not counted, about 0.1 s in all.
    """
    width = 5  # ticks averaged, so that tremor does not count as motion
    box, found = np.ones(width) / width, []
    for start, length in zip(demos.starts, demos.lengths, strict=True):
        arm = demos.action[start : start + length, :5]
        smooth = np.stack([np.convolve(arm[:, j], box, "valid") for j in range(5)], 1)
        speed = np.abs(np.diff(smooth, axis=0)).max(1) * demos.fps  # (T - width,)
        moving = np.concatenate([[0], speed > 0.1, [0]]).astype(int)
        edges = np.flatnonzero(np.diff(moving))
        ticks = edges[1::2] - edges[::2]
        # Shorter stretches than that are what is left of the tremor.
        found.append(ticks[ticks >= 6])
    return np.concatenate(found) / demos.fps


def rule_of_thumb(seconds: float, fps: float, step: int = 25) -> int:
    """Actions that cover one sub-motion, rounded up to a multiple of `step`."""
    ticks = round(seconds * fps, 6)  # 0.7 * 50 is 35.00000000000001 to a computer
    return step * int(np.ceil(ticks / step))


def duration_figure(found: np.ndarray, fps: float) -> Figure:
    """A histogram of sub-motions, with their median."""
    fig, axes = figure(height=2.6)
    axes.hist(found, bins=np.arange(0.2, 2.4, 0.1), color=COLOURS[5], edgecolor="white")
    middle = float(np.median(found))
    text = f"median {middle:.2f} s = {middle * fps:.0f} ticks at {fps:g} Hz"
    axes.axvline(middle, color="black", ls="--", label=text)
    label(axes, "duration of a sub-motion, s", f"how many (n = {len(found)})")
    axes.legend()
    return fig


# --- success against k ----------------------------------------------------------------


def size_figure(folder: Path | None = None) -> tuple[Figure, str]:
    """The committed success rates against k, and a sentence that says them."""
    fig, axes = figure()
    said = []
    try:
        rows = load_result("chunk_size", folder)["summary"]
    except ResultError:
        axes.text(0.5, 0.5, "chunk_size.json is not measured yet", ha="center")
        return fig, "An empty figure: success against k is not measured yet."
    for i, (demonstrator, execution) in enumerate(
        (("human", "half"), ("human", "whole"), ("scripted", "half"))
    ):
        ours = [
            r
            for r in rows
            if (r["demonstrator"], r["execution"]) == (demonstrator, execution)
            and not r["cvae"]
        ]
        ours.sort(key=lambda r: r["k"])
        plot_rates(
            axes,
            # Side by side, or the bars would hide each other.
            np.array([r["k"] for r in ours]) * 1.03**i,
            [r["success"] for r in ours],
            [r["interval"] for r in ours],
            **style(i, marker=True),
            label=f"{demonstrator}, {execution} chunks",
        )
        points = [f"{100 * r['success']:.0f} % at k = {r['k']}" for r in ours]
        said.append(f"{demonstrator}, {execution} chunks: {', '.join(points)}")
    n = sorted({r["n"] for r in rows})
    log_ticks(axes, SIZES)
    axes.set_ylim(0, 105)
    label(axes, "chunk size k", "success, %", f"n = {n[0]} rollouts a point, 3 seeds")
    axes.legend()
    return fig, f"Success against chunk size. {'. '.join(said)}."


def grid_figure(folder: Path | None = None) -> tuple[Figure, str]:
    """Success for every chunk size k and executed length h, and a sentence about it."""
    names = {0.02: "trained with noise on the inputs", 0.0: "trained without noise"}
    try:
        rows = load_result("claims/grid", folder)["summary"]
    except ResultError:
        return figure()[0], "An empty grid: claims/grid.json is not measured yet."
    noises = list(dict.fromkeys(row["noise"] for row in rows))
    fig, grids = figure(len(noises), height=3.4)
    said = []
    for axes, noise in zip(np.atleast_1d(grids), noises, strict=True):
        name = names[noise]
        table = np.full((len(SIZES), len(SIZES)), np.nan)
        for row in (r for r in rows if r["noise"] == noise):
            at = SIZES.index(row["k"]), SIZES.index(row["h"])
            table[at] = 100 * row["success"]
            ink = "white" if table[at] < 45 else "black"
            how = {"ha": "center", "va": "center", "color": ink}
            axes.text(*at[::-1], f"{table[at]:.0f}", **how)
        axes.imshow(table, cmap="cividis", vmin=0, vmax=100, origin="lower")
        axes.grid(False)
        for ticks in (axes.set_xticks, axes.set_yticks):
            ticks(range(len(SIZES)), [str(size) for size in SIZES])
        title = f"success, % (n = {rows[0]['n']} a cell), {name}"
        label(axes, "executed length h", "chunk size k", title)
        known = [row for row in rows if row["noise"] == noise]
        best = max(known, key=itemgetter("success"))
        said.append(
            f"{name}, best {100 * best['success']:.0f} % at k = {best['k']}, "
            f"h = {best['h']}"
        )
    n = rows[0]["n"]
    return fig, f"Success on a grid of k and h, n = {n} a cell: {'; '.join(said)}."


def two_effects(noise: float, folder: Path | None = None) -> str:
    """What larger chunks change at h = 1, and what executing up to 25 of them changes.

    In points of success, with the interval of the difference.
    """
    try:
        found = load_result("claims/grid", folder)
    except ResultError:
        return "claims/grid.json is not measured yet"
    lines = {}
    for row in (r for r in found["effects"] if r["noise"] == noise):
        low, high = (100 * x for x in row["interval"])
        k, h, learning = row["k"], row["h"], row["effect"] == "learning"
        if not learning and h != min(k, 25):
            continue
        what = f"learning,  h = 1: k from 1 to {k}"
        if not learning:
            what = f"executing, k = {k}: h from 1 to {h}"
        points = f"{100 * row['difference']:+.0f} ({low:+.0f} to {high:+.0f})"
        lines[not learning, k] = f"  {what:36} {points}"
    return "\n".join(lines[key] for key in sorted(lines))


def chunk_explorer(found: Mapping[tuple[int, int], Evaluation], fps: float) -> Explorer:
    """Sliders for k and the executed length over rollouts that were made before.

    `found` has them by (k, executed length), all on the same scenes.
    """
    sizes = sorted({k for k, _ in found})
    lengths = sorted({h for _, h in found})
    fig, (left, right) = figure(2, height=3.4)
    (line,) = left.plot([], [], color=COLOURS[0], label="shoulder lift, rad")
    (asked,) = left.plot(
        [], [], "o", color=COLOURS[1], ms=4, label="asked here", zorder=1
    )
    left.set_xlim(0, max(e.rollouts[0].ticks for e in found.values()) / fps)
    paths = np.concatenate([e.rollouts[0].qpos[:, JOINT] for e in found.values()])
    left.set_ylim(paths.min() - 0.1, paths.max() + 0.4)
    label(left, "time, s", "rad", "the first scene")
    left.legend(loc="upper right")
    # Evenly spaced, and each k a little aside, or equal rates would hide each other.
    column = {h: i for i, h in enumerate(lengths)}
    aside = {k: 0.08 * i for i, k in enumerate(sizes)}
    for i, k in enumerate(sizes):
        ours = [(h, found[k, h]) for h in lengths if (k, h) in found]
        right.plot(
            [column[h] + aside[k] for h, _ in ours],
            [100 * e.rate for _, e in ours],
            **style(i, marker=True),
            ms=5,
            label=f"k = {k}",
        )
    (here,) = right.plot([], [], "o", mfc="none", mec="black", ms=13, mew=2)
    right.set_xticks(list(column.values()), [str(h) for h in lengths])
    right.set_ylim(-5, 105)
    n = next(iter(found.values())).n
    label(right, "executed length h, actions", f"success, % (n = {n})")
    right.legend(loc="lower right")
    still_layout(fig)

    def draw(k: int, execute: int) -> tuple[Figure, str]:
        h = max(h for h in lengths if h <= execute and (k, h) in found)
        e, first = found[k, h], found[k, h].rollouts[0]
        path = first.qpos[:, JOINT]
        line.set_data(np.arange(len(path)) / fps, path)
        ticks = np.arange(0, len(path), h)
        asked.set_data(ticks / fps, path[ticks])
        here.set_data([column[h] + aside[k]], [100 * e.rate])
        cut = "" if h == execute else f" (a chunk of {k} has no {execute} actions)"
        return fig, (
            f"k = {k}, executed {h}{cut}: {e}; asked {fps / h:.1f} times a second, "
            f"blind for up to {h / fps:.2f} s; jerk {e.jerk:.0f} rad/s³, "
            f"{100 * e.frozen:.0f} % of the time frozen."
        )

    return Explorer(
        "What matters more: how far ahead the policy predicts, or how soon it is "
        "asked again?",
        draw,
        k=steps("chunk size k", sizes, sizes[-1]),
        execute=steps("executed length h", lengths, lengths[0]),
    )


# --- a cube that is pushed ------------------------------------------------------------


@dataclass(frozen=True)
class Push:
    """A push of the cube, as by a finger: over `PUSH_SECONDS`, upright all the way.

    Attributes:
        tick: at which it begins.
        offset: (2,) m, where to, relative to where the cube lies.
    """

    tick: int
    offset: np.ndarray


PUSH_SECONDS = 0.2
PUSH_BEGINS = (0.7, 1.4)  # s; no demonstrator has touched the cube by then
PUSH_FAR = (0.03, 0.05)  # m


def draw_push(scene: int, cube: np.ndarray, fps: float) -> Push:
    """The push of a scene: the same for every policy; it ends inside the zone."""
    rng = np.random.default_rng([scene, 14])
    tick = round(rng.uniform(*PUSH_BEGINS) * fps)
    while True:  # nearly every second one is inside
        angle, far = rng.uniform(0, 2 * np.pi), rng.uniform(*PUSH_FAR)
        offset = far * np.array([np.cos(angle), np.sin(angle)])
        if (np.abs(cube + offset - ZONE_CENTRE) < ZONE_SIZE / 2).all():
            return Push(tick, offset)


class PushedRobot(SimRobot):
    """Simulated arms; in each scene somebody pushes the cube once."""

    pushes: list[Push]

    def connect(self) -> None:
        super().connect()
        cubes = np.array(self.world.qpos)[:, 6:8]
        rows = zip(self.seeds, cubes, strict=True)
        self.pushes = [draw_push(scene, cube, self.fps) for scene, cube in rows]

    def act(self, action: np.ndarray) -> None:
        """One control tick; the cube moves on where it is being pushed."""
        ticks = round(PUSH_SECONDS * self.fps)
        for i in self.alive:
            push, tick = self.pushes[i], self.world.ticks[i]
            if push.tick <= tick < push.tick + ticks:
                self.world.qpos[i, 6:8] += push.offset / ticks
                self.world.qvel[i, 6:12] = 0.0
        super().act(action)


def outcome(
    policy: Policy, execute: int, *, n: int, seed: int = 0, pushed: bool = True
) -> Rate:
    """Roll out on `n` fresh scenes with the cube pushed (or not); found again later."""
    what = f"{fingerprint(policy)}_{execute}_{n}_{seed}"
    path = home() / "pushes" / f"{what}_{'pushed' if pushed else 'left'}.json"
    if not path.exists():
        task = make_task("so100_pick_place")
        scenes = evaluation_scenes(seed, n)
        robot = (PushedRobot if pushed else SimRobot)(task, scenes, threads=1)
        write_json(path, {"successes": roll_out(policy, robot, execute)})
    successes = read_json(path)["successes"]
    return Rate(sum(successes), len(successes))


def roll_out(policy: Policy, robot: SimRobot, execute: int) -> list[bool]:
    """Drive a robot's scenes to their ends; whether each succeeded."""

    def over(tick: int, observation: Observation, action: np.ndarray) -> bool:
        return len(robot.alive) == 0

    way = ExecutionConfig("receding", execute=execute)
    executor = make_executor(way, policy.chunk_size)
    robot.connect()
    try:
        run(robot, policy, executor, robot.world.task.max_ticks, on_tick=over)
    finally:
        robot.close()
    return [bool(x) for x in robot.world.success]


def push_figure(found: Mapping[str, Mapping[int, Rate]]) -> Figure:
    """Success against executed length, a line for each of `found`."""
    fig, axes = figure()
    for i, (name, ours) in enumerate(found.items()):
        plot_rates(
            axes,
            list(ours),
            [one.rate for one in ours.values()],
            [one.interval for one in ours.values()],
            **style(i, marker=True),
            label=name,
        )
    lengths = sorted({h for ours in found.values() for h in ours})
    n = next(iter(next(iter(found.values())).values())).n
    log_ticks(axes, lengths)
    axes.set_ylim(0, 105)
    label(axes, "executed length, actions", f"success, % (n = {n} a point)")
    axes.legend(loc="lower left")
    return fig


def faster_task(fps: int = 50) -> Task:
    """The same task at another control rate, with as many seconds to succeed in."""
    task: Any = PickPlace()
    seconds, physics = task.max_ticks / task.fps, task.fps * task.substeps
    task.name, task.fps = f"{task.name}_{fps}hz", fps
    task.substeps = round(physics / fps)
    task.max_ticks = round(seconds * fps)
    return task
