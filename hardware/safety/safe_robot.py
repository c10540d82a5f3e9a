"""Between policy and arm, for every robot: nothing moves an arm past these limits.

    policy -> Governor (joint, speed, acceleration, step, workspace, grip) -> arm
    observation -> watch (stale, late, hot, strained, faulty) -> stop

What it changes is an *intervention*: counted by kind, and written to a log. What it
cannot put right is a *stop*: the arm goes to its rest pose slowly, and lets go. If the
program hangs or dies, a SO-100's servos keep their last goal: it holds.
"""

import contextlib
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from act_minimal.control import Observation, Robot
from act_minimal.support.errors import SettingError, UserError

from ..cameras import Camera, Frame
from ..clock import Ticker, ask_patiently
from ..objects import Tracker, Trackers
from .governor import Governor, Limits
from .stop import EmergencyStop, Interventions, Stop

RISE = 3.0  # s that an arm may take to rise from a table before it goes to rest
CATCH_UP = 3.0  # s that a ramp may last longer than planned
# °C above the limit at which an arm is still laid down: stopped for its heat, it has to
# come to its rest pose all the same, or it sinks. Motors give up at higher ones.
WARM = 8.0
ARRIVED = 0.002  # rad, or openings: a target this near has
STANDS = 0.02  # rad: a joint that moves less while it pulls, stands


def so100_limits(model: str = "so100") -> Limits:
    """Limits for a SO-100 or SO-101 on a table.

    How far a lagging arm stays from things, and how hard it may press, was found for
    each with random wishes: `benchmarks.arms.guard_bodies`.

    Raises:
        SettingError: unknown model.
    """
    from ..so100.bodies import guard_of
    from ..so100.kinematics import ARMS

    if model not in ARMS:
        raise SettingError(f"model is '{model}', expected one of: {', '.join(ARMS)}")
    arm = ARMS[model]
    low, high = arm.ranges.T.copy()
    margin = np.radians(1.0)
    low, high = low + margin, high - margin
    low[5], high[5] = 0.0, 1.0
    if model == "so100":
        ready = np.array([0.0, -2.3, 2.1, 1.2, -1.57, 0.32])
        rest = np.array([0.0, -3.05, 3.04, 0.89, 0.0, 0.05])
        box = np.array([(-0.45, 0.45), (-0.50, 0.25), (0.002, 0.55)])
        press = 0.025  # of which 0.02 may be its own weight
    else:  # the same poses in the other model's zero, and its table in front is +x
        ready = np.array([0.0, -0.73, 0.53, 1.2, -1.52, 0.32])
        rest = np.array([0.0, -1.58, 1.23, 1.07, 0.05, 0.05])
        box = np.array([(-0.21, 0.54), (-0.45, 0.45), (0.002, 0.55)])
        press = 0.02
    return Limits(
        low=low,
        high=high,
        speed=np.array([3.0] * 5 + [4.0]),
        acceleration=np.array([60.0] * 5 + [80.0]),
        closing=5.0 if model == "so100" else 4.0,
        bow=0.4 if model == "so100" else 1.6,
        step=np.array([0.5] * 5 + [1.0]),
        press=np.array([press] * 5 + [1.0]),
        box_low=box[:, 0],
        box_high=box[:, 1],
        guard=guard_of(model),
        ready=ready,
        rest=rest,
    )


class Arm(Robot, Protocol):
    """A robot that can be made safe: it also says when and how it was measured."""

    ticker: Ticker
    observed_at: float
    """s, by the ticker's clock: when the last observation was taken."""
    health: Any
    """Of the last observation: `load`, `temperature` (A,), `faults` by joint."""
    sources: dict[str, Camera]
    frames: dict[str, Frame]
    """The last picture of each camera."""

    def measure(self) -> tuple[np.ndarray, np.ndarray, Any]:
        """State (A,), velocity (A,); health: `load`, `temperature`, `faults`."""
        ...

    def send(self, state: np.ndarray) -> None:
        """Joint targets (A,), at once."""
        ...

    def soften(self) -> None:
        """Let the torque fade, then off."""
        ...


@dataclass
class SafeRobot:
    """A robot within limits; itself a Robot.

    Args:
        arm: what it drives.
        limits: what the arm may do.
        log: file for interventions.
        stop: flag of an emergency stop.
        tracker: says where the objects are; observations then have an `env_state`.
    """

    arm: Arm
    limits: Limits
    log: Path | None = None
    stop: EmergencyStop = field(default_factory=EmergencyStop)
    tracker: Tracker | Trackers | None = None

    def __post_init__(self) -> None:
        self.n, self.fps = self.arm.n, self.arm.fps
        self.action_dim, self.cameras = self.arm.action_dim, self.arm.cameras
        # As cards call them; "" and () of an arm that does not say.
        self.name: str = getattr(self.arm, "name", "")
        self.joints: tuple[str, ...] = tuple(getattr(self.arm, "joints", ()))
        self.interventions = Interventions(self.log)
        self.governor = Governor(self.limits, 1 / self.fps)
        self.measured: np.ndarray | None = None  # state (A,), last
        self._sent: np.ndarray | None = None  # since it was connected
        self._strained = np.zeros(self.action_dim)
        self._stalled = np.zeros(self.action_dim)
        self._stood = np.full(self.action_dim, np.inf)  # where each began to stand
        self._connected = False
        self._held = 0.0  # s that a busy computer was forgiven before this tick
        self._complaints: list[str] = []

    def connect(self) -> None:
        """Connect; nothing moves yet.

        Raises:
            Stop: a servo is unwell, or the arm is measured outside its range.
            UserError: the log cannot be opened, or the arm not be connected.
        """
        self.interventions.open()
        try:
            self.arm.connect()
        except BaseException:
            self.interventions.close()
            raise
        try:
            if self.tracker:
                self.tracker.open()
            state, _, health = self.arm.measure()
            self._look_after(health)
            self.governor.reset(state)
        except BaseException as error:
            if fault := self._release():  # it has not moved yet: it lies where it lay
                raise Stop(f"{_words(error)}; then: {_words(fault)}") from error
            raise
        self.measured, self._sent = state, None
        self._connected = True

    @property
    def complaints(self) -> list[str]:
        """What failed beside the arm and was passed over: log, cameras, tracker."""
        said = [self.interventions.complaint, *self._complaints]
        return [x for x in [*said, *getattr(self.arm, "complaints", ())] if x]

    def go(self, pose: np.ndarray, phase: str = "ramp") -> None:
        """Slowly to a pose (A,), by minimum-jerk ramps from the measured one.

        Where the table is in the way some joints go first, or the arm rises until they
        can. A "ramp", as the log calls the phase, is ended by `EmergencyStop.watch`.

        Raises:
            Stop: the emergency stop, a strain, or the pose is outside the limits.
        """
        limits = self.limits
        pose = np.asarray(pose, float)
        inside = (pose >= limits.low - 1e-6) & (pose <= limits.high + 1e-6)
        if not inside.all():
            raise Stop("the pose to go to is outside the joint limits")
        state, _, _ = self._ask(self.arm.measure)
        self.governor.reset(state)
        self.arm.ticker.start()
        for stop in self._rise(pose, phase):
            self.arm.ticker.start()  # to look for the way took its time
            self._ramp(stop, phase)

    def _rise(self, pose: np.ndarray, phase: str) -> list[np.ndarray]:
        """Raise the arm until there is a way to the pose; returns that way."""
        governor = self.governor
        for tick in range(math.ceil(RISE * self.fps)):
            assert governor.target is not None
            if tick % 10 == 0 and (way := governor.way(governor.target, pose)):
                return way
            up = self.limits.slow / self.fps * governor.upward(governor.target)
            self._creep(governor.target + up, phase)
        return [pose]  # the governor keeps it in the box on this one, too

    def _ramp(self, pose: np.ndarray, phase: str) -> None:
        limits = self.limits
        assert self.governor.target is not None
        start = self.governor.target
        # A minimum-jerk ramp is 1.875 times as fast in its middle as on the whole.
        seconds = max(1.875 * float(np.abs(pose - start).max()) / limits.slow, 0.3)
        ticks = math.ceil(seconds * self.fps)
        # What the limits held back on the way is caught up with at its end.
        for tick in range(1, ticks + math.ceil(CATCH_UP * self.fps)):
            time = min(tick / ticks, 1.0)
            share = time**3 * (10 - 15 * time + 6 * time * time)
            target = self._creep(start + share * (pose - start), phase)
            if tick >= ticks and np.abs(target - pose).max() < ARRIVED:
                return
        raise Stop("the limits, or something in its way, keep the arm from its pose")

    def hold(self) -> None:
        """One tick of staying, while somebody is asked: the arm is looked after.

        Raises:
            Stop: the emergency stop, or a servo is too hot, strained or faulty.
            UserError: the bus is lost.
        """
        if self._sent is not None:
            self._creep(self._sent, "hold")
            return
        # Nothing was sent yet, so its servos hold it where they found it.
        self.measured, _, health = self._ask(self.arm.measure)
        self._look_after(health)
        self.arm.ticker.wait()

    def _ask(self, ask: Callable[[], Any]) -> Any:
        return ask_patiently(ask, self.arm.ticker.clock, self.stop.check)

    def _creep(self, wish: np.ndarray, phase: str) -> np.ndarray:
        """One slow tick; returns what was sent. A silent bus is waited for."""
        if phase == "ramp":
            self.stop.watch()
        state, _, health = self._ask(self.arm.measure)
        self.measured = state
        self._look_after(health, WARM if phase == "landing" else 0.0)
        # What the limits held back on the way is caught up with slowly, too.
        last, most = self.governor.target, self.limits.slow / self.fps
        assert last is not None
        wish = last + np.clip(wish - last, -most, most)
        target, kinds = self.governor.allow(wish, state, health.load)
        for kind in kinds:
            self.interventions.note(kind, phase=phase)
        self._ask(lambda: self.arm.send(target))
        self._sent = target
        self.arm.ticker.wait()
        return target

    def observe(self, cameras: Sequence[str] = ()) -> Observation:
        """Observe, and look after the servos' health.

        Raises:
            Stop: a servo is too hot, strained for too long, or reports a fault.
            UserError: a camera or the tracker has nothing new, or the bus is lost.
        """
        self.stop.check()
        self._held = self.arm.ticker.clock.held()
        observation = self.arm.observe(cameras)
        if self.tracker:
            observation["env_state"] = self.tracker.read()[None]
        self.measured = observation["qpos"][0].astype(float)
        self._look_after(self.arm.health)
        return observation

    @property
    def sent(self) -> np.ndarray | None:
        """What the arm was told last, within the limits (A,); None before that."""
        return self._sent

    def act(self, action: np.ndarray) -> None:
        """Send what the limits allow of an action (1, A), and end the tick.

        Raises:
            Stop: the observation is stale, the tick far too late, the action not
                finite, or the emergency stop is on.
        """
        self.stop.check()
        clock = self.arm.ticker.clock
        age = clock.age(self.arm.observed_at, self._held)
        if np.shape(action) != (1, self.action_dim):
            raise UserError(
                f"actions of shape {np.shape(action)} were given, expected "
                f"(1, {self.action_dim}): one arm, its joints"
            )
        if self.measured is None or not age <= self.limits.stale:
            self.interventions.note("stale", age=age)
            raise Stop(
                f"the observation is {age:.2f} s old, expected at most "
                f"{self.limits.stale} s: the policy or the computer is too slow"
            )
        load = self.arm.health.load
        target, kinds = self.governor.allow(action[0], self.measured, load)
        for kind in kinds:
            self.interventions.note(
                kind, wish=[float(x) for x in action[0]], sent=target.tolist()
            )
        before = self.arm.ticker.missed
        self.arm.act(target[None])
        self._sent = target
        missed = self.arm.ticker.missed - before
        if missed:
            self.interventions.note("late", missed=missed)
            held = clock.held() - self._held
            if missed / self.fps - held > self.limits.late:
                raise Stop(
                    f"a tick came {missed / self.fps:.2f} s late, expected at most "
                    f"{self.limits.late} s"
                )

    def land(self) -> None:
        """Slowly up to the ready pose, then down to the rest pose; torque stays on."""
        self.stop.clear()  # whoever pressed it wants the arm down, not hanging
        self.go(self.limits.ready, "landing")
        self.go(self.limits.rest, "landing")

    def close(self) -> None:
        """Land, then let go. If landing fails, the torque fades, and the arm sinks.

        Whatever is failing besides (a log, a camera, the tracker) keeps no arm up.

        Raises:
            Stop: why it could not land, after what ended the session if something did.
        """
        if not self._connected:
            return
        self._connected = False
        cause = sys.exc_info()[1]  # what the caller is on its way out with
        failure: BaseException | None = None
        try:
            self.land()
        except BaseException as error:  # of whatever kind: an arm must not just drop
            failure = error
            self.interventions.note("no landing", why=_words(error))
            with contextlib.suppress(BaseException):  # the bus may be what failed
                self.arm.soften()
        fault = self._release()
        if failure and not isinstance(failure, Exception):
            raise failure
        if failure := failure or fault:
            first = f"{_words(cause)}; then " if cause else ""
            raise Stop(
                f"{first}the arm could not be put to rest ({_words(failure)}); it "
                "sinks, or holds if nobody can reach it: support it, and switch its "
                "power off"
            ) from failure

    def _release(self) -> Exception | None:
        fault: Exception | None = None
        try:
            self.arm.close()
        except Exception as error:
            fault = error
        try:
            if self.tracker:
                self.tracker.close()
        except Exception as error:
            self._complaints.append(f"the tracker could not be closed: {error}")
        self.interventions.close()
        return fault

    def _look_after(self, health: Any, warm: float = 0.0) -> None:
        limits, joints = self.limits, np.arange(self.action_dim)
        for name in ("temperature", "load"):
            values = getattr(health, name)
            if np.shape(values) != joints.shape or not np.isfinite(values).all():
                raise Stop(
                    f"the motors' {name} is {values}, expected {len(joints)} numbers, "
                    "and 0 where a motor does not tell"
                )
        hot = joints[health.temperature > limits.temperature + warm]
        if len(hot):
            self.interventions.note("hot", joint=int(hot[0]))
            raise Stop(
                f"joint {hot[0]} is {health.temperature[hot[0]]:.0f} °C hot, expected "
                f"at most {limits.temperature:.0f} °C; let it cool down"
            )
        load = np.abs(health.load)
        load[list(limits.grippers)] = 0.0  # they squeeze on purpose, and are eased
        stands = np.ones(self.action_dim, bool)
        if self.measured is not None:
            stands = np.abs(self.measured - self._stood) < STANDS
            self._stood = np.where(
                stands & (load > limits.stall), self._stood, self.measured
            )
        dt = 1 / self.fps
        self._strained = np.where(load > limits.load, self._strained + dt, 0.0)
        stalled = stands & (load > limits.stall)
        self._stalled = np.where(stalled, self._stalled + dt, 0.0)
        for kind, seconds, how in (
            ("strain", self._strained, ""),
            ("stall", self._stalled, " without moving"),
        ):
            if seconds.max() > limits.load_seconds:
                joint = int(np.argmax(seconds))
                self._strained[:] = self._stalled[:] = 0.0
                self.interventions.note(kind, joint=joint)
                raise Stop(
                    f"joint {joint} has pulled with {100 * load[joint]:.0f} % of its "
                    f"torque for {limits.load_seconds} s{how}: something is in its way"
                )
        for joint, fault in health.faults.items():
            if not joint.endswith("gripper"):
                self.interventions.note("servo fault", joint=joint)
                raise Stop(f"the servo of {joint} reports: {fault.words()}")


def _words(error: BaseException) -> str:
    """An error in one line; of what is no sentence of ours, also its kind."""
    said = " ".join(str(error).split())
    if isinstance(error, UserError):
        return said
    kind = type(error).__name__
    return f"{kind}: {said}" if said else kind
