"""Pure arithmetic between a wish and an arm: what may be sent, and what may not.

`Limits` say what an arm may do, `Governor` turns any wish into a target that they
allow. Neither knows of buses, cameras or time; `safety.SafeRobot` does.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .stop import Stop

OUTSIDE = 0.15  # rad, or openings, beyond the range: more is a wrong calibration
JAW_STANDS = 0.15  # openings/s: a slower jaw has something between its fingers
ALONG = np.linspace(0, 1, 5)[:, None]  # where two forearms are held against each other


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
    forearms: tuple[tuple[int, int], ...] = ()
    """For two arms: which of the points are each one's elbow and wrist."""
    apart: float = 0.0
    """m that the forearms' middle lines have to be apart; hands may meet."""
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
        """As much of the step as keeps the arm where it may be, or brings it nearer."""
        outside = self._outside
        if (there := outside(target)) <= 0 or there < outside(last):
            return target
        kinds.append("workspace" if self._beyond(target)[0] > 0 else "other arm")
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
        """How far states (..., A) are where they may not be at most, m; <= 0 if not."""
        return max(self._beyond(state))

    def _beyond(self, state: np.ndarray) -> tuple[float, float]:
        """By how much states are outside the box, and the arms too near, m."""
        limits = self.limits
        points = limits.points_of(state)
        beyond = np.maximum(limits.box_low - points, points - limits.box_high)
        near = -np.inf
        if limits.forearms:
            near = limits.apart - float(gap_of(points, limits.forearms).min())
        return float(beyond.max()), near

    def way(self, start: np.ndarray, end: np.ndarray) -> list[np.ndarray]:
        """Stops of a way between two states that stays where the arm may be.

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
        """Whether the straight way stays where the arm may be, or leads back there."""
        shares = np.linspace(0, 1, 25)[1:, None]
        beyond = self._outside(start + shares * (end - start))
        return beyond <= max(0.0, self._outside(start))

    def upward(self, state: np.ndarray) -> np.ndarray:
        """(A,) how to move the joints to raise the arm's lowest point, at most 1."""
        step = 1e-3
        lowest = self.limits.points_of(state + step * np.eye(len(state)))[..., 2]
        slope = lowest.min(axis=-1) - self.limits.points_of(state)[:, 2].min()
        return slope / max(float(np.abs(slope).max()), 1e-9)


def gap_of(points: np.ndarray, forearms: tuple[tuple[int, int], ...]) -> np.ndarray:
    """How near two forearms are to each other.

    Args:
        points: (..., P, 3) m.
        forearms: which of them are the elbow and the wrist, arm by arm.

    Returns:
        (...,) m between their middle lines, at five points along each: too much by at
        most 6 mm for forearms of 0.22 m that are 0.12 m apart.
    """
    right, left = (
        (1 - ALONG) * points[..., None, elbow, :] + ALONG * points[..., None, wrist, :]
        for elbow, wrist in forearms
    )  # (..., 5, 3)
    between = right[..., :, None, :] - left[..., None, :, :]  # (..., 5, 5, 3)
    return np.sqrt((between**2).sum(-1).min((-2, -1)))


def _clip(
    x: np.ndarray, low: np.ndarray, high: np.ndarray, kind: str, kinds: list[str]
) -> np.ndarray:
    clipped = np.clip(x, low, high)
    if np.abs(clipped - x).max() > 1e-9:
        kinds.append(kind)
    return clipped
