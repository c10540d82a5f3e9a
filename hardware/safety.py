"""Between policy and arm, for every robot: nothing moves an arm past these limits.

    policy -> Governor (joint, speed, acceleration, step, workspace, grip) -> arm
    observation -> watch (stale, late, hot, strained, faulty) -> stop

`SafeRobot` wraps a robot and is one itself, so the control loop does not know. What it
changes is an *intervention*: counted by kind, and written to a log. What it cannot put
right is a *stop*: the arm holds where it is, goes to its rest pose slowly, and lets go.

All checks happen on measured positions and on what is sent, never on what a policy says
about itself. If the program hangs or dies, servos keep their last goal: the arm holds.
"""

import contextlib
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from act_minimal.control import Observation, Robot
from act_minimal.errors import SettingError, UserError

from .cameras import Camera, Frame
from .clock import Ticker
from .stop import EmergencyStop, Interventions, Stop

RISE = 3.0  # s that an arm may take to rise from a table before it goes to rest
CATCH_UP = 3.0  # s that a ramp may last longer than planned
OUTSIDE = 0.15  # rad, or openings, beyond the range: more is a wrong calibration
JAW_STANDS = 0.15  # openings/s: a slower jaw has something between its fingers
THERE = 0.002  # rad, or openings: a target this near has arrived


@dataclass(frozen=True)
class Limits:
    """What an arm may do. Arrays have one entry a joint; angles in rad.

    The entries of `grippers` are in openings: 0 closed, 1 open.
    """

    low: np.ndarray
    high: np.ndarray
    speed: np.ndarray
    """Of what is sent, a second."""
    acceleration: np.ndarray
    """Of what is sent, a second squared; braking for a wall or a stop may exceed it."""
    step: np.ndarray
    """Farthest that a target may be from where the joint is."""
    box_low: np.ndarray
    """(3,) m, where the arm's joints and fingertips may be."""
    box_high: np.ndarray
    points_of: Callable[[np.ndarray], np.ndarray]
    """State (..., A) -> (..., P, 3) m: the joints and fingertips that are watched."""
    ready: np.ndarray
    """Pose from which policies start."""
    rest: np.ndarray
    """Pose in which the arm may lose torque without falling."""
    grippers: tuple[int, ...] = (5,)
    """Which entries are grippers."""
    grip: float = 0.2
    """Most load of a gripper, as a share of its stall torque."""
    load: float = 0.9
    """Load of an arm joint that is a strain, as a share of its stall torque."""
    load_seconds: float = 1.0
    """So long may it last."""
    temperature: float = 60.0
    """°C; the servos themselves stop at 70."""
    stale: float = 0.15
    """Seconds that an observation may be old when an action made from it is sent."""
    late: float = 0.25
    """Seconds over its end that a tick may last before the arm is stopped."""
    slow: float = 0.6
    """rad/s (and openings/s) of ramps at the start and the end."""


def so100_limits(model: str = "so100") -> Limits:
    """Limits for a SO-100 or SO-101 on a table.

    Raises:
        SettingError: unknown model.
    """
    from .so100.kinematics import ARMS

    if model not in ARMS:
        raise SettingError(f"model is '{model}', expected one of: {', '.join(ARMS)}")
    arm = ARMS[model]
    low, high = arm.ranges.T.copy()
    margin = np.radians(1.0)
    low, high = low + margin, high - margin
    low[5], high[5] = 0.0, 1.0
    if model == "so100":
        ready = np.array([0.0, -2.3, 2.1, 1.2, -1.57, 0.32])
        rest = np.array([0.0, -3.25, 3.05, 1.18, 0.0, 0.05])
        box = np.array([(-0.45, 0.45), (-0.50, 0.25), (0.002, 0.55)])
    else:  # the same poses in the other model's zero, and its table in front is +x
        ready = np.array([0.0, -0.73, 0.53, 1.2, -1.52, 0.32])
        rest = np.array([0.0, -1.68, 1.48, 1.18, 0.05, 0.05])
        box = np.array([(-0.21, 0.54), (-0.45, 0.45), (0.002, 0.55)])
    return Limits(
        low=low,
        high=high,
        speed=np.array([3.0] * 5 + [4.0]),
        acceleration=np.array([60.0] * 5 + [80.0]),
        step=np.array([0.5] * 5 + [1.0]),
        box_low=box[:, 0],
        box_high=box[:, 1],
        points_of=arm.watched_of,
        ready=ready,
        rest=rest,
    )


class Governor:
    """Turns any wish into a target that the limits allow. Pure arithmetic, one arm.

    Args:
        limits: what the arm may do.
        period: of a tick, s.
    """

    def __init__(self, limits: Limits, period: float):
        self.limits, self.period = limits, period
        self.target: np.ndarray | None = None
        self.velocity = np.zeros(len(limits.low))
        self._before: np.ndarray | None = None  # measured a tick ago

    def reset(self, measured: np.ndarray) -> None:
        """Begin at the measured pose, at rest.

        Raises:
            Stop: that is far outside the limits, so it would begin with a leap.
        """
        limits = self.limits
        beyond = np.maximum(limits.low - measured, measured - limits.high)
        if not beyond.max() < OUTSIDE:
            joint = int(np.argmax(beyond))
            raise Stop(
                f"joint {joint} is measured at {measured[joint]:.2f}, outside "
                f"its range from {limits.low[joint]:.2f} to {limits.high[joint]:.2f}: "
                "the calibration is of another arm, or it was homed in another pose"
            )
        self.target = np.clip(measured, limits.low, limits.high)
        self.velocity = np.zeros(len(limits.low))
        self._before = None

    def allow(
        self, wish: np.ndarray, measured: np.ndarray, load: np.ndarray | None = None
    ) -> tuple[np.ndarray, list[str]]:
        """The target to send, and the kinds of intervention that made it differ.

        Args:
            wish: (A,) joint targets of a policy.
            measured: (A,) where the joints are.
            load: (A,) share of the stall torque at each joint, if known.

        Raises:
            Stop: the wish or the measurement is not finite.
        """
        limits, dt = self.limits, self.period
        for name, values in (("action", wish), ("measured position", measured)):
            if not np.isfinite(values).all():
                joint = int(np.flatnonzero(~np.isfinite(values))[0])
                raise Stop(f"the {name} of joint {joint} is {values[joint]}")
        if self.target is None:
            self.reset(measured)
        assert self.target is not None
        kinds: list[str] = []
        last, goal = self.target, np.asarray(wish, float)

        goal = _clip(goal, limits.low, limits.high, "joint limit", kinds)
        if load is not None:
            goal = self._ease_grip(goal, measured, load, kinds)
        # From here it can still stop before the end of its range.
        room = np.where(goal > last, limits.high - last, last - limits.low)
        brake = np.sqrt(2 * limits.acceleration * np.maximum(room, 0.0))
        top = np.minimum(limits.speed, np.maximum(brake, 1e-9))
        velocity = _clip((goal - last) / dt, -top, top, "speed", kinds)
        change = limits.acceleration * dt
        velocity = _clip(
            velocity,
            self.velocity - change,
            self.velocity + change,
            "acceleration",
            kinds,
        )
        velocity = np.clip(velocity, -limits.speed, limits.speed)
        target = np.clip(last + velocity * dt, limits.low, limits.high)
        near = np.clip(measured, limits.low, limits.high)
        target = _clip(target, near - limits.step, near + limits.step, "step", kinds)
        # A joint pushed away from its target must not let the target leap after it.
        target = np.clip(target, last - limits.speed * dt, last + limits.speed * dt)
        target = self._inside_box(last, target, kinds)
        self.velocity = (target - last) / dt
        self.target = target
        return target.copy(), kinds

    def _ease_grip(
        self, goal: np.ndarray, measured: np.ndarray, load: np.ndarray, kinds: list[str]
    ) -> np.ndarray:
        """A jaw that stands and squeezes too hard is asked for less, in proportion.

        While it still closes its load is inertia and friction, no grip.
        """
        assert self.target is not None
        before, self._before = self._before, measured.copy()
        if before is None:
            return goal
        goal = goal.copy()
        for jaw in self.limits.grippers:
            if abs(before[jaw] - measured[jaw]) > JAW_STANDS * self.period:
                continue
            gap = measured[jaw] - self.target[jaw]  # how far it is asked to squeeze
            squeeze = abs(load[jaw])
            if gap <= 0 or squeeze <= 0.5 * self.limits.grip:
                continue
            floor = measured[jaw] - gap * self.limits.grip / squeeze
            if goal[jaw] < floor:
                goal[jaw] = floor
                if squeeze > self.limits.grip:
                    kinds.append("grip")
        return goal

    def _inside_box(
        self, last: np.ndarray, target: np.ndarray, kinds: list[str]
    ) -> np.ndarray:
        """As much of the step as keeps the arm in the box, or brings it nearer."""
        outside = self._outside
        if (there := outside(target)) <= 0 or there < outside(last):
            return target
        kinds.append("workspace")
        if outside(last) > 0:
            return last.copy()  # outside already, and this leads no nearer
        good, bad = 0.0, 1.0
        for _ in range(6):
            middle = (good + bad) / 2
            if outside(last + middle * (target - last)) <= 0:
                good = middle
            else:
                bad = middle
        return last + good * (target - last)

    def _outside(self, state: np.ndarray) -> float:
        """How far states (..., A) are outside the box at most, m; <= 0 inside."""
        points = self.limits.points_of(state)
        low, high = self.limits.box_low, self.limits.box_high
        return float(np.max(np.maximum(low - points, points - high)))

    def way(self, start: np.ndarray, end: np.ndarray) -> list[np.ndarray]:
        """Stops of a way between two states that stays in the box.

        Straight if that is free; else some joints go before others, in as few groups
        as will do. Two arms move alike: the same joints of both go first.

        Returns:
            The stops, the last is `end`; none if there is no such way.
        """
        joints = len(start) // len(self.limits.grippers)
        bits = np.arange(len(start)) % joints

        def at(done: int) -> np.ndarray:
            return np.where(done >> bits & 1, end, start)

        everything = 2**joints - 1
        came, waiting = {0: 0}, [0]
        for done in waiting:
            for more in range(everything, done, -1):
                if more & done != done or more in came:
                    continue
                if self._is_free(at(done), at(more)):
                    came[more] = done
                    waiting.append(more)
                    if more == everything:
                        stops = [more]
                        while came[stops[0]]:
                            stops.insert(0, came[stops[0]])
                        return [at(stop) for stop in stops]
        return []

    def _is_free(self, start: np.ndarray, end: np.ndarray) -> bool:
        """Whether the straight way keeps to the box, or leads back to it."""
        shares = np.linspace(0, 1, 25)[1:, None]
        beyond = self._outside(start + shares * (end - start))
        return beyond <= max(0.0, self._outside(start))

    def upward(self, state: np.ndarray) -> np.ndarray:
        """(A,) how to move the joints to raise the arm's lowest point, at most 1."""
        step = 1e-3
        lowest = self.limits.points_of(state + step * np.eye(len(state)))[..., 2]
        slope = lowest.min(axis=-1) - self.limits.points_of(state)[:, 2].min()
        return slope / max(float(np.abs(slope).max()), 1e-9)


def _clip(
    x: np.ndarray, low: np.ndarray, high: np.ndarray, kind: str, kinds: list[str]
) -> np.ndarray:
    clipped = np.clip(x, low, high)
    if np.abs(clipped - x).max() > 1e-9:
        kinds.append(kind)
    return clipped


class Arm(Robot, Protocol):
    """A robot that can be made safe: it also says when and how it was measured."""

    ticker: Ticker
    observed_at: float
    """s, monotonic: when the last observation was taken."""
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
    """

    arm: Arm
    limits: Limits
    log: Path | None = None
    stop: EmergencyStop = field(default_factory=EmergencyStop)

    def __post_init__(self) -> None:
        self.n, self.fps = self.arm.n, self.arm.fps
        self.action_dim, self.cameras = self.arm.action_dim, self.arm.cameras
        self.interventions = Interventions(self.log)
        self.governor = Governor(self.limits, 1 / self.fps)
        self._measured: np.ndarray | None = None
        self._strained = np.zeros(self.action_dim)
        self._connected = False

    def connect(self) -> None:
        """Connect; nothing moves yet.

        Raises:
            Stop: a servo is unwell, or the arm is measured outside its range.
        """
        self.arm.connect()
        try:
            state, _, health = self.arm.measure()
            self._look_after(health)
            self.governor.reset(state)
        except BaseException:
            self.interventions.close()
            self.arm.close()  # it has not moved yet, so it lies where it lay
            raise
        self._measured = state
        self._connected = True

    def go(self, pose: np.ndarray) -> None:
        """Slowly to a pose (A,), by minimum-jerk ramps from the measured one.

        Where the table is in the way some joints go first, or the arm rises until they
        can.

        Raises:
            Stop: the emergency stop, a strain, or the pose is outside the limits.
        """
        limits = self.limits
        pose = np.asarray(pose, float)
        if (pose < limits.low - 1e-6).any() or (pose > limits.high + 1e-6).any():
            raise Stop("the pose to go to is outside the joint limits")
        state, _, _ = self.arm.measure()
        self.governor.reset(state)
        self.arm.ticker.start()
        for stop in self._rise(pose):
            self.arm.ticker.start()  # to look for the way took its time
            self._ramp(stop)

    def _rise(self, pose: np.ndarray) -> list[np.ndarray]:
        """Raise the arm until there is a way to the pose; returns that way."""
        governor, limits = self.governor, self.limits
        for tick in range(math.ceil(RISE * self.fps)):
            assert governor.target is not None
            if tick % 10 == 0 and (way := governor.way(governor.target, pose)):
                return way
            up = limits.slow / self.fps * governor.upward(governor.target)
            self._creep(governor.target + up)
        return [pose]  # the governor keeps it in the box on this one, too

    def _ramp(self, pose: np.ndarray) -> None:
        limits = self.limits
        assert self.governor.target is not None
        start = self.governor.target
        # A minimum-jerk ramp is 1.875 times as fast in its middle as on the whole.
        seconds = max(1.875 * float(np.abs(pose - start).max()) / limits.slow, 0.3)
        ticks = math.ceil(seconds * self.fps)
        # What the limits held back on the way is caught up with at its end.
        for tick in range(1, ticks + math.ceil(CATCH_UP * self.fps)):
            s = min(tick / ticks, 1.0)
            s = s**3 * (10 - 15 * s + 6 * s * s)
            target = self._creep(start + s * (pose - start))
            if tick >= ticks and np.abs(target - pose).max() < THERE:
                return
        raise Stop("the limits, or something in its way, keep the arm from its pose")

    def _creep(self, wish: np.ndarray) -> np.ndarray:
        """One tick of a ramp; returns what was sent."""
        self.stop.check()
        state, _, health = self.arm.measure()
        self._look_after(health)
        target, kinds = self.governor.allow(wish, state, health.load)
        for kind in kinds:
            self.interventions.note(kind, phase="ramp")
        self.arm.send(target)
        self.arm.ticker.wait()
        return target

    def observe(self, cameras: Sequence[str] = ()) -> Observation:
        """Observe, and look after the servos' health.

        Raises:
            Stop: a servo is too hot, strained for too long, or reports a fault.
        """
        self.stop.check()
        observation = self.arm.observe(cameras)
        self._measured = observation["qpos"][0].astype(float)
        if self.arm.health is not None:
            self._look_after(self.arm.health)
        return observation

    def act(self, action: np.ndarray) -> None:
        """Send what the limits allow of an action (1, A), and end the tick.

        Raises:
            Stop: the observation is stale, the tick far too late, the action not
                finite, or the emergency stop is on.
        """
        self.stop.check()
        age = time.monotonic() - self.arm.observed_at
        if self._measured is None or age > self.limits.stale:
            self.interventions.note("stale", age=age)
            raise Stop(
                f"the observation is {age:.2f} s old, expected at most "
                f"{self.limits.stale} s: the policy or the computer is too slow"
            )
        health = self.arm.health
        target, kinds = self.governor.allow(
            action[0], self._measured, None if health is None else health.load
        )
        for kind in kinds:
            self.interventions.note(
                kind, wish=[float(x) for x in action[0]], sent=target.tolist()
            )
        before = self.arm.ticker.missed
        self.arm.act(target[None])
        missed = self.arm.ticker.missed - before
        if missed:
            self.interventions.note("late", missed=missed)
            if missed / self.fps > self.limits.late:
                raise Stop(
                    f"a tick came {missed / self.fps:.2f} s late, expected at most "
                    f"{self.limits.late} s"
                )

    def land(self) -> None:
        """Slowly up to the ready pose, then down to the rest pose; torque stays on."""
        self.stop.clear()  # whoever pressed it wants the arm down, not hanging
        self.go(self.limits.ready)
        self.go(self.limits.rest)

    def close(self) -> None:
        """Land, then let go. If landing fails, the torque fades, and the arm sinks.

        Raises:
            UserError: why it could not land; the arm may sink.
        """
        if not self._connected:
            return
        failure: UserError | None = None
        try:
            self.land()
        except UserError as error:
            failure = error
            self.interventions.note("no landing", why=str(error))
            with contextlib.suppress(UserError):  # the bus may be what failed
                self.arm.soften()
        finally:
            self._connected = False
            self.interventions.close()
            try:
                self.arm.close()
            except UserError as error:
                failure = failure or error
        if failure:
            raise Stop(
                f"the arm could not be put to rest ({failure}); it sinks, or holds if "
                "nobody can reach it: support it, and switch its power off"
            )

    def _look_after(self, health: Any) -> None:
        limits, joints = self.limits, np.arange(self.action_dim)
        hot = joints[health.temperature > limits.temperature]
        if len(hot):
            self.interventions.note("hot", joint=int(hot[0]))
            raise Stop(
                f"joint {hot[0]} is {health.temperature[hot[0]]:.0f} °C hot, expected "
                f"at most {limits.temperature:.0f} °C; let it cool down"
            )
        strained = np.abs(health.load) > limits.load
        strained[list(limits.grippers)] = (
            False  # they squeeze on purpose, and are eased
        )
        self._strained = np.where(strained, self._strained + 1 / self.fps, 0.0)
        if (self._strained > limits.load_seconds).any():
            joint = int(np.argmax(self._strained))
            self._strained[:] = 0.0
            self.interventions.note("strain", joint=joint)
            raise Stop(
                f"joint {joint} has pulled with {100 * abs(health.load[joint]):.0f} % "
                f"of its torque for {limits.load_seconds} s: something is in its way"
            )
        for joint, fault in health.faults.items():
            if not joint.endswith("gripper"):
                self.interventions.note("servo fault", joint=joint)
                raise Stop(f"the servo of {joint} reports: {fault.words()}")


__all__ = [
    "EmergencyStop",
    "Governor",
    "Interventions",
    "Limits",
    "SafeRobot",
    "Stop",
    "so100_limits",
]
