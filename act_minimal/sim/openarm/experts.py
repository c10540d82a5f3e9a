"""Demonstrators for the tasks of two OpenArms: joint targets of both, one a tick.

As on the SO-100 (`so100/expert.py`): waypoints of the hands, inverse kinematics,
minimum-jerk moves between them. Both arms move in the same moves, so that one can come
while the other goes. The left arm's angles come from the right arm's, mirrored.
"""

from dataclasses import dataclass, field

import mink
import mujoco
import numpy as np

from ..so100.expert import Plan, known, solve, tremor
from ..world import Task, Unreachable
from . import arms as openarm
from .insertion import CUP_DEPTH, PEG
from .table import ARM_NQ, HOME_ARM, SHOULDER, TABLE

CLOSED = 0.0  # gripper opening asked for: whatever is between the fingers stops them
CLEAR = 0.021  # m over the table: there the corner of a leaning fingertip clears it
REACHING = np.array([0.5, 0.8, -0.6, 1.3, -0.2, 0.2, 1.25])  # rad, an elbow at ease
LEAN = 0.35  # rad: how a hand that picks up leans outwards, along the object
LONGEST_STEP = 0.5  # rad, in one iteration of inverse kinematics
NEAR = 3e-3  # m: as near to a point as an arm should get
MOVES = 12  # more than any plan has


@dataclass
class Style:
    """How one demonstration is done; the defaults are the scripted expert's.

    Lengths in m, angles in rad, times in s. Errors of aim are (2, 3): right, left.
    """

    speed: float = 1.0  # all moves, relative
    hover: float = 0.08  # height before the descent
    aside: np.ndarray = field(default_factory=lambda: np.zeros(2))  # come from the end
    meet: np.ndarray = field(default_factory=lambda: np.zeros(3))  # shift of the place
    lean: float = 0.80  # of the hand that takes over
    back: float = 0.09  # distance from which it comes
    aim: np.ndarray = field(default_factory=lambda: np.zeros((2, 3)))
    yaw_error: np.ndarray = field(default_factory=lambda: np.zeros(2))
    open_to: float = 0.42
    squeeze: float = 0.4  # time to close
    early: float = 0.0  # start closing this long before the hand arrives
    release: float = 0.3  # time to open
    apart: float = 0.03  # between peg and socket before the last move
    together: bool = True  # both arms move at once where they can
    pauses: np.ndarray = field(default_factory=lambda: np.zeros(MOVES))
    pace: np.ndarray = field(default_factory=lambda: np.ones(MOVES))
    tremor: float = 0.0  # standard deviation of slow noise on the joint targets


def human_style(rng: np.random.Generator) -> Style:
    """A random style: what varies between two demonstrations of one person."""
    aim = np.column_stack(
        [rng.normal(0, 0.0015, 2), rng.normal(0, 0.004, 2), rng.uniform(0, 0.003, 2)]
    )
    return Style(
        speed=rng.uniform(0.7, 1.3),
        hover=rng.uniform(0.06, 0.10),
        meet=rng.uniform(-1, 1, 3) * np.array([0.03, 0.03, 0.03]),
        lean=rng.uniform(0.65, 0.95),
        back=rng.uniform(0.07, 0.11),
        aside=np.where(rng.random(2) < 0.5, rng.uniform(0.03, 0.06, 2), 0.0),
        aim=aim,
        yaw_error=rng.normal(0, 0.03, 2),
        open_to=rng.uniform(0.38, 0.46),
        squeeze=rng.uniform(0.3, 0.6),
        early=rng.uniform(0.0, 0.1),
        release=rng.uniform(0.25, 0.5),
        apart=rng.uniform(0.02, 0.05),
        together=bool(rng.random() < 0.5),
        pauses=np.where(rng.random(MOVES) < 0.25, rng.uniform(0.1, 0.8, MOVES), 0.0),
        pace=rng.uniform(0.8, 1.25, MOVES),
        tremor=0.003,
    )


class BimanualExpert:
    """Plans demonstrations of a task of two arms; a task's expert says the moves."""

    def __init__(self, task: Task, demonstrator: str = "scripted"):
        self.demonstrator = known(demonstrator)
        self.task = task
        self.fps = task.fps
        self._reach = HandReach()

    def plan(self, start: np.ndarray, seed: int) -> np.ndarray:
        """Actions (T, 16), rad and gripper openings, for a scene's start qpos (nq,)."""
        rng = np.random.default_rng([seed, 1])
        style = Style() if self.demonstrator == "scripted" else human_style(rng)
        duet = Duet(self.task.state(start[None])[0], self.fps, style)
        self._moves(duet, start[ARM_NQ:], style)
        actions = np.concatenate(duet.rows)
        arms = [tremor(len(actions), style.tremor, self.fps, rng, 7) for _ in "rl"]
        return actions + np.hstack(arms)

    def _moves(self, duet: "Duet", objects: np.ndarray, style: Style) -> None:
        raise NotImplementedError

    def _take(
        self, side: str, pose: np.ndarray, along: float, style: Style
    ) -> "Taking":
        """How a hand takes what lies on the table, `along` m from its middle."""
        arm = 0 if side == "right" else 1
        yaw = 2 * np.arctan2(pose[6], pose[3]) + style.yaw_error[arm]
        aim = style.aim[arm]
        along = along + aim[1]
        place = pose[:3] + turned(yaw) @ [0, along, 0]
        place[0] += aim[0]
        place[2] = max(place[2], TABLE + CLEAR) + aim[2]
        over = place + np.array([0, 0, style.hover])
        hand = turned(yaw) @ pointing(side, LEAN)
        outer = -style.aside[arm] if side == "right" else style.aside[arm]
        before = self._reach(side, over + turned(yaw) @ [0, outer, 0], hand)
        grasp = self._reach(side, place, hand, before)
        above = self._reach(side, over, hand, grasp)
        # What is held keeps its place in the hand, whose lean is what the arm can do.
        position, hand = self._reach.hand(side, grasp)
        offset = np.array([0, along, position[2] - pose[2]])
        return Taking(before, grasp, above, offset, turned(yaw).T @ hand)


@dataclass
class Taking:
    """Joint angles (7,) before, at and after a grasp, and how the hand then holds."""

    before: np.ndarray
    grasp: np.ndarray
    above: np.ndarray
    offset: np.ndarray  # (3,) m, of the hand from the object's middle, in its frame
    hand: np.ndarray  # (3, 3) orientation of the hand in the object's frame


class HandoverExpert(BimanualExpert):
    """Demonstrates `openarm_handover`."""

    MEET = np.array([0.34, 0.0, 0.54])  # m, the bar's middle where it changes hands
    GRIP = 0.034  # m from the bar's middle, along it, to each hand
    GIVE = np.array([0.32, 0.08, 0.54])  # m, where the bar ends up

    def _moves(self, duet: "Duet", objects: np.ndarray, style: Style) -> None:
        reach, wide = self._reach, style.open_to
        take = self._take("right", objects, -self.GRIP, style)
        meet = self.MEET + style.meet
        right = meet + take.offset
        r_meet = reach("right", right, take.hand, take.above)
        r_away = reach("right", right + 0.11 * take.hand[:, 2], take.hand, r_meet)
        left = meet + np.array([0, self.GRIP, 0]) + style.aim[1]
        hand = turned(style.yaw_error[1]) @ pointing("left", style.lean)
        l_wait = reach("left", left + style.back * hand[:, 2], hand)
        l_meet = reach("left", left, hand, l_wait)
        l_end = reach("left", left - meet + self.GIVE, hand, l_meet)

        duet.move(right=take.before, right_grip=wide)
        duet.move(right=take.grasp)
        duet.grip(style.squeeze, right=CLOSED)
        duet.move(right=take.above)
        if style.together:
            duet.move(right=r_meet, left=l_wait, left_grip=wide)
        else:
            duet.move(right=r_meet)
            duet.move(left=l_wait, left_grip=wide)
        duet.move(left=l_meet)
        duet.grip(style.squeeze, left=CLOSED)
        duet.grip(style.release, right=wide)
        if style.together:
            duet.move(right=r_away, left=l_end)
        else:
            duet.move(right=r_away)
            duet.move(left=l_end)
        duet.hold(0.4)


class InsertionExpert(BimanualExpert):
    """Demonstrates `openarm_insertion`."""

    MEET = np.array([0.34, 0.0, 0.54])  # m, where the opening is when the peg goes in
    PEG_GRIP = -0.040  # m from the peg's middle, along it, to the right hand
    SOCKET_GRIP = 0.043  # m from the socket's middle, along it, to the left hand
    DEPTH = 0.045  # m, how far the tip goes in

    def _moves(self, duet: "Duet", objects: np.ndarray, style: Style) -> None:
        reach, wide = self._reach, style.open_to
        peg = self._take("right", objects[:7], self.PEG_GRIP, style)
        socket = self._take("left", objects[7:], self.SOCKET_GRIP, style)
        meet = self.MEET + style.meet
        # The hands' places with the tip just at the opening.
        right = meet + peg.offset - np.array([0, PEG[1] / 2, 0])
        left = meet + socket.offset + np.array([0, CUP_DEPTH, 0])
        apart, deep = np.array([0, style.apart, 0]), np.array([0, self.DEPTH / 2, 0])
        r_before = reach("right", right - apart / 2, peg.hand, peg.above)
        l_before = reach("left", left + apart / 2, socket.hand, socket.above)
        r_in = reach("right", right + deep, peg.hand, r_before)
        l_in = reach("left", left - deep, socket.hand, l_before)

        if style.together:
            duet.move(
                right=peg.before, left=socket.before, right_grip=wide, left_grip=wide
            )
            duet.move(right=peg.grasp, left=socket.grasp)
            duet.grip(style.squeeze, right=CLOSED, left=CLOSED)
            duet.move(right=peg.above, left=socket.above)
        else:
            duet.move(right=peg.before, right_grip=wide)
            duet.move(right=peg.grasp)
            duet.grip(style.squeeze, right=CLOSED)
            duet.move(right=peg.above, left=socket.before, left_grip=wide)
            duet.move(left=socket.grasp)
            duet.grip(style.squeeze, left=CLOSED)
            duet.move(left=socket.above)
        duet.move(right=r_before, left=l_before)
        duet.move(right=r_in, left=l_in, slowly=2.0)
        duet.hold(0.4)


class Duet(Plan):
    """Joint targets of both arms, (16,) a row."""

    SHORTEST = 0.4  # s
    style: Style

    def move(
        self,
        *,
        right: np.ndarray | None = None,
        left: np.ndarray | None = None,
        right_grip: float | None = None,
        left_grip: float | None = None,
        slowly: float = 1.0,
    ) -> None:
        """Minimum-jerk move of one arm or both to joints (7,), then its pause."""
        last = self.rows[-1][-1]
        target = last.copy()
        for part, value in (
            (slice(0, 7), right),
            (7, right_grip),
            (slice(8, 15), left),
            (15, left_grip),
        ):
            if value is not None:
                target[part] = value
        arms = [*range(7), *range(8, 15)]
        seconds = self._seconds(np.abs(target - last)[arms].max())
        pace = self.style.pace[self.count]
        self._ramp(target, slowly * seconds / self.style.speed / pace)
        self._pause()

    def grip(
        self, seconds: float, *, right: float | None = None, left: float | None = None
    ) -> None:
        """Open or close a hand, or both; the arms stay, or are about to arrive."""
        before = self.rows[-1]
        target = before[-1].copy()
        for column, value in ((7, right), (15, left)):
            if value is not None:
                target[column] = value
        self._ramp(target, seconds)
        closing = target < before[-1]
        ahead = min(round(self.style.early * self.fps), len(before), len(self.rows[-1]))
        if ahead and closing.any():
            before[-ahead:, closing] = self.rows[-1][:ahead, closing]
            self.rows[-1] = self.rows[-1][ahead:]
        self.hold(0.1)


class HandReach:
    """Inverse kinematics of a hand: position and orientation to joint angles.

    One model serves both arms: the left arm's targets are mirrored into the right's.
    """

    def __init__(self):
        self.model = mujoco.MjModel.from_xml_string(
            f"<mujoco><compiler angle='radian'/><default>{openarm.defaults_xml()}"
            f"</default><worldbody>{openarm.arms_xml(('right',))}</worldbody></mujoco>"
        )
        self.configuration = mink.Configuration(self.model)
        self.task = mink.FrameTask(
            "right_grasp", "site", position_cost=1.0, orientation_cost=0.05
        )
        # Seven joints for six numbers: of all elbows, one near the one at ease.
        self.posture = mink.PostureTask(self.model, cost=2e-3)
        self.posture.set_target(np.append(REACHING, [0.0, 0.0]))

    def hand(self, side: str, joints: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Position (3,) in m and orientation (3, 3) of a hand at joint angles (7,)."""
        position, rotation = openarm.hand_pose(side, joints[None])
        return position[0] + [0, 0, SHOULDER], rotation[0]

    def __call__(
        self,
        side: str,
        position: np.ndarray,
        rotation: np.ndarray,
        seed: np.ndarray | None = None,
    ) -> np.ndarray:
        """Joint angles (7,) rad that bring a hand's fingertips around a point.

        Args:
            position: of the middle between the fingertips, m, (3,).
            rotation: of the hand, (3, 3), as `pointing` has it.
            seed: joint angles (7,) to start from; `REACHING` by default.

        Raises:
            Unreachable: the point cannot be reached to 2 cm.
        """
        mirror, flip = np.ones(7), np.eye(3)
        if side == "left":
            mirror, flip = openarm.MIRROR, np.diag([1.0, -1.0, 1.0])
        self.task.set_target(
            mink.SE3.from_rotation_and_translation(
                mink.SO3.from_matrix(flip @ rotation @ flip),
                flip @ (position - [0, 0, SHOULDER]),
            )
        )
        # An arm that gets stuck on the way from `seed` may get there from elsewhere.
        starts = [REACHING] if seed is None else [mirror * seed, REACHING]
        found = [self._solve(q) for q in starts[:1]]
        if found[0][0] > NEAR:
            found += [self._solve(q) for q in (*starts[1:], HOME_ARM)]
        error, joints = min(found, key=lambda pair: pair[0])
        if error > 2e-2:
            raise Unreachable(
                f"the {side} arm cannot reach {np.round(position, 3)} m: the nearest "
                f"it gets is {1000 * error:.0f} mm away"
            )
        return mirror * joints

    def _solve(self, q: np.ndarray) -> tuple[float, np.ndarray]:
        self.configuration.update(np.append(q, [0.0, 0.0]))
        tasks = [self.task, self.posture]
        # The arm is not linear: further than this a step leads astray.
        error = solve(self.configuration, tasks, slow=1e-4, longest=LONGEST_STEP)
        return error, self.configuration.q[:7].copy()


def pointing(side: str, lean: float) -> np.ndarray:
    """Orientation (3, 3) of a hand over something that lies along the y axis.

    The columns are the hand's axes: across, closing, back to the wrist. It leans from
    straight down by `lean` rad: the fingers point to the other hand's side.
    """
    sign = 1.0 if side == "right" else -1.0
    back = np.array([0.0, -sign * np.sin(lean), np.cos(lean)])
    closing = np.array([-1.0, 0.0, 0.0]) * sign
    return np.stack([np.cross(closing, back), closing, back], axis=1)


def turned(yaw: float) -> np.ndarray:
    """Rotation (3, 3) about the vertical by `yaw` rad."""
    c, s = np.cos(yaw), np.sin(yaw)
    return np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])
