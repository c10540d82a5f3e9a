"""Lesson 09: two virtual OpenArms on CAN: frames, springs, and what a power cut does.

`hardware` is only imported inside functions: the other lessons work without it.
"""

import contextlib
import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any, Literal

import numpy as np
from matplotlib.figure import Figure

from act_minimal.sim import make_task
from act_minimal.sim.openarm.table import TABLE
from act_minimal.support.errors import UserError

from ..toolkit.plots import COLOURS, figure, label, style
from ..toolkit.widgets import Explorer, choice, slider
from . import lesson_08

TASK = "openarm_handover"
# Both upper arms a little forwards and out, forearms level: a pose that costs torque.
RAISED = np.zeros(16)
RAISED[[0, 1, 3, 7]] = 0.8, 0.2, 1.4, 0.3
RAISED[[8, 9, 11, 15]] = -0.8, -0.2, 1.4, 0.3
WATCH = 2.6  # s of looking on while arms fall or sink, at least
REST = 0.3  # s, at least, after they were let go: on a busy computer that is later
GRIPPERS = (7, 15)
G = 9.81  # m/s²
STIFFER, MOST = 25.0, 300  # N·m/rad more than the springs, for short steps; steps


@dataclass(frozen=True)
class VirtualArms:
    """Two virtual arms that are plugged in until the notebook ends.

    Attributes:
        right: the right arm's bus, as python-can and the driver name it.
        left: the left arm's.
        port: the scene's name.
        scene: who is in the scene with them, and may lay bars and cut the power.
        unplug: ends them before the notebook does.
        running: whether their process is still there.
    """

    right: str
    left: str
    port: str
    scene: Any
    unplug: Callable[[], None]
    running: Callable[[], bool]

    def __repr__(self) -> str:
        return "two virtual OpenArms: 16 motors on two CAN-FD buses"


@lesson_08.once
def plug_in() -> VirtualArms:
    """Two virtual arms in a process of their own, which ends with the notebook."""
    from hardware.openarm.emulator.service import virtual_openarm

    config, *process = lesson_08.start_process(
        lambda port: replace(virtual_openarm(port, TASK), newer=True)
    )
    return VirtualArms(config.right, config.left, str(config.port), *process)


# --- frames ---------------------------------------------------------------------------


def health(arms: VirtualArms) -> None:
    """Print a line a motor of the right arm: what it says of itself, and a table."""
    from hardware.openarm.bus import Bus
    from hardware.openarm.motors import ARM_MOTORS
    from hardware.openarm.setup import look

    tables = {motor.id: motor.type.scale.velocity for motor in ARM_MOTORS}

    bus = Bus(arms.right, side="right")
    bus.open()
    with contextlib.closing(bus):
        for one in look(bus):
            print(f"{one} (most tables: {tables[one.id]:g})")


def exchange(arms: VirtualArms, id: int, data: bytes) -> tuple[int, bytes]:
    """Send one frame on the right bus; id and bytes of the answer, (0, b"") if none."""
    import can

    from hardware.clock import clock_of
    from hardware.openarm.bus import parse_channel

    with can.Bus(**parse_channel(arms.right, True)) as line:
        line.send(
            can.Message(arbitration_id=id, data=data, is_fd=True, is_extended_id=False)
        )
        clock = clock_of(arms.right)
        end = clock.now() + 0.2
        while (left := end - clock.now()) > 0:
            found = line.recv(left)
            if found is not None and found.arbitration_id != id:  # not our own echo
                return found.arbitration_id, bytes(found.data)
    return 0, b""


# --- an arm on springs ----------------------------------------------------------------


@cache
def _weight() -> Callable[[np.ndarray], np.ndarray]:
    from hardware.openarm.kinematics import ARMS
    from hardware.openarm.model import gravity_of

    return gravity_of(make_task(TASK).model(), ARMS["v2"])


def _hands(state: np.ndarray) -> np.ndarray:
    """(..., 16) -> (..., 2, 3) m: the right and the left fingertips."""
    from hardware.openarm.kinematics import ARMS

    watched = ARMS["v2"].watched_of(state)  # elbow, wrist, two fingertips; twice
    return np.stack([watched[..., 2:4, :].mean(-2), watched[..., 6:8, :].mean(-2)], -2)


def pull_of(load: float, state: np.ndarray) -> np.ndarray:
    """(16,) N·m that hold a load, kg, in each hand: its height's slope, times m g."""
    step = 1e-4  # rad
    there = _hands(state + step * np.eye(16))[..., 2].sum(-1)  # (16,)
    back = _hands(state - step * np.eye(16))[..., 2].sum(-1)
    torque = G * load * (there - back) / (2 * step)
    torque[list(GRIPPERS)] = 0.0
    return torque


def rest_of(
    kp: np.ndarray, goal: np.ndarray, *, gravity: bool, load: float = 0.0
) -> np.ndarray:
    """Where arms on springs come to rest, (16,), without friction.

    There the springs' pull carries what the driver does not:
    kp (goal - q) = weight(q) + pull of the load - what the driver gives.

    With `gravity` the driver gives the arms' own weight; it knows nothing of the load,
    kg in each hand.
    """
    weight, state = _weight(), goal.astype(float)
    stiff = kp + STIFFER
    for _ in range(MOST):
        missing = pull_of(load, state) if load else np.zeros(16)
        if not gravity:
            missing = missing + weight(state)
        step = np.clip((kp * (goal - state) - missing) / stiff, -0.1, 0.1)
        step[list(GRIPPERS)] = 0.0
        state = state + step
        if np.abs(step).max() < 1e-4:
            break
    return state


def sag_explorer() -> Explorer:
    """Sliders on stiffness and load; how far arms sag."""
    from hardware.openarm.kinematics import ARMS
    from hardware.openarm.motors import gains_of

    firm = np.tile(gains_of("firm").kp, 2).astype(float)
    kinematics, shoulder = ARMS["v2"], ARMS["v2"].origin[2]

    def side_view(state: np.ndarray) -> np.ndarray:
        points = kinematics.points_of(state[:7], 0)  # (8, 3)
        hand = _hands(state)[0]
        return np.vstack([points[[0, 3, 6]], hand])[:, [0, 2]] * 100  # cm

    def draw(share: float, load: float, gravity: str) -> tuple[Figure, str]:
        there = rest_of(share * firm, RAISED, gravity=gravity == "on", load=load)
        drop = 100 * (_hands(RAISED) - _hands(there))[0, 2]
        fig, axes = figure(width=5.0, height=3.0)
        axes.plot(*side_view(RAISED).T, "o:", color="black", label="goal")
        axes.plot(*side_view(there).T, "o-", color=COLOURS[1], label="at rest")
        axes.axhline(100 * TABLE, color="grey", lw=3)
        axes.set(xlim=(-15, 75), ylim=(35, 100 * shoulder + 15), aspect="equal")
        axes.legend(loc="upper right")
        label(axes, "forwards, cm", "height, cm (grey: table)")
        return fig, (
            f"Springs of {100 * share:.0f} % of the firm gains, gravity compensation "
            f"{gravity}, {load:.1f} kg in the hand: it hangs {drop:.1f} cm below its "
            "goal (model, without friction, n = 1 pose)."
        )

    return Explorer(
        "How stiff must the springs be so that the hand sags by less than 2 cm: with "
        "nothing in it, and with half a kilogram?",
        draw,
        share=slider("stiffness, share of firm", 0.05, 1.0, 0.3, 0.05),
        load=slider("load in the hand, kg", 0.0, 1.0, 0.0, 0.1),
        gravity=choice("gravity compensation", ["off", "on"], "off"),
    )


# --- held, and let go -----------------------------------------------------------------


@dataclass(frozen=True)
class Descent:
    """What a raised wrist did after something happened.

    Attributes:
        how: what happened.
        seconds: (T,) since then.
        height: (T,) of the lower of both wrists, m over the ground.
        speed: of the fastest joint meanwhile, rad/s.
    """

    how: str
    seconds: np.ndarray
    height: np.ndarray
    speed: float

    @property
    def lost(self) -> float:
        """How far it came down, m."""
        return float(self.height[0] - self.height.min())


@contextlib.contextmanager
def held(
    arms: VirtualArms,
    *,
    gains: Literal["firm", "gentle"] = "firm",
    gravity: bool = True,
    timeout: float = 0.0,
) -> Iterator[Any]:
    """The driver of both arms, while they hold `RAISED`; torque is off afterwards.

    Only with virtual arms: real ones are not raised like this. With `gravity` the
    driver carries the arms' weight. After `timeout` s without commands motors let go; 0
    is never.
    """
    from hardware.openarm.arm import OpenArm, OpenArmConfig
    from hardware.openarm.motors import IDS

    config = OpenArmConfig(arms.right, arms.left, gains=gains, timeout=timeout)
    arm = OpenArm(config, gravity=_weight() if gravity else None)
    arms.scene.ask(power=True, put=RAISED.tolist())
    arm.connect()
    try:
        hold(arm, 1.0)
        yield arm
    finally:
        arms.scene.ask(power=True)
        with contextlib.suppress(UserError):
            for bus in arm.buses if timeout else ():  # motors keep what they are told
                for id in IDS:
                    bus.write(id, "TIMEOUT", 0)
        with contextlib.suppress(UserError):
            arm.close()


def measured_sag(
    arms: VirtualArms, gains: Literal["firm", "gentle"], gravity: bool
) -> float:
    """How far, m, the right hand of the virtual arms hangs below its goal."""
    with held(arms, gains=gains, gravity=gravity) as arm:
        state = hold(arm, 0.5)
    return float((_hands(RAISED) - _hands(state))[0, 2])


def hold(arm: Any, seconds: float) -> np.ndarray:
    """Ask for `RAISED` for so long; the last state (16,) that was measured."""
    state = RAISED
    for _ in range(round(seconds * arm.fps)):
        state = arm.observe()["qpos"][0]
        arm.act(RAISED[None])
    return state


HOW = {
    "power cut": "the power is cut",
    "program killed": "the program is killed",
    "timeout": "the program is killed, TIMEOUT 0.3 s",
    "soften": "the driver lets them sink",
}


def let_go(arms: VirtualArms, how: str) -> Descent:
    """Raise the arms, let something happen (of `HOW`), and look on from beside them.

    Only with virtual arms: never try this on real ones.
    """
    from hardware.virtual.client import SceneClient

    rows: list[tuple[float, float]] = []
    end = math.inf

    def note(seen: dict[str, Any]) -> None:
        height = _hands(np.array(seen["joints"]))[:, 2].min()
        rows.append((seen["time"] - begun, height))

    def watch() -> None:
        with SceneClient(arms.port) as scene:  # a second client: `soften` keeps us busy
            while rows[-1][0] < end:
                note(scene.look())
                time.sleep(0.01)

    with held(arms, timeout=0.3 if how == "timeout" else 0.0) as arm:
        cut = {"power": False} if how == "power cut" else {}
        seen = arms.scene.ask(forget=True, **cut)
        begun = seen["time"]
        note(seen)
        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            if how == "soften":
                arm.soften()
        finally:  # whatever happened, the watcher ends
            end = max(WATCH, rows[-1][0] + REST)
            watcher.join()
        speeds = np.array(arms.scene.look()["witness"]["speed"])
        speed = float(np.delete(speeds, GRIPPERS).max())
    seconds, height = np.array(rows).T
    return Descent(how, seconds, height, speed)


def descents_figure(descents: Sequence[Descent]) -> Figure:
    """Height of a hand over time, one line a descent."""
    fig, axes = figure(width=8.0, height=3.0)
    for i, one in enumerate(descents):
        axes.plot(one.seconds, 100 * one.height, **style(i), label=HOW[one.how])
    axes.axhline(100 * TABLE, color="grey", lw=3, label="table")
    axes.set_ylim(35, 115)
    axes.legend(loc="upper center", ncols=2)
    label(axes, "seconds since then", "lower hand, cm")
    return fig


# --- the run --------------------------------------------------------------------------


@contextlib.contextmanager
def connected(arms: VirtualArms) -> Iterator[Any]:
    """Both arms behind their limits; whatever happens, they are laid down and let go.

    Raises:
        UserError: they cannot be connected, or not be laid down.
    """
    from hardware.robots import RobotConfig, make_robot
    from hardware.safety.stop import EmergencyStop

    here = f"virtual:{arms.port}"
    config = RobotConfig(arms.port, "openarm", objects=here)
    robot = make_robot(config, (96, 128), EmergencyStop())
    robot.connect()
    try:
        yield robot
    finally:
        robot.close()


stepped_in = lesson_08.stepped_in
trials = partial(lesson_08.trials, n=3, seed=9, seconds=18)
