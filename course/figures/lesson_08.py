"""Lesson 08: a virtual SO-100, and what it does when one is careless.

`hardware` is only imported inside functions: the other lessons work without it.
"""

import atexit
import contextlib
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, wraps
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from act_minimal.episodes import load_episode
from act_minimal.evaluation import evaluation_scenes
from act_minimal.policy import Policy

from ..toolkit.paths import ROOT
from ..toolkit.plots import COLOURS, figure, label, still_layout, style
from ..toolkit.results import load_result
from ..toolkit.widgets import Explorer, slider

JOINT_NAMES = ("pan", "lift", "elbow", "wrist", "roll", "gripper")
STALE_POSE = np.array([0.6, -1.9, 1.7, 1.2, -1.57, 0.3])  # rad, where a goal was left
HERE_POSE = np.array([-0.6, -2.3, 2.1, 1.2, -1.57, 0.3])  # rad, where the arm is now
OLD = 100.0  # ms: a picture this old shows where things were three ticks ago
LATE = 10.0  # ms: ticks that are off by more come from a busy computer


@dataclass(frozen=True)
class VirtualArm:
    """A virtual arm that is plugged in until the notebook ends.

    Attributes:
        port: of its bus; every command takes it for a serial port.
        calibration: its calibration file.
        cameras: "name=source" of its two cameras.
        scene: who is in the scene with it, and may lay cubes and pull plugs.
        unplug: ends it before the notebook does.
        running: whether its process is still there.
    """

    port: str
    calibration: Path
    cameras: tuple[str, ...]
    scene: Any
    unplug: Callable[[], None]
    running: Callable[[], bool]

    def __repr__(self) -> str:
        return f"a virtual SO-100 at {Path(self.port).name}, cameras top and wrist"


def start_process(config_at: Callable[[Path], Any]) -> tuple[Any, Any, Any, Any]:
    """Virtual arms in a process of their own, which ends with the notebook.

    Returns:
        What `config_at` makes of a port; the scene; what ends the process sooner; and
        what tells whether it is running.
    """
    from hardware.virtual.client import VirtualArmProcess

    stack = contextlib.ExitStack()
    atexit.register(stack.close)
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    config = config_at(folder / "arm")
    process = stack.enter_context(VirtualArmProcess(config))
    return config, process.scene, stack.close, lambda: process.running


def once(start: Callable[[], Any]) -> Callable[[], Any]:
    """`start`, whose arm is found again for as long as it is running."""
    found: list[Any] = []

    @wraps(start)
    def plug_in() -> Any:
        if not (found and found[0].running()):
            found[:] = [start()]
        return found[0]

    return plug_in


@once
def plug_in() -> VirtualArm:
    """A virtual arm in a process of its own, which ends with the notebook."""
    from hardware.so100.calibration import save_calibration
    from hardware.so100.emulator.service import VirtualArmConfig, assemble

    config, *process = start_process(VirtualArmConfig)
    calibration = config.port.with_name("arm.json")
    save_calibration(calibration, assemble(config)[1])
    cameras = tuple(f"{c}=virtual:{config.port}" for c in ("top", "wrist"))
    return VirtualArm(str(config.port), calibration, cameras, *process)


# --- bytes ----------------------------------------------------------------------------


def open_bus(port: str) -> Any:
    """The servos' bus, open; to be closed."""
    from hardware.so100.arm import IDS
    from hardware.so100.bus import Bus
    from hardware.so100.kinematics import JOINTS

    bus = Bus(port, names=dict(zip(IDS, JOINTS, strict=True)))
    bus.open()
    return bus


def health(port: str) -> None:
    """Print a line a servo: what it says of itself."""
    from hardware.so100.setup import health as look

    with contextlib.closing(open_bus(port)) as bus:
        for row in look(bus):
            print(
                f"{row['id']} {row['joint']:14} {row.get('volts', 0):.1f} V, "
                f"{row.get('celsius', 0)} °C, position {row.get('position', 0):4}, "
                f"fault: {row['fault']}"
            )


def exchange(port: str, packet: bytes) -> bytes:
    """Send bytes as they are; return those that come back within 50 ms."""
    import serial

    from hardware.clock import clock_of

    clock = clock_of(port)
    with serial.Serial(port, 1_000_000, timeout=0, exclusive=True) as line:
        line.reset_input_buffer()
        line.write(packet)
        clock.wait_until(clock.now() + 0.05)
        return line.read(line.in_waiting)


def hexadecimal(data: bytes) -> str:
    """Bytes as people read them, such as FF FF 03 04; a dash for silence."""
    return data.hex(" ").upper() or "-"


def tip_errors(error: float) -> np.ndarray:
    """(5, 100) m: how far the fingertip is off where one joint is, by `error` rad."""
    from hardware.so100.kinematics import ARMS

    arm, poses = ARMS["so100"], _wishes()[0]
    poses = poses[np.linspace(0, len(poses) - 1, 100).astype(int)]
    true = arm.tip_of(poses)
    moved = [arm.tip_of(poses + error * np.eye(6)[joint]) for joint in range(5)]
    return np.linalg.norm(np.array(moved) - true, axis=-1)


def tip_lines(error: float) -> str:
    """The same in words, a line a joint."""
    lines = [
        f"{name:5} off by {np.degrees(error):.0f} degrees: the fingertip is off by "
        f"{away.min():.1f} to {away.max():.1f} cm"
        for name, away in zip(JOINT_NAMES, 100 * tip_errors(error), strict=False)
    ]
    return "\n".join(lines)


def calibration_figure(error: float) -> Figure:
    """Where the fingertip is, against where the measured angles put it, by joint."""
    fig, axes = figure(width=7.0, height=2.6)
    away = list(100 * tip_errors(error))
    axes.boxplot(away, tick_labels=JOINT_NAMES[:5], whis=(0, 100))
    axes.axhline(2.5, color=COLOURS[1], linestyle="--", label="width of the cube")
    axes.set_ylim(0)
    axes.legend()
    off = f"joint that is off by {np.degrees(error):.0f} degrees"
    what = "n = 100 poses: median, middle half, whiskers to the least and the most"
    label(axes, off, "tip off, cm", what)
    return fig


# --- the stale goal -------------------------------------------------------------------


@dataclass(frozen=True)
class Start:
    """What the shoulder did when the torque came on."""

    careful: bool
    seconds: np.ndarray
    """(T,) since torque on."""
    angle: np.ndarray
    """(T,) of the shoulder, rad."""

    @property
    def travel(self) -> float:
        """How far from its start it comes to rest, rad."""
        return float(abs(self.angle[-1] - self.angle[0]))

    @property
    def swing(self) -> float:
        """How far from its start it ever was, rad."""
        return float(np.abs(self.angle - self.angle[0]).max())

    @property
    def speed(self) -> float:
        """At its fastest, rad/s, between looks 10 ms apart or more."""
        steps = np.diff(self.angle) / np.maximum(np.diff(self.seconds), 0.01)
        return float(np.abs(steps).max())

    def __str__(self) -> str:
        name = "goal set first" if self.careful else "goal left behind"
        far, rest = np.degrees((self.swing, self.travel))
        return (
            f"{name}: swings {far:.0f} degrees, comes to rest {rest:.0f} degrees from "
            f"where it was, up to {self.speed:.1f} rad/s"
        )


def torque_on(arm: VirtualArm, *, careful: bool) -> Start:
    """Leave a goal behind, carry the arm elsewhere by hand, and switch torque on.

    Only with a virtual arm: never try this on a real one. `careful` sets each goal to
    the measured position first.
    """
    from hardware.so100.arm import IDS

    with contextlib.closing(open_bus(arm.port)) as bus:
        for pose in (STALE_POSE, HERE_POSE):
            for id in IDS:
                bus.write(id, "Torque_Enable", 0)
            arm.scene.put(pose)
            if careful or pose is STALE_POSE:  # a goal where the arm is
                for id, here in bus.read_all(IDS, "Present_Position").items():
                    bus.write(id, "Goal_Position", here)
        try:
            for id in IDS:
                bus.write(id, "Torque_Enable", 1)
            rows, begun = [], arm.scene.look()["time"]
            while not rows or rows[-1][0] < 1.2:
                seen = arm.scene.look()
                rows.append((seen["time"] - begun, seen["joints"][0]))
                time.sleep(0.01)
        finally:
            for id in IDS:
                bus.write(id, "Torque_Enable", 0)
    return Start(careful, *np.array(rows).T)


def starts_figure(*starts: Start) -> Figure:
    """The shoulder's angle after torque on, one line a start."""
    fig, axes = figure(width=7.0, height=2.8)
    for i, start in enumerate(starts):
        name = "goal set first" if start.careful else "goal left behind"
        axes.plot(start.seconds, np.degrees(start.angle), **style(i), label=name)
    goal = float(np.degrees(STALE_POSE[0]))
    axes.axhline(goal, color="black", ls=":", lw=1, label="the goal left behind")
    axes.legend()
    label(axes, "seconds after torque on", "shoulder, degrees")
    return fig


# --- limits ---------------------------------------------------------------------------


@cache
def _wishes() -> tuple[np.ndarray, float]:
    """Actions (T, 6) of a demonstration in which one tick is wrong, and its rate."""
    from hardware.safety.safe_robot import so100_limits

    episode = load_episode(ROOT / "data/samples/state/episode_0.hdf5")
    wishes = episode.action.astype(float).copy()
    limits = so100_limits()
    wishes = np.clip(wishes, limits.low, limits.high)  # the wrist goes to its very end
    wishes[60, 0] += 0.8  # rad: one wrong number in a file, one bad prediction
    return wishes, float(episode.fps)


def governed(speed: float, acceleration: float) -> tuple[np.ndarray, Counter]:
    """(T, 6) what is sent of a demonstration's actions, and interventions by kind.

    Limits are in rad/s and rad/s².
    """
    from hardware.safety.governor import Governor
    from hardware.safety.safe_robot import so100_limits

    wishes, fps = _wishes()
    limits = so100_limits()
    limits = replace(
        limits,
        speed=np.append(np.full(5, speed), limits.speed[5]),
        acceleration=np.append(np.full(5, acceleration), limits.acceleration[5]),
    )
    governor, kinds = Governor(limits, 1 / fps), Counter()
    governor.reset(wishes[0])
    sent = [wishes[0]]
    for wish in wishes[1:]:
        target, found = governor.allow(wish, sent[-1])
        kinds.update(found)
        sent.append(target)
    return np.array(sent), kinds


def governor_explorer() -> Explorer:
    """Sliders on speed and acceleration; what is left of one wrong action."""
    wishes, fps = _wishes()
    seconds = np.arange(len(wishes)) / fps
    clean = np.ones(len(wishes), bool)
    clean[58:75] = False
    fig, (angle, rate) = figure(2, width=8.0, height=3.0)
    angle.plot(seconds, np.degrees(wishes[:, 0]), "k", lw=1, label="wished")
    (shoulder,) = angle.plot([], [], "--", color=COLOURS[1], label="sent")
    angle.legend()
    label(angle, "seconds", "shoulder, degrees")
    (turning,) = rate.plot([], [], color=COLOURS[1])
    limits = [rate.axhline(0, color="black", linestyle=":") for _ in range(2)]
    limits[0].set_label("speed limit")
    rate.set(xlim=angle.get_xlim(), ylim=(-5.5, 5.5))
    rate.legend(loc="lower right")
    label(rate, "seconds", "sent, rad/s")
    still_layout(fig)

    def draw(speed: float, acceleration: float) -> tuple[Figure, str]:
        sent, kinds = governed(speed, acceleration)
        lag = np.degrees(np.abs(sent - wishes)[clean, :5].max())
        leap = np.degrees(np.abs(np.diff(sent[:, 0])).max())
        shoulder.set_data(seconds, np.degrees(sent[:, 0]))
        turning.set_data(seconds[1:], fps * np.diff(sent[:, 0]))
        for line, limit in zip(limits, (-speed, speed), strict=True):
            line.set_ydata([limit, limit])
        return fig, (
            f"One wrong action of 46 degrees: the shoulder is sent at most {leap:.1f} "
            f"degrees a tick. Away from it, what is sent is up to {lag:.1f} degrees "
            f"behind the demonstration; {sum(kinds.values())} interventions in "
            f"{len(wishes)} ticks (n = 1 episode)."
        )

    return Explorer(
        "How low can the speed limit go before it disturbs the demonstration itself?",
        draw,
        speed=slider("speed limit, rad/s", 0.4, 5.0, 0.6, 0.1),
        acceleration=slider("acceleration limit, rad/s²", 5, 100, 60, 5),
    )


# --- faults ---------------------------------------------------------------------------


def try_fault(arm: VirtualArm, **switches: Any) -> str:
    """Connect with something wrong; the sentence that the driver refuses with."""
    from act_minimal.support.errors import UserError

    arm.scene.faults(**switches)
    robot = safe_robot(arm.port, arm.calibration, arm.cameras)
    try:
        robot.connect()
        robot.arm.ticker.start()
        for _ in range(int(1.5 * robot.fps)):  # a frozen picture shows only in time
            robot.observe(robot.cameras)
            robot.arm.ticker.wait()
        return "a second and a half of looking, and nothing is wrong"
    except UserError as error:
        return str(error).replace(arm.port, "the arm")
    finally:
        arm.scene.faults(**{name: type(value)() for name, value in switches.items()})
        with contextlib.suppress(UserError):
            robot.close()


def fault_table(phase: str) -> str:
    """The committed campaign's rows of one phase, as text."""
    table = [r for r in load_result("so100_faults")["table"] if r["phase"] == phase]
    lines = [f"{'fault':16} {'unsafe':6} what was said first"]
    for fault in dict.fromkeys(r["fault"] for r in table):
        rows = [r for r in table if r["fault"] == fault]
        said = (r["said"] or r["landing"] for r in rows)
        first = next(filter(None, said), "nothing: it did no harm")
        unsafe = f"{sum(not r['safe'] for r in rows)} of {len(rows)}"
        first = first.replace(".../arm", "the arm")
        short = first if len(first) <= 84 else first[:83] + "…"
        lines.append(f"{fault:16} {unsafe:6} {short}")
    return "\n".join(lines)


# --- the run --------------------------------------------------------------------------


def safe_robot(port: str, calibration: Path, cameras: Sequence[str]) -> Any:
    """The arm behind its limits, not yet connected."""
    from hardware.robots import RobotConfig, make_robot
    from hardware.safety.stop import EmergencyStop

    config = RobotConfig(port, calibration=calibration, cameras=tuple(cameras))
    return make_robot(config, (96, 128), EmergencyStop())


@contextlib.contextmanager
def connected(port: str, calibration: Path, cameras: Sequence[str]) -> Iterator[Any]:
    """The arm behind its limits; whatever happens, it is laid down and let go.

    Raises:
        UserError: it cannot be connected, or not be laid down.
    """
    robot = safe_robot(port, calibration, cameras)
    robot.connect()
    try:
        yield robot
    finally:
        robot.close()


def look_before(policy: Policy, robot: Any) -> dict[str, Any]:
    """A dry run: predict, send nothing; see `hardware.deployment.dry_run`."""
    from act_minimal.execution import ExecutionConfig
    from hardware.deployment import dry_run

    return dry_run(policy, robot, ExecutionConfig())


def advice(seen: dict[str, Any], robot: Any) -> str:
    """A dry run's numbers, each beside its limit, and what to do where one is over."""
    ms, tick, stale = seen["prediction_ms"], 1000 / robot.fps, 1000 * robot.limits.stale
    lines = [
        f"a prediction takes {ms['median']:.1f} ms, {ms['worst']:.1f} ms at worst; a "
        f"tick lasts {tick:.0f} ms"
    ]
    less = "close other programs and look again; if it stays, use fewer CPU threads"
    less += " (torch.set_num_threads), smaller images or a smaller network"
    if ms["worst"] > stale:
        lines.append(
            f"  TOO SLOW: what is older than {stale:.0f} ms is not acted on, so the "
            f"arm would be stopped: {less}"
        )
    elif ms["worst"] > tick:
        late = int(np.ceil(ms["worst"] / tick)) - 1
        lines.append(
            f"  SLOW: the arm may stand still for {late} tick{'s' * (late > 1)} at "
            f"each new chunk: {less}"
        )
    jump, far = seen["jump"], float(robot.limits.step[0])
    lines.append(f"the first action is at most {jump:.2f} rad from the arm")
    if jump > far:
        lines.append(
            f"  FAR: more than the {far:.1f} rad that a target may be ahead: check the "
            "calibration, and that the ready pose is that of the demonstrations"
        )
    if seen["unfamiliar"]:
        lines.append(
            f"  UNFAMILIAR: joints {seen['unfamiliar']} are far from all demonstrations"
            ": check the calibration"
        )
    for name, age in seen["frames"].items():
        # A virtual arm's own time may lag behind the pictures on a busy computer.
        lines.append(f"pictures of camera '{name}' are {max(age, 0):.0f} ms old")
        if age > OLD:
            lines.append(
                "  OLD: a smaller picture, or a USB port of its own for each camera"
            )
    good = not any(line.startswith("  ") for line in lines)
    lines.append("go on" if good else "do not let it drive yet")
    return "\n".join(lines)


def trials(
    policy: Policy, robot: Any, arm: Any, n: int = 5, seed: int = 7, **more: Any
) -> Any:
    """Let a policy drive a virtual arm in fresh scenes; returns the tally.

    If the computer was too busy for what was measured to count, that is printed.
    """
    from hardware.deployment import SceneJudge, deploy

    judge = SceneJudge([arm.port], evaluation_scenes(seed, n))
    with contextlib.closing(judge):
        tally = deploy(policy, robot, judge, trials=n, **more)
    if said := busy(tally, robot.fps):
        print(said)
    return tally


def stepped_in(robot: Any) -> str:
    """How often the limits changed what was sent, by kind, in a sentence."""
    counts = Counter(robot.interventions.counts)
    kinds = ", ".join(f"{kind} {n}" for kind, n in counts.most_common())
    total = sum(counts.values())
    return f"The limits stepped in {total} times{f': {kinds}' if kinds else ''}"


def busy(tally: Any, fps: float) -> str:
    """Whether ticks or predictions came late, in words; "" if not."""
    off = max((t.timing.get("jitter_ms_p99", 0.0) for t in tally.trials), default=0.0)
    worst = max((ms for t in tally.trials for ms in t.prediction_ms[1:]), default=0.0)
    if off <= LATE and worst <= 1000 / fps:
        return ""
    return (
        f"this computer is busy: ticks were off by up to {off:.0f} ms (99 %), and one "
        f"prediction took {worst:.0f} ms of a tick's {1000 / fps:.0f}; close other "
        "programs and run this cell again before you trust the result"
    )


def timing_figure(tally: Any) -> Figure:
    """How long a prediction took, and how far ticks were off, trial by trial."""
    fig, axes = figure(2, width=8.0, height=2.8)
    number = [t.number + 1 for t in tally.trials]
    # A trial that was stopped at once has no times.
    median, worst = zip(*(t.prediction_ms or (0, 0) for t in tally.trials), strict=True)
    axes[0].bar(number, median, color=COLOURS[0], label="median")
    axes[0].plot(number, worst, "kv", label="worst")
    axes[0].set_ylim(0, 1.35 * max(1.0, *worst))  # the legend stands over the markers
    axes[0].legend(loc="upper center", ncols=2)
    label(axes[0], "trial", "a prediction took, ms")
    jitter = [t.timing.get("jitter_ms_p99", 0.0) for t in tally.trials]
    axes[1].bar(number, jitter, color=COLOURS[1])
    label(axes[1], "trial", "99 % of ticks within, ms")
    return fig
