"""Lesson F1: what late chunks do to an arm, and to a cube that does not wait."""

from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from act_minimal.checkpoint import load_policy
from act_minimal.control import Observation, run
from act_minimal.evaluation import Evaluation
from act_minimal.execution import ExecutionConfig, Mode
from act_minimal.policy import Policy
from act_minimal.realtime import (
    InTicks,
    Switch,
    check_clock,
    make_late_executor,
)
from act_minimal.sim import make_task
from act_minimal.sim.film import Stage, Take, film
from act_minimal.sim.robot import SimRobot
from act_minimal.support.errors import SettingError

from ..toolkit.films import Film, show_film
from ..toolkit.paths import ROOT, home
from ..toolkit.plots import COLOURS, MARKERS, figure, label, style
from ..toolkit.runs import rollouts
from ..toolkit.widgets import Explorer, choice, slider, steps

BELT = "so100_belt"
HORIZON = 25  # ticks, half a chunk
NAMES: dict[str, Mode] = {
    "arm waits": "receding",
    "switch": "switch",
    "overlap": "overlap",
    "ensemble": "ensemble",
    "align and fade": "fade",
}
JOINT, ARM = 0, 5  # the shoulder's pan follows the belt; joints without the gripper
PICTURE = (240, 320)
STRIDE = 5  # ticks between two pictures


def belt_policy(kind: str) -> Policy:
    """A checkpoint that comes with the course: plain, prefix or future."""
    return load_policy(ROOT / "data" / "checkpoints" / f"{BELT}_{kind}")


def way(name: str, horizon: int = HORIZON) -> ExecutionConfig:
    """The settings of a way of executing: a chunk every so many ticks."""
    mode = NAMES[name]
    if mode == "ensemble":
        return ExecutionConfig(mode, every=horizon)
    return ExecutionConfig(mode, execute=horizon)


def measured(
    policy: Policy, name: str, delay: int, n: int, horizon: int = HORIZON
) -> Evaluation:
    """Rollouts on the belt whose predictions take so many ticks; found again."""
    how = way(name, horizon)
    return rollouts(policy, how, n=n, seed=7, task=make_task(BELT), delay=delay)


def outcome(name: str, found: Evaluation) -> str:
    """A line about late rollouts: success, ticks without an action, seams."""
    late = found.late
    said = f"{name:16} {found}, {late.get('holds', 0):3.0f} ticks without an action"
    if "near" in late:
        said += (
            f", seams {late['seam']:.3f} rad, acceleration near them "
            f"{late['near'] / late['apart']:.2f} × elsewhere"
        )
    return said


# --- one rollout ----------------------------------------------------------------------


@dataclass(frozen=True)
class Ride:
    """One rollout on the belt.

    Attributes:
        qpos: (T, nq) states of the simulator.
        sent: (T, A) targets.
        cube: (T, 3) its position, m.
        seams: ticks at which a new chunk took over.
        holds: ticks without an action.
        success: whether the cube came into the bin.
        fps: ticks a second.
    """

    qpos: np.ndarray
    sent: np.ndarray
    cube: np.ndarray
    seams: list[int]
    holds: int
    success: bool
    fps: float

    @property
    def acceleration(self) -> np.ndarray:
        """(T,) root mean square over the arm's targets, rad/s²; 0 at both ends."""
        found = np.zeros(len(self.sent))
        second = np.diff(self.sent[:, :ARM], 2, axis=0) * self.fps**2
        found[1:-1] = np.sqrt((second**2).mean(1))
        return found


def ride(policy: Policy, how: ExecutionConfig, delay: int, scene: int) -> Ride:
    """Roll a policy out on one scene of the belt, and keep everything."""
    robot = SimRobot(make_task(BELT), [scene], threads=1)
    executor = make_late_executor(how, policy.chunk_size, delay)
    states: list[np.ndarray] = []
    seen: list[Observation] = []
    sent: list[np.ndarray] = []

    def on_tick(tick: int, observation: Observation, action: np.ndarray) -> bool:
        if not len(robot.alive):
            return True
        states.append(np.array(robot.world.qpos[0]))
        seen.append(observation)
        sent.append(action[0])
        return False

    inference = InTicks(policy, delay)
    robot.connect()
    try:
        ticks = robot.world.task.max_ticks
        run(robot, policy, executor, ticks, inference=inference, on_tick=on_tick)
        success = bool(robot.world.success[0])
    finally:
        robot.close()
    seams = executor.seam_ticks if isinstance(executor, Switch) else []
    return Ride(
        np.stack(states),
        np.stack(sent).astype(float),
        np.stack([one["env_state"][0, :3] for one in seen]),
        [tick for tick in seams if tick < len(sent)],
        len(executor.hold_ticks),
        success,
        robot.fps,
    )


def rides_film(policy: Policy, names: list[str], delay: int, n: int) -> Film:
    """The first n scenes executed in several ways, a row of pictures each."""
    task, scenes = make_task(BELT), range(n)
    rides = [
        (name, ride(policy, way(name), delay, scene))
        for name in names
        for scene in scenes
    ]
    takes = [Take(name, one.qpos, one.success) for name, one in rides]
    path = home() / "films" / f"belt_{delay}_{n}.mp4"
    path.parent.mkdir(parents=True, exist_ok=True)
    film(task, takes, path, columns=n, size=PICTURE, cameras=("scene",), progress=False)
    counts = {x: sum(one.success for name, one in rides if name == x) for x in names}
    said = ", ".join(f"{name} {won} of {n} successes" for name, won in counts.items())
    return show_film(
        path, f"A cube rides past on a belt; delay {delay} ticks, {n} scenes: {said}."
    )


# --- the seam -------------------------------------------------------------------------


def seam_figure(rides: dict[str, Ride], span: tuple[float, float]) -> Figure:
    """Targets of the shoulder around some seams, and the arm's acceleration."""
    fig, (left, right) = figure(2, height=3.2)
    for i, (name, one) in enumerate(rides.items()):
        seconds = np.arange(len(one.sent)) / one.fps
        left.plot(seconds, one.sent[:, JOINT], **style(i), label=name)
        right.plot(seconds, one.acceleration, **style(i), label=name)
        inside = [t for t in one.seams if span[0] <= t / one.fps <= span[1]]
        left.plot(
            [t / one.fps for t in inside],
            one.sent[inside, JOINT],
            MARKERS[i],
            color=COLOURS[i],
        )
    first = next(iter(rides.values()))
    now = slice(*(int(s * first.fps) for s in span))
    shown = np.concatenate([one.sent[now, JOINT] for one in rides.values()])
    left.set(xlim=span, ylim=(shown.min() - 0.02, shown.max() + 0.02))
    right.set(xlim=span, ylim=(0, None))
    label(left, "time, s", "target of shoulder pan, rad", "markers: a new chunk")
    label(right, "time, s", "acceleration of the targets, rad/s²", "one rollout")
    left.legend(fontsize=9)
    return fig


def near_and_apart(one: Ride, near: int = 3) -> tuple[float, float]:
    """RMS acceleration of the targets within `near` ticks of a seam, and elsewhere."""
    ticks = np.arange(len(one.sent))
    away = np.abs(np.subtract.outer(ticks, one.seams)).min(1)  # (T,) ticks to a seam
    squares = one.acceleration**2
    inner = slice(1, -1)  # a second difference has no ends
    close = away[inner] <= near
    squares = squares[inner]
    return float(np.sqrt(squares[close].mean())), float(np.sqrt(squares[~close].mean()))


# --- the explorer ---------------------------------------------------------------------


def clock_explorer(policy: Policy, scene: int) -> Explorer:
    """Delay, horizon and executor over one scene of the belt, with its film."""
    delays, horizons = (0, 4, 8, 16), (10, 25)
    kept: dict[tuple[str, int, int], Ride] = {}
    along: dict[tuple[str, int, int], np.ndarray] = {}  # the belt, m: the hand's target
    pictures: dict[tuple[str, int, int, int], np.ndarray] = {}
    stage = Stage(make_task(BELT), PICTURE)
    fig, axes = figure(3, width=8.0, height=2.8)
    view, path, rough = axes
    picture = view.imshow(np.zeros((*PICTURE, 3), np.uint8))
    view.axis("off")
    (hand,) = path.plot([], [], **style(0), label="hand's target")
    (cube,) = path.plot([], [], **style(1), label="cube")
    (seams,) = path.plot([], [], MARKERS[0], color=COLOURS[0], ms=4)
    (line,) = rough.plot([], [], color=COLOURS[2], lw=1.2)
    cursors = [one.axvline(0, color="black", lw=1) for one in (path, rough)]
    label(path, "time, s", "along the belt, m", "dots: a new chunk")
    label(rough, "time, s", "acceleration of targets, rad/s²")
    path.set(xlim=(0, 12), ylim=(-0.3, 0.3))
    rough.set(xlim=(0, 12), ylim=(0, 60))
    path.legend(fontsize=9, loc="lower right")

    def draw(time: float, delay: int, horizon: int, way_: str) -> tuple[Figure, str]:
        key = way_, delay, max(horizon, delay)
        if key not in kept:
            kept[key] = ride(policy, way(way_, key[2]), delay, scene)
        one = kept[key]
        tick = min(round(time * one.fps), len(one.sent) - 1) // STRIDE * STRIDE
        if (*key, tick) not in pictures:
            pictures[(*key, tick)] = stage.draw(one.qpos[tick], "scene")
        picture.set_data(pictures[(*key, tick)])
        seconds = np.arange(len(one.sent)) / one.fps
        if key not in along:
            along[key] = stage.fingertips(one.qpos[0], one.sent)[0, :, 0]
        hand.set_data(seconds, along[key])
        cube.set_data(seconds, one.cube[:, 0])
        seams.set_data(seconds[one.seams], along[key][one.seams])
        line.set_data(seconds, one.acceleration)
        for cursor in cursors:
            cursor.set_xdata([time] * 2)
        ends = "the cube is in the bin" if one.success else "the cube is not in the bin"
        return fig, (
            f"{way_}, delay {delay} ticks ({1000 * delay / one.fps:.0f} ms), a chunk "
            f"every {key[2]} ticks or later: {ends} after "
            f"{len(one.sent) / one.fps:.1f} s; {one.holds} ticks without an action. "
            "One scene."
        )

    explorer = Explorer(
        "Which way still meets the cube when predictions take half a second?",
        draw,
        time=slider("time, s", 0.0, 12.0, 3.0, 0.5),
        delay=steps("delay, ticks", list(delays), 8),
        horizon=steps("execution horizon, ticks", list(horizons), HORIZON),
        way_=choice("executed by", list(NAMES), "arm waits"),
    )
    # All rides at once: a slider has to answer in a tenth of a second.
    for name in NAMES:
        for delay in delays:
            for horizon in horizons:
                key = name, delay, max(horizon, delay)
                if key not in kept:
                    kept[key] = ride(policy, way(name, key[2]), delay, scene)
    return explorer


# --- settings for an arm --------------------------------------------------------------


def advice(milliseconds: float, fps: float, chunk_size: int) -> str:
    """Delay, the horizons that it allows, and the flags, from a measured time."""
    delay = int(np.ceil(milliseconds / 1000 * fps))
    start = f"{milliseconds:4.0f} ms at {fps:g} Hz: d = {delay:2}"
    if delay <= 1:
        return f"{start}, nothing to do: the arm stands still for no tick"
    try:
        check_clock(chunk_size, delay, delay)
    except SettingError as error:
        return f"{start}; {error}"
    most = chunk_size - delay
    return f"{start}, s from {delay} to {most}: act deploy --mode fade"
