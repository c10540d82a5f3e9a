"""Pure arithmetic between a wish and an arm: what may be sent, and what may not."""

from dataclasses import dataclass

import numpy as np

from act_minimal.support.errors import SettingError

from .guard import FAR, Guard
from .stop import Stop

OUTSIDE = 0.15  # rad, or openings, beyond the range: more is a wrong calibration
JAW_OPENS = 0.05  # openings: a jaw that stands so far from its target is held up
JAW_STANDS = 0.15  # openings/s: a slower jaw has something between its fingers
CATCHES_UP = 5.0  # 1/s of its way to its target: a slower joint is blocked (free: 10)
WAITS = 1.0  # s until a blocked joint of an arm that has pressed is asked again
MOST_JOINTS = 8  # of one arm: `Governor.way` tries their subsets while the arm waits
INERTIA = 0.06  # s that an arm may be behind its target because it begins to move
RUSH = 1.5  # times `closing`, to stop an arm that is faster than its target
SWING = 0.5  # share of its lag by which a joint swings past a target that turns back
STANDS = 0.1  # rad/s: a slower joint stands, if it does so for INERTIA
TOUCHES = 0.005  # m of clearance: less, and something may be touched
# Shares of a step that are tried if not all of it will do; then as finely again.
SHARES = np.linspace(0, 1, 7)[1:-1]
FINER = SHARES, SHARES[0] * SHARES
THIRDS = np.array([1, 2, 3]) / 3  # shares of what is left of one arm's step, tried last
# Of the way from where the arm is to where it is sent, what is looked at.
PASSING = np.array([0.25, 0.5, 0.75])[:, None]


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
    closing: float
    """m/s² with which it can stop before it touches something."""
    bow: float
    """m/rad²: by this times its square a joint that is behind may lead beside the path;
    what is not so clear, or FAR, waits until it has caught up."""
    step: np.ndarray
    """Farthest that a target may be from where the joint is."""
    press: np.ndarray
    """Farthest that a target stays from a joint while the arm touches something: its
    springs press with that."""
    box_low: np.ndarray
    """(3,) m, where the arm may be with all that moves."""
    box_high: np.ndarray
    guard: Guard
    """What has to stay in there, and which parts may not come near each other."""
    ready: np.ndarray
    """Pose from which policies start."""
    rest: np.ndarray
    """Pose in which the arm may lose torque without falling."""
    grippers: tuple[int, ...] = (5,)
    """Which entries are grippers."""
    arms: int = 1
    """How many arms it is; their joints follow one another, as many of each."""
    grip: float = 0.2
    """Most load of a gripper, as a share of its stall torque."""
    load: float = 0.9
    """Load of an arm joint that is a strain, as a share of its stall torque."""
    stall: float = 0.6
    """Load of an arm joint that is a stall if the joint stands; to hold an arm takes
    half of it."""
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

    def __post_init__(self) -> None:
        """Refuses what cannot be meant, before an arm goes by it.

        Raises:
            SettingError: names the entry, what was found and what is expected.
        """
        joints = len(np.atleast_1d(self.low))
        for name in PER_JOINT:
            self._expect_numbers(name, joints)
        for name in ("box_low", "box_high"):
            self._expect_numbers(name, 3)
        for name in POSITIVE:
            value = np.asarray(getattr(self, name), float)
            good = np.isfinite(value).all() and (value > 0).all()
            self._expect(name, good, "above 0 and finite")
        self._expect("high", (self.high > self.low).all(), "more than low")
        self._expect(
            "box_high", (self.box_high > self.box_low).all(), "more than box_low"
        )
        for name in ("ready", "rest"):
            pose = getattr(self, name)
            inside = (pose >= self.low - 1e-6) & (pose <= self.high + 1e-6)
            self._expect(name, inside.all(), "a pose from low to high")
        known = all(type(jaw) is int and 0 <= jaw < joints for jaw in self.grippers)
        self._expect("grippers", known, f"entries from 0 to {joints - 1}")
        each = joints / self.arms
        good = each % 1 == 0 and each <= MOST_JOINTS
        self._expect(
            "arms", good, f"{joints} joints shared alike, at most {MOST_JOINTS} an arm"
        )

    def _expect(self, name: str, holds: bool | np.bool, words: str) -> None:
        if not holds:
            found = " ".join(str(getattr(self, name)).split())
            raise SettingError(f"limits.{name} is {found}, expected {words}")

    def _expect_numbers(self, name: str, count: int) -> None:
        values = getattr(self, name)
        good = isinstance(values, np.ndarray) and values.shape == (count,)
        good = good and bool(np.isfinite(values).all())
        self._expect(name, good, f"an array of {count} finite numbers")


PER_JOINT = ("low", "high", "speed", "acceleration", "step", "press", "ready", "rest")
POSITIVE = ("speed", "acceleration", "step", "press", "closing", "bow", "grip", "load")
POSITIVE += ("stall", "load_seconds", "temperature", "stale", "late", "slow")


class Governor:
    """Turns any wish into a target that the limits allow, once a `period`, s."""

    def __init__(self, limits: Limits, period: float):
        self.limits, self.period = limits, period
        self.target: np.ndarray | None = None
        each = len(limits.ready) // limits.arms
        # (arms, A) which joints an arm has, and (arms, C) which clearances it changes
        self._of_arm = np.eye(limits.arms, dtype=bool).repeat(each, axis=1)
        moved = [
            limits.guard.moved(limits.ready, limits.ready + x) for x in self._of_arm
        ]
        self._concerns = np.stack(moved)
        self._rest()

    def _rest(self) -> None:
        self.velocity = np.zeros(len(self.limits.low))
        self._before: np.ndarray | None = None  # measured a tick ago
        self._pressed = np.zeros(len(self.limits.low))  # s that each joint has pressed
        # Whose arm has pressed on what it still touches.
        self._has_pressed = np.zeros(len(self.limits.low), bool)
        # Of such an arm: s that each joint has stood though it was asked to move; which
        # way it was blocked then; and for how many s it is not asked again.
        self._standing, self._blocked, self._waits = np.zeros((3, len(self.velocity)))
        self._clearances: np.ndarray | None = None  # how clear the arm was a tick ago
        self._still = np.zeros(len(self.velocity))  # s that each joint has stood

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
        self._rest()

    def allow(
        self, wish: np.ndarray, measured: np.ndarray, load: np.ndarray | None = None
    ) -> tuple[np.ndarray, list[str]]:
        """The target to send, and the kinds of intervention that made it differ.

        Args:
            wish: (A,) joint targets.
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
        before, self._before = self._before, measured.copy()
        moved = (
            np.abs(measured - before)
            if before is not None
            else np.full(len(last), np.inf)
        )
        self._still = np.where(moved < STANDS * dt, self._still + dt, 0.0)

        goal = _clip(goal, limits.low, limits.high, "joint limit", kinds)
        if load is not None:
            goal = self._ease_grip(goal, measured, moved, load, kinds)
        if (target := self._yielding(measured)) is not None:
            # It gave way, which is no motion that goes on.
            self.target, self.velocity = target, np.zeros(len(target))
            self._clearances = None
            return target.copy(), [*kinds, "press"]
        # From here it can still stop before the end of its range.
        left = np.where(goal > last, limits.high - last, last - limits.low)
        brake = np.sqrt(2 * limits.acceleration * np.maximum(left, 0.0))
        top = np.minimum(limits.speed, np.maximum(brake, 1e-9))
        velocity = _clip((goal - last) / dt, -top, top, "speed", kinds)
        change = limits.acceleration * dt
        slower, faster = self.velocity - change, self.velocity + change
        velocity = _clip(velocity, slower, faster, "acceleration", kinds)
        velocity = np.clip(velocity, -limits.speed, limits.speed)
        target = np.clip(last + velocity * dt, limits.low, limits.high)
        near = np.clip(measured, limits.low, limits.high)
        target = _clip(target, near - limits.step, near + limits.step, "step", kinds)
        # A joint pushed away from its target must not let the target leap after it.
        target = np.clip(target, last - limits.speed * dt, last + limits.speed * dt)
        target = self._keep_clear(last, measured, target, kinds)
        if self._has_pressed.any():
            free, target = target, self._let_go(target, measured, moved, goal)
            if (free != target).any():
                kinds.append("press")
        return self._send(target), kinds

    def _send(self, target: np.ndarray) -> np.ndarray:
        assert self.target is not None
        self.velocity = (target - self.target) / self.period
        self.target = target
        return target.copy()

    def _ease_grip(
        self,
        goal: np.ndarray,
        measured: np.ndarray,
        moved: np.ndarray,
        load: np.ndarray,
        kinds: list[str],
    ) -> np.ndarray:
        """A standing jaw that squeezes too hard is asked for less, in proportion."""
        assert self.target is not None
        goal = goal.copy()
        for jaw in self.limits.grippers:
            if moved[jaw] > JAW_STANDS * self.period:
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

    def _yielding(self, measured: np.ndarray) -> np.ndarray | None:
        """Targets nearer to where the joints are, if they press on something too hard.

        As far as the guard can tell: elsewhere a joint is away from its target because
        of what the arm weighs, and to yield to that would let it sink.
        """
        assert self.target is not None
        limits, gap = self.limits, measured - self.target
        pressing = np.abs(gap) > limits.press
        pressing[list(limits.grippers)] = False  # they are eased by themselves
        if pressing.any() or self._has_pressed.any():
            if self.clearance(measured).min() > TOUCHES:
                pressing[:] = self._has_pressed[:] = False
                self._standing[:] = self._blocked[:] = 0.0
            elif self._has_pressed.any():
                pressing &= self._leads_nearer(self.target, measured)
        self._pressed = np.where(pressing, self._pressed + self.period, 0.0)
        pressing = self._pressed > INERTIA
        if not pressing.any():
            return None
        of_arms = pressing.reshape(limits.arms, -1).any(1)
        self._has_pressed |= of_arms.repeat(len(gap) // limits.arms)
        # Straight back, where the way was seen to be clear.
        share = 1 - 0.5 * (limits.press / np.maximum(np.abs(gap), 1e-9))[pressing].min()
        most = limits.speed * self.period
        gap[list(limits.grippers)] = 0.0
        share = min(share, float((most / np.maximum(np.abs(gap), 1e-9)).min()))
        return np.clip(self.target + share * gap, limits.low, limits.high)

    def _leads_nearer(self, target: np.ndarray, measured: np.ndarray) -> np.ndarray:
        """(A,) which joints, each alone on its way, lead nearer to what is touched."""
        alone = measured + np.diag(target - measured)  # (A, A), a joint a row
        clear = self.clearance(np.concatenate([measured[None], alone]))  # (1 + A, C)
        return ((clear[1:] < clear[0] - 1e-6) & (clear[0] <= TOUCHES)).any(-1)

    def _let_go(
        self,
        target: np.ndarray,
        measured: np.ndarray,
        moved: np.ndarray,
        goal: np.ndarray,
    ) -> np.ndarray:
        """A target that presses no more, of an arm that has: else it would again.

        Joints that lead it nearer to what it touches stay where they are, and for a
        while those that were blocked; those that lead it away, or along, go on. Closing
        jaws are eased, even if they may not go on.
        """
        limits, dt, last = self.limits, self.period, self.target
        assert last is not None
        jaws = np.isin(np.arange(len(last)), limits.grippers)
        asked = last - measured
        stands = np.abs(asked) > np.maximum(limits.press, moved / (CATCHES_UP * dt))
        stands[jaws] = ((asked > JAW_OPENS) & (moved < JAW_STANDS * dt))[jaws]
        self._standing = np.where(stands, self._standing + dt, 0.0)
        blocked = self._standing > INERTIA
        self._blocked = np.where(blocked, np.sign(asked), self._blocked)
        self._waits = np.where(blocked, WAITS, self._waits - dt)
        self._blocked[self._waits <= 0] = 0.0

        pushes = self._leads_nearer(target, measured) & ~jaws
        pushes |= self._blocked * (target - measured) > 0
        wanted = np.where(pushes & self._has_pressed, measured, target)
        eased = np.maximum(wanted, np.minimum(goal, measured))
        wanted = np.where(jaws, eased, wanted)
        wanted = np.clip(wanted, last - limits.speed * dt, last + limits.speed * dt)
        return np.clip(wanted, limits.low, limits.high)

    def _keep_clear(
        self,
        last: np.ndarray,
        measured: np.ndarray,
        target: np.ndarray,
        kinds: list[str],
    ) -> np.ndarray:
        """As much of the step as keeps everything clear, or leads away from it.

        Of two arms one that touches something then takes by itself what is left of its
        own step: where the other may not go on, it may have to come away from what it
        presses on.
        """
        whole = last + 1.0 * (target - last)
        at_step, clear, now = self._judge(whole[None], last, measured)
        if not clear.all():
            inside = int(at_step.argmin()) < self.limits.guard.in_workspace
            kinds.append("workspace" if inside else "collision")
            good = 0.0
            # Coarser for two arms, of which one may then go on by itself.
            for shares in FINER if self.limits.arms == 1 else (THIRDS[:2],):
                steps = last + (good + shares)[:, None] * (target - last)
                clear = self._judge(steps, last, measured)[1].all(1)
                good += float(shares[clear][-1]) if clear.any() else 0.0
            reached = last + good * (target - last)
            if self.limits.arms > 1:
                for arm in np.flatnonzero((self._concerns & (now <= TOUCHES)).any(1)):
                    reached = self._go_on(int(arm), reached, last, measured, target)
            target = reached
        self._clearances = now
        return target

    def _go_on(
        self,
        arm: int,
        reached: np.ndarray,
        last: np.ndarray,
        measured: np.ndarray,
        target: np.ndarray,
    ) -> np.ndarray:
        """A target that is at `reached`, but for one arm, which is nearer to `target`.

        What this arm does not move is no reason for it to wait.
        """
        left = np.where(self._of_arm[arm], target - reached, 0.0)
        steps = reached + THIRDS[:, None] * left
        clear = self._judge(steps, last, measured)[1][:, self._concerns[arm]].all(1)
        return steps[clear][-1] if clear.any() else reached

    def _judge(
        self, steps: np.ndarray, last: np.ndarray, measured: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """How clear the arm would be at steps (n, A), and what of it is clear enough.

        Two things have to be clear: the target, to which nothing comes nearer than it
        may in a tick; and the ways on which the arm, which lags behind, may come to it.

        Args:
            steps: targets to judge.
            last: (A,) the target sent before.
            measured: (A,) where the joints are.

        Returns:
            The clearance at each step, (n, C) m; whether that will do, (n, C); and the
            clearance at `measured`, (C,) m.
        """
        jaws = list(self.limits.grippers)
        passing = measured + PASSING * (steps - measured)[:, None]  # (n, 3, A)
        late = steps.copy()  # the arm is there, and its jaws have not moved yet
        late[:, jaws] = measured[jaws]
        # Joints that turn back first go on for some of the way that they had left, but
        # not those that stand: something holds them, and they shall come away.
        swing = np.where(self._still > INERTIA, 0.0, SWING * (last - measured))
        swung = np.where((steps - last) * swing < 0, steps + swing, steps)  # (n, A)
        ways = np.concatenate([passing, late[:, None], swung[:, None]], axis=1)
        if self.limits.arms > 1:  # one of them may get there while the other lags
            alone = np.where(self._of_arm, steps[:, None], measured)  # (n, arms, A)
            ways = np.concatenate([ways, alone], axis=1)
        states = np.concatenate([[last, measured], steps, *ways])
        clearances = self.clearance(states)
        at_last, at_measured = clearances[:2]
        at_steps, on_ways = np.split(clearances[2:], [len(steps)])
        on_ways = on_ways.reshape(*ways.shape[:2], -1)  # (n, P, C)
        nearest = np.where(self._rushes(at_measured), at_last, self._nearest(at_last))
        # On its way it may be as near as it is: it sags.
        on_the_way = (on_ways - np.minimum(0.0, at_measured)).min(1)
        clear = np.minimum(at_steps - nearest, on_the_way) >= 0
        in_time = self._in_time(steps, last, measured, at_last, at_steps)
        return at_steps, clear & in_time, at_measured

    def _in_time(
        self,
        steps: np.ndarray,
        last: np.ndarray,
        measured: np.ndarray,
        at_last: np.ndarray,
        at_steps: np.ndarray,
    ) -> np.ndarray:
        """(n, C) whether no arm is too far behind steps (n, A) for how clear they are.

        Joints that are behind, each in its own way, leave the path by about the square
        of that. They have to catch up before the target goes nearer to what is near.
        """
        lag, lags = self._lag(last - measured), self._lag(steps - measured)
        now = (lag[:, None] * self._concerns).max(0)  # (C,) rad
        behind = (lags[:, :, None] * self._concerns).max(1)  # (n, C) rad
        lags_more = ((lags > lag)[:, :, None] & self._concerns).any(1)  # (n, C)
        bow = self.limits.bow
        clear = at_steps >= np.minimum(bow * behind**2, FAR)
        # What leads away from it is allowed if that is more than it may lead beside.
        away = at_steps - at_last >= bow * (behind**2 - now**2)
        return clear | away | ~lags_more

    def _lag(self, gap: np.ndarray) -> np.ndarray:
        """(..., arms) rad: of gaps (..., A), that of each arm's joint most behind."""
        gap = np.abs(gap)
        gap[..., list(self.limits.grippers)] = 0.0
        return gap.reshape(*gap.shape[:-1], self.limits.arms, -1).max(-1)

    def _rushes(self, clearances: np.ndarray) -> np.ndarray:
        """(C,) where the arm, so clear (C,) now, comes nearer too fast to stop in time.

        Its joints, each behind in its own way, may lead it faster than its target goes.
        There the target comes no nearer until the arm has slowed down.
        """
        if self._clearances is None:
            return np.zeros(len(clearances), bool)
        speed = (self._clearances - clearances) / self.period
        return speed > np.sqrt(
            2 * RUSH * self.limits.closing * np.maximum(clearances, 0.0)
        )

    def _nearest(self, clearances: np.ndarray) -> np.ndarray:
        """How clear all must be after the next tick, m, if it is so clear (C,) now.

        Coming nearer, it must be able to stop before zero with `limits.closing`; if it
        is too near already, it must not come nearer.
        """
        step = self.period * np.sqrt(2 * self.limits.closing)
        left = (np.sqrt(step**2 + 4 * np.maximum(clearances, 0.0)) - step) / 2
        return np.minimum(clearances, left**2)

    def clearance(self, state: np.ndarray) -> np.ndarray:
        """How far everything is from what it may not touch, of states (..., A): m."""
        limits = self.limits
        return limits.guard.clearance(state, limits.box_low, limits.box_high)

    def way(self, start: np.ndarray, end: np.ndarray) -> list[np.ndarray]:
        """Stops of a way between two states that stays where the arm may be.

        Straight if that is free; else some joints go before others, in as few groups
        as will do: a breadth-first search over sets of joints that have moved. Two
        arms move alike: the same joints of both go first.

        Returns:
            The stops, the last is `end`; none if there is no such way.
        """
        joints = len(start) // self.limits.arms
        bits = np.arange(len(start)) % joints  # of a set, each joint's bit

        def state_of(moved: int) -> np.ndarray:
            return np.where(moved >> bits & 1, end, start)

        all_joints = 2**joints - 1
        reached_from, queue = {0: 0}, [0]
        for moved in queue:
            for candidate in range(all_joints, moved, -1):
                if candidate & moved != moved or candidate in reached_from:
                    continue
                if not self._is_free(state_of(moved), state_of(candidate)):
                    continue
                reached_from[candidate] = moved
                queue.append(candidate)
                if candidate == all_joints:
                    path = [candidate]
                    while reached_from[path[0]]:
                        path.insert(0, reached_from[path[0]])
                    return [state_of(stop) for stop in path]
        return []

    def _is_free(self, start: np.ndarray, end: np.ndarray) -> bool:
        """Whether the straight way stays where the arm may be, or leads back there."""
        shares = np.linspace(0, 1, 25)[:, None]
        clearances = self.clearance(start + shares * (end - start))
        return bool((clearances[1:] >= np.minimum(0.0, clearances[0])).all())

    def upward(self, state: np.ndarray) -> np.ndarray:
        """(A,) how to move the joints to raise the arm's lowest point, at most 1."""
        step, lowest = 1e-3, self.limits.guard.lowest
        slope = lowest(state + step * np.eye(len(state))) - lowest(state)
        return slope / max(float(np.abs(slope).max()), 1e-9)


def _clip(
    x: np.ndarray, low: np.ndarray, high: np.ndarray, kind: str, kinds: list[str]
) -> np.ndarray:
    clipped = np.clip(x, low, high)
    if np.abs(clipped - x).max() > 1e-9:
        kinds.append(kind)
    return clipped
