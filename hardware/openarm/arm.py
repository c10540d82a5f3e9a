"""The OpenArm, both arms of it, behind the Robot contract of `control.py`.

A motor in MIT mode is a spring with a damper: without `gravity`, which carries the
arm's weight, it hangs lower than it is told. Nothing brakes a motor without torque: an
arm that is let go falls, so it is laid down first, or sinks (`soften`).
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np

from act_minimal.datasets.embodiment import joint_names
from act_minimal.support.errors import SettingError, UserError
from act_minimal.support.validation import Bounds, NotNegative, check_settings

from ..cameras import Camera
from ..clock import Clock, Ticker
from ..driver import ArmDriver, Health
from ..errors import BusError
from .bus import Bus
from .kinematics import ARMS
from .motors import (
    ARM_MOTORS,
    BRAKE,
    GRIPPERS,
    IDS,
    NAMES,
    PEAK,
    SIDES,
    MotorType,
    gains_of,
)
from .protocol import Command, Mit, Mode, Status
from .registers import TIMEOUT_UNIT

Gravity = Callable[[np.ndarray], np.ndarray]
"""State (16,), rad and openings -> torques (16,) that hold the arms, N·m."""

ANSWER = 0.012  # s for the answers of all motors within a tick; two arms take 0.003
# s, and frames in a row, without an answer after which a motor counts as silent. The
# frames are for a computer that was held up: its own pause is no fault of the motors.
LOST, IGNORED = 0.15, 6
FROZEN, MOVED = 0.3, 0.05  # s of the same answer, rad that its goal moved meanwhile
OUTSIDE = 0.15  # rad beyond the range: more is a motor without its zero
RISE = 0.5  # s in which stiffness comes up at the start
CALM = 0.2  # rad/s: an arm that has sunk
FADE = 2.0  # s in which stiffness fades before an arm is let go
SINK = 3.0  # s that a sinking arm may take on top of that
RATE = 100  # goals a second while stiffness comes and goes


@dataclass
class OpenArmConfig:
    """Which arms, and how they are driven."""

    right: str = "can0"
    """The right arm's bus: can0, slcan:..., udp_multicast:..., or virtual:..."""
    left: str = "can1"
    """The left arm's bus."""
    fd: bool = True
    """Speak CAN-FD; if not, classic CAN. The motors have to be set to the same."""
    version: Literal["v2", "v1"] = "v2"
    """v2 or v1: the same motors and frames, other wrists and grippers."""
    gains: Literal["firm", "gentle"] = "firm"
    """firm, as in demonstrations; gentle, for first movements."""
    timeout: NotNegative = 0.0
    """Seconds without a command after which the motors let go by themselves; 0 leaves
    them as they are set. An arm that is let go falls: 0 keeps it where it was told."""
    fps: Annotated[float, Bounds(1, 500)] = 50.0
    """Control ticks a second, Hz."""

    def __post_init__(self) -> None:
        check_settings(self)


class OpenArm(ArmDriver):
    """The driver of two arms; see `ArmDriver`.

    Args:
        config: which arms.
        cameras: by name.
        gravity: what carries the arms' weight; see `model.gravity_of`.

    Raises:
        BusError: from every method, naming motor and bus.
    """

    action_dim = len(NAMES)
    name = "openarm"
    joints = tuple(joint_names(name, action_dim))

    def __init__(
        self,
        config: OpenArmConfig,
        cameras: dict[str, Camera] | None = None,
        gravity: Gravity | None = None,
    ):
        if config.right == config.left:
            raise SettingError(
                f"right and left are both on '{config.right}'; the arms' motors have "
                "the same ids, so each arm needs a bus of its own"
            )
        super().__init__(config.fps, cameras)
        self.config = config
        self.kinematics, self.gravity = ARMS[config.version], gravity
        gains = gains_of(config.gains)
        self.kp, self.kd = np.tile(gains.kp, 2), np.tile(gains.kd, 2)
        channels = (config.right, config.left)
        self.buses = tuple(
            Bus(channel, fd=config.fd, side=side)
            for channel, side in zip(channels, SIDES, strict=True)
        )
        self.ramp = lambda seconds: ramp(seconds, self.clock)
        self._peak = np.tile(PEAK, 2)  # N·m, of the motors that are there
        self._angles = np.zeros(len(NAMES))  # rad, as measured last
        self._goals: np.ndarray | None = None  # rad, as sent last
        # Where each motor's goal was when its answers last changed, and since when it
        # has been away from there.
        self._goal_then = np.full(len(NAMES), np.nan)
        self._away_since = np.full(len(NAMES), np.inf)

    def attach(self) -> None:
        """Open the buses and check every motor, as `connect`; none gets torque."""
        try:
            self._attach()
        except BaseException as error:
            self.abandon(error)
            raise

    def _attach(self) -> None:
        for bus in self.buses:
            bus.open()
        types = [prepare(bus, self.config.timeout) for bus in self.buses]
        self._peak = np.array([type.peak for side in types for type in side])
        self.check_zero()

    def start(self) -> None:
        self._attach()
        # A camera may take seconds to start: before the motors wait for commands.
        for camera in self.sources.values():
            camera.open()
        self.enable()

    def measure(self) -> tuple[np.ndarray, np.ndarray, Health]:
        """State (16,) rad and opening, velocity (16,), and health, in one exchange.

        A motor whose answer was lost once is given as it was; `health.age` says so.

        Raises:
            BusError: a motor has been silent for too long, or answers the same for ever
                though its goal moves.
        """
        silent = self._ask()
        if any(silent):
            silent = self._ask()
        while self._is_old(silent):
            self._expect_heard(silent)
            silent = self._ask()
        state, velocity, health = self._read()
        self._expect_alive()
        return state, velocity, health

    def send(self, state: np.ndarray) -> None:
        """Joint targets (16,), rad and opening, to the motors."""
        goals = self.kinematics.angles_of(state)
        if not np.isfinite(goals).all():
            joint = NAMES[int(np.flatnonzero(~np.isfinite(goals))[0])]
            raise BusError(f"the target of {joint} is no number; nothing was sent")
        self._expect_heard(self._push(goals, self.kp, self.kd, 1.0))
        self._goals = goals

    def check_zero(self) -> None:
        """Whether every joint is where it can be; UserError names one that is not.

        It has no zero set. Torque must stay off then: gravity compensation would push
        the arms, because it is computed from wrong angles.
        """
        state, _, _ = self._read()
        low, high = self.kinematics.ranges.T
        beyond = np.maximum(low - state, state - high)
        beyond[list(GRIPPERS)] /= 2  # an opening is about two radians of its motor
        worst = int(np.argmax(beyond))
        if beyond[worst] > OUTSIDE:
            raise UserError(
                f"{NAMES[worst]} says that it is at {state[worst]:.2f}, outside its "
                f"range from {low[worst]:.2f} to {high[worst]:.2f}: its zero is not "
                "set; see 'Zero' in hardware/openarm/GUIDE.md"
            )

    def enable(self) -> None:
        """Torque on, without a jump.

        A motor that is enabled gives no torque until its first goal; that one has no
        stiffness, so it does not matter where it is. Stiffness then comes up at the
        measured pose, within half a second.

        Raises:
            BusError: a motor stays disabled; all are disabled then.
        """
        self._ask()
        self._read()
        measured = self._angles.copy()
        self.torque = True
        for bus in self.buses:
            bus.command(IDS, Command.ENABLE)
        self._expect_heard(self._push(measured, 0 * self.kp, self.kd, 1.0))
        for bus in self.buses:
            for id, feedback in bus.refresh().items():
                if feedback.status is not Status.ENABLED:
                    raise BusError(
                        f"{bus.who(id)} stays without torque: it reports "
                        f"{feedback.status.words()}"
                    )
        for share in self.ramp(RISE):
            self._expect_heard(self._push(measured, share * self.kp, self.kd, 1.0))
        self._goals = measured

    def soften(self) -> None:
        """Let stiffness fade, keep the brake, then let go: raised arms sink.

        Motors that no longer answer are left to themselves; the others sink all the
        same.
        """
        goals = self._angles if self._goals is None else self._goals
        kd = np.maximum(self.kd, np.tile(BRAKE, 2))
        with contextlib.suppress(BusError):
            for share in self.ramp(FADE):
                left = 1.0 - share
                self._push(goals, left * self.kp, kd, left)
                self._read()
            for _ in self.ramp(SINK):
                self._push(goals, 0 * self.kp, kd, 0.0)
                _, velocity, health = self._read()
                if np.abs(velocity[health.age < LOST]).max(initial=0.0) < CALM:
                    break
        self.disable()

    def disable(self) -> None:
        unconfirmed: list[str] = []
        for bus in self.buses:
            left = tuple(IDS)
            for _ in range(2):  # each asks three times those that are silent
                if not left:
                    break
                try:
                    answers = bus.command(left, Command.DISABLE)
                    left = tuple(
                        id for id, f in answers.items() if f.status is Status.ENABLED
                    )
                except BusError as error:
                    left = error.silent or left
            unconfirmed += [bus.who(id) for id in left]
        self.torque = bool(unconfirmed)
        if unconfirmed:
            raise BusError(
                f"{', '.join(unconfirmed)} did not confirm that the torque is off; "
                "support the arms and press the emergency stop"
            )

    # ------------------------------------------------------------ a tick's exchange

    def _gather(self) -> list[list[int]]:
        """The ids that were silent, of each bus; both answer at the same time."""
        deadline = self.clock.now() + ANSWER
        return [bus.gather(IDS, deadline - self.clock.now()) for bus in self.buses]

    def _ask(self) -> list[list[int]]:
        for bus in self.buses:
            bus.ask_feedback()
        return self._gather()

    def _push(
        self, goals: np.ndarray, kp: np.ndarray, kd: np.ndarray, weight: float
    ) -> list[list[int]]:
        """Send goals (16,) rad, with a share of what carries the arms' weight."""
        torque = np.zeros(len(NAMES))
        if self.gravity is not None and weight > 0:
            torque = weight * self.gravity(self.kinematics.state_of(self._angles))
        rows = np.stack([goals, kp, kd, torque], axis=1).tolist()
        mits = [Mit(goal, 0.0, p, d, t) for goal, p, d, t in rows]
        for bus, its in zip(self.buses, (mits[:8], mits[8:]), strict=True):
            bus.send(dict(zip(IDS, its, strict=True)))
        return self._gather()

    def _read(self) -> tuple[np.ndarray, np.ndarray, Health]:
        rows = [bus.latest[id] for bus in self.buses for id in IDS]
        self._angles = np.array([f.position for f in rows])
        velocity = np.array([f.velocity for f in rows])
        torque = np.array([f.torque for f in rows])
        heat = [max(f.driver_temperature, f.rotor_temperature) for f in rows]
        working = Status.ENABLED if self.torque else Status.DISABLED
        health = Health(
            temperature=np.array(heat, float),
            load=torque / self._peak,
            torque=torque,
            age=np.array([bus.age(id) for bus in self.buses for id in IDS]),
            faults={
                name: f.status
                for name, f in zip(NAMES, rows, strict=True)
                if f.status is not working
            },
        )
        state = self.kinematics.state_of(self._angles)
        return state, self.kinematics.state_of(velocity), health

    def _is_old(self, silent: list[list[int]]) -> bool:
        pairs = zip(self.buses, silent, strict=True)
        return any(bus.age(id) > LOST for bus, ids in pairs for id in ids)

    def _expect_heard(self, silent: list[list[int]]) -> None:
        for bus, ids in zip(self.buses, silent, strict=True):
            if lost := [id for id in ids if bus.has_lost(id, LOST, IGNORED)]:
                raise BusError(bus.silence(lost, list(IDS)), lost)

    def _expect_alive(self) -> None:
        """A motor that says the same for ever while its goal moves is not measured."""
        goals = self._goals
        if goals is None or not self.torque:
            return
        now = self.clock.now()
        motors = [(bus, id) for bus in self.buses for id in IDS]
        for i, (bus, id) in enumerate(motors):
            if bus.unchanged(id) < 1.5 / self.fps or np.isnan(self._goal_then[i]):
                self._goal_then[i], self._away_since[i] = goals[i], np.inf
                continue
            moved = abs(goals[i] - self._goal_then[i])
            if moved > MOVED:
                self._away_since[i] = min(self._away_since[i], now)
            if now - self._away_since[i] > FROZEN:
                raise BusError(
                    f"{bus.who(id)} has answered the same for {bus.unchanged(id):.1f} "
                    f"s though its goal moved by {moved:.2f} rad: its feedback is stale"
                )


def ramp(seconds: float, clock: Clock) -> Iterator[float]:
    """Shares of a time from 0 to 1, each when its moment has come."""
    ticker = Ticker(RATE, clock=clock)
    ticker.start()
    steps = max(round(seconds * RATE), 1)
    for step in range(steps):
        yield (step + 1) / steps
        ticker.wait()


def prepare(bus: Bus, timeout: float = 0.0) -> list[MotorType]:
    """Check an arm's motors and set them up for MIT mode; nothing moves.

    A motor that let go because the last program's commands stopped is put right; every
    other error is a person's to look at.

    Args:
        bus: the arm's, open.
        timeout: seconds without commands after which motors let go; 0 leaves it.

    Returns:
        What each motor is, as it says itself.

    Raises:
        UserError: names the motor, and what is wrong with it.
    """
    bus.refresh()  # is everybody there?
    types = []
    for motor in ARM_MOTORS:
        scale = bus.learn_scales([motor.id])[motor.id]
        type = motor.type_of(scale)
        if type is None:
            raise UserError(
                f"{bus.who(motor.id)} says that its TMAX is {scale.torque:g} N·m, "
                f"expected {motor.expected()}: it is a motor of another type, or was "
                "set differently"
            )
        types.append(type)
    bus.refresh()  # once more, in the right scales
    for id in IDS:
        if bus.latest[id].status is Status.LOST_COMMUNICATION:
            bus.command([id], Command.CLEAR_ERROR)
        status = bus.latest[id].status
        if status.is_error:
            raise UserError(complaint(bus, id, status))
        bus.set_mode(id, Mode.MIT)
        if timeout:
            bus.write(id, "TIMEOUT", round(timeout / TIMEOUT_UNIT))
    return types


_ADVICE = {
    Status.OVER_VOLTAGE: "check the 24 V supply; braking arms feed energy back",
    Status.UNDER_VOLTAGE: "check the supply, 24 V and strong enough, and its plugs",
    Status.OVER_CURRENT: "look whether it is blocked, then switch the power off and on",
    Status.DRIVER_TOO_HOT: "let it cool down",
    Status.ROTOR_TOO_HOT: "let it cool down",
    Status.LOST_COMMUNICATION: "its commands stop coming: check the cable",
    Status.OVERLOAD: "look what is in its way, then switch the power off and on",
}


def complaint(bus: Bus, id: int, status: Status) -> str:
    """The sentence for a motor that has shut itself off, and what to do."""
    volts = ""
    if status in (Status.OVER_VOLTAGE, Status.UNDER_VOLTAGE):
        with contextlib.suppress(BusError):  # older firmware does not tell
            volts = f" at {bus.read(id, 'VBus'):.1f} V"
    advice = _ADVICE.get(status, "switch its power off and on")
    return f"{bus.who(id)} reports {status.words()}{volts}; {advice}"
