"""Demonstrators for `so100_pick_place`: plans of joint targets, one a control tick.

A demonstrator sees the start of a scene and plans the whole episode: waypoints in
space, inverse kinematics (mink), minimum-jerk moves between them. `scripted` is clean
and a function of the scene alone; `human` varies speed, pauses, approach, aim and
gripper timing from one demonstration to the next, as people do.
"""

from dataclasses import dataclass, field
from typing import Protocol

import mink
import mujoco
import numpy as np

from ...support.errors import UserError
from ..world import Task, Unreachable
from . import arm as so100
from .pick_place import BIN_CENTRE

PAN_AXIS = np.array([0.0, -0.0452])  # m, where the shoulder turns
GRASP_ABOVE = 0.004  # m over the cube's middle: the leaning fingers clear the table
OPEN, CLOSED = 0.75, 0.02  # gripper openings
DEMONSTRATORS = ("scripted", "human")


class PlanStyle(Protocol):
    """What a plan asks of a style."""

    speed: float
    pauses: np.ndarray
    pace: np.ndarray


@dataclass
class Style:
    """How one demonstration is done; the defaults are the scripted expert's.

    Lengths in m, angles in rad, times in s.
    """

    speed: float = 1.0  # all moves, relative
    approach: str = "above"  # or "slide": low from the base's side, then outwards
    hover: float = 0.07  # height over the cube before the descent
    carry: float = 0.11  # height of the cube's carriage
    grasp_error: np.ndarray = field(default_factory=lambda: np.zeros(3))
    yaw_error: float = 0.0
    drop_error: np.ndarray = field(default_factory=lambda: np.zeros(2))
    open_to: float = OPEN
    squeeze: float = 0.45  # time to close on the cube
    early: float = 0.0  # start closing this long before the descent ends
    release: float = 0.3  # time to open over the bin
    pauses: np.ndarray = field(default_factory=lambda: np.zeros(6))  # after each move
    pace: np.ndarray = field(default_factory=lambda: np.ones(6))  # of each move
    tremor: float = 0.0  # standard deviation of slow noise on the joint targets


def human_style(rng: np.random.Generator) -> Style:
    """A random style: what varies between two demonstrations of one person."""
    pauses = np.where(rng.random(6) < 0.3, rng.uniform(0.1, 1.2, 6), 0.0)
    return Style(
        speed=rng.uniform(0.6, 1.4),
        approach="above" if rng.random() < 0.5 else "slide",
        hover=rng.uniform(0.05, 0.09),
        carry=rng.uniform(0.09, 0.13),
        grasp_error=np.array([*rng.normal(0, 0.002, 2), rng.uniform(-0.003, 0.003)]),
        yaw_error=rng.normal(0, 0.05),
        drop_error=rng.uniform(-0.012, 0.012, 2),
        open_to=rng.uniform(0.68, 0.82),
        squeeze=rng.uniform(0.35, 0.7),
        early=rng.uniform(0.0, 0.15),
        release=rng.uniform(0.2, 0.5),
        pauses=pauses,
        pace=rng.uniform(0.8, 1.25, 6),
        tremor=0.006,
    )


def known(demonstrator: str) -> str:
    """The same name; UserError if there is no such demonstrator."""
    if demonstrator not in DEMONSTRATORS:
        raise UserError(
            f"no demonstrator '{demonstrator}'; the demonstrators are: "
            f"{', '.join(DEMONSTRATORS)}"
        )
    return demonstrator


class Expert:
    """Plans demonstrations of the pick-and-place task."""

    def __init__(self, task: Task, demonstrator: str = "scripted"):
        self.demonstrator = known(demonstrator)
        self.fps = task.fps
        self._ik = Reach()

    def plan(self, start: np.ndarray, seed: int) -> np.ndarray:
        """Actions (T, 6), rad and gripper opening, for a scene's start qpos (13,)."""
        rng = np.random.default_rng([seed, 1])
        style = Style() if self.demonstrator == "scripted" else human_style(rng)
        first = np.append(start[:5], so100.jaw_to_gripper(start[5]))
        actions = self._moves(first, start[6:], style)
        return actions + tremor(len(actions), style.tremor, self.fps, rng)

    def _moves(self, first: np.ndarray, scene: np.ndarray, style: Style) -> np.ndarray:
        cube = scene[:7]
        yaw = 2 * np.arctan2(cube[6], cube[3]) + style.yaw_error
        grasp = cube[:3] + np.array([0, 0, GRASP_ABOVE]) + style.grasp_error
        out = grasp[:2] - PAN_AXIS
        out /= np.linalg.norm(out)

        if style.approach == "above":
            before = grasp + np.array([0, 0, style.hover])
        else:
            before = grasp + np.array([*(-0.035 * out), 0.6 * style.hover])
        reach, seed = self._ik, first[:5]
        j_before = reach(before, yaw, seed)
        j_grasp = reach(grasp, yaw, j_before)

        track = Track(first, self.fps, style)
        track.move(j_before, style.open_to)
        track.move(j_grasp, style.open_to)
        track.grip(CLOSED, style.squeeze, early=style.early)
        self._deliver(track, j_grasp, grasp[:2], yaw, style)
        return np.concatenate(track.rows)

    def _deliver(
        self,
        track: "Track",
        joints: np.ndarray,
        xy: np.ndarray,
        yaw: float,
        style: Style,
    ) -> None:
        """From a grasp at `xy`, with joints (5,), up, over the bin, and let go."""
        bin_xy, reach = BIN_CENTRE + style.drop_error, self._ik
        j_above = reach(np.array([*xy, style.carry]), yaw, joints)
        j_over = reach(np.array([*bin_xy, style.carry]), None, j_above)
        j_in = reach(np.array([*bin_xy, 0.055]), None, j_over)
        track.move(j_above, CLOSED)
        track.move(j_over, CLOSED)
        track.move(j_in, CLOSED)
        track.grip(style.open_to, style.release)
        track.move(j_over, style.open_to)
        track.hold(0.3)


class BeltExpert(Expert):
    """Plans demonstrations of `so100_belt`: the hand goes along with the cube."""

    TAKES_UP = 0.3  # s in which the hand takes up the belt's speed
    DESCENT = 0.6  # s, at speed 1

    def _moves(self, first: np.ndarray, scene: np.ndarray, style: Style) -> np.ndarray:
        cube, speed = scene[:7], np.array([scene[8], 0.0, 0.0])  # m/s
        yaw = 2 * np.arctan2(cube[6], cube[3]) + style.yaw_error
        offset = np.array([0, 0, GRASP_ABOVE]) + style.grasp_error
        hover = np.array([0, 0, style.hover])
        reach, late = self._ik, 3.0  # s, when the hand is over the cube: a first guess
        for _ in range(5):
            track = Track(first, self.fps, style)
            meeting = cube[:3] + speed * (late + self.TAKES_UP / 2) + offset
            track.move(reach(meeting + hover, yaw, first[:5]), style.open_to)
            late = sum(map(len, track.rows)) / self.fps
        joints = track.rows[-1][-1, :5]
        # Along with the cube, down to it; and the jaw closes.
        down = self.DESCENT / (style.speed * style.pace[1]) + style.pauses[1]
        seconds = self.TAKES_UP + down + style.squeeze + 0.1
        for tick in range(1, round(seconds * self.fps) + 1):
            t = tick / self.fps
            gone = t - self.TAKES_UP / 2
            if t < self.TAKES_UP:
                gone = t**2 / (2 * self.TAKES_UP)
            s = np.clip((t - self.TAKES_UP) / down, 0, 1)
            lower = 1 - s**3 * (10 - 15 * s + 6 * s**2)
            closing = (t - self.TAKES_UP - down + style.early) / style.squeeze
            jaw = np.interp(closing, [0, 1], [style.open_to, CLOSED])
            place = meeting + speed * gone + lower * hover
            joints = reach(place, yaw, joints)
            track.rows.append(np.append(joints, jaw)[None])
        track.count = 2
        self._deliver(track, joints, place[:2], yaw, style)
        return np.concatenate(track.rows)


class Plan:
    """Targets, one row a tick, appended move by move as fast as the style has it."""

    PEAK_SPEED = 1.5  # rad/s of the fastest joint, at speed 1
    SHORTEST = 0.35  # s: even a small move starts and stops gently

    def __init__(self, first: np.ndarray, fps: int, style: "PlanStyle"):
        self.rows = [first[None]]
        self.fps, self.style = fps, style
        self.count = 0  # moves so far

    def hold(self, seconds: float) -> None:
        steps = max(round(seconds * self.fps), 1)
        self.rows.append(np.repeat(self.rows[-1][-1:], steps, axis=0))

    def _seconds(self, distance: float) -> float:
        """What a move takes in which the fastest joint turns by `distance` rad."""
        # A minimum-jerk move peaks at 1.875 times its mean speed.
        return max(1.875 * distance / self.PEAK_SPEED, self.SHORTEST)

    def _ramp(self, target: np.ndarray, seconds: float) -> None:
        last = self.rows[-1][-1]
        steps = max(round(seconds * self.fps), 2)
        s = np.linspace(0, 1, steps + 1)[1:, None]  # (T, 1)
        s = s**3 * (10 - 15 * s + 6 * s**2)
        self.rows.append(last + s * (target - last))

    def _pause(self) -> None:
        if self.style.pauses[self.count]:
            self.hold(self.style.pauses[self.count])
        self.count += 1


class Track(Plan):
    """Joint targets of one arm, (6,) a row."""

    def move(self, joints: np.ndarray, gripper: float) -> None:
        """Minimum-jerk move to joints (5,), then this move's pause."""
        seconds = self._seconds(np.abs(joints - self.rows[-1][-1, :5]).max())
        seconds /= self.style.speed * self.style.pace[self.count]
        self._ramp(np.append(joints, gripper), seconds)
        self._pause()

    def grip(self, gripper: float, seconds: float, early: float = 0.0) -> None:
        """Move the jaw to an opening, beginning `early` s before the arm arrives."""
        steps = round(seconds * self.fps)
        ahead = min(round(early * self.fps), steps, len(self.rows[-1]))
        ramp = np.linspace(self.rows[-1][-1, 5], gripper, steps + 1)[1:]
        if ahead:
            self.rows[-1][-ahead:, 5] = ramp[:ahead]
        rest = np.repeat(self.rows[-1][-1:], steps - ahead + 3, axis=0)
        rest[: steps - ahead, 5], rest[steps - ahead :, 5] = ramp[ahead:], gripper
        self.rows.append(rest)


class Reach:
    """Inverse kinematics of the grasp point: position, yaw, and a sensible tilt."""

    def __init__(self):
        self.model = mujoco.MjModel.from_xml_string(
            f"<mujoco><compiler angle='radian'/><worldbody>{so100.arm_xml()}"
            "</worldbody></mujoco>"
        )
        self.configuration = mink.Configuration(self.model)
        self.task = mink.FrameTask(
            "grasp", "site", position_cost=1.0, orientation_cost=0.01, lm_damping=1e-4
        )

    def __call__(
        self, position: np.ndarray, yaw: float | None, seed: np.ndarray
    ) -> np.ndarray:
        """Joint angles (5,) rad that bring the fingers over a point.

        Args:
            position: of the grasp point, m, (3,).
            yaw: of the cube in rad: the fingers close along its x axis; None keeps
                the wrist as the arm's plane has it.
            seed: joint angles (5,) to start from.

        Raises:
            Unreachable: the point cannot be reached to 2 cm.
        """
        rotation = self._rotation(position, yaw)
        self.task.set_target(
            mink.SE3.from_rotation_and_translation(
                mink.SO3.from_matrix(rotation), position
            )
        )
        self.configuration.update(np.append(seed, 0.5))
        error = solve(self.configuration, [self.task], near=5e-4, slow=1e-3)
        if error > 2e-2:
            raise Unreachable(
                f"the arm cannot reach {np.round(position, 3)} m: the nearest it gets "
                f"is {1000 * error:.0f} mm away"
            )
        return self.configuration.q[:5].copy()

    def _rotation(self, position: np.ndarray, yaw: float | None) -> np.ndarray:
        outward = position[:2] - PAN_AXIS
        radius = np.linalg.norm(outward)
        outward = outward / radius
        # Straight down near the base; far out the wrist cannot, so lean outwards.
        tilt = np.interp(radius, [0.16, 0.28], [0.0, 0.15])
        approach = np.array([*np.sin(tilt) * outward, -np.cos(tilt)])
        side = np.arctan2(outward[1], outward[0]) + np.pi / 2  # 0 when pan is 0
        # The wrist follows the cube's yaw. Turning to whichever pair of faces is
        # nearer would save motion and cost a jump: two equal cubes a degree apart
        # would be grasped a quarter turn apart.
        turn = side if yaw is None else yaw
        x = np.array([np.cos(turn), np.sin(turn), 0.0])
        y = -approach
        x = x - (x @ y) * y
        x /= np.linalg.norm(x)
        return np.stack([x, y, np.cross(x, y)], axis=1)


def solve(
    configuration: mink.Configuration,
    tasks: list,
    *,
    near: float = np.inf,
    slow: float,
    longest: float = np.inf,
) -> float:
    """Inverse kinematics from where the configuration is.

    Ends nearer than `near` m, when no joint moves by `slow` rad; a step is at most
    `longest` rad. Returns how far, in m, the first task's frame is from its target.
    """
    limits = [mink.ConfigurationLimit(configuration.model)]
    error = np.inf
    for _ in range(60):
        velocity = mink.solve_ik(configuration, tasks, 1.0, "daqp", 1e-6, limits=limits)
        fastest = np.abs(velocity).max()
        velocity *= min(1.0, longest / max(fastest, 1e-9))
        configuration.integrate_inplace(velocity, 1.0)
        error = np.linalg.norm(tasks[0].compute_error(configuration)[:3])
        if error < near and fastest < slow:
            break
    return float(error)


def tremor(
    steps: int, scale: float, fps: int, rng: np.random.Generator, joints: int = 5
) -> np.ndarray:
    """Slowly varying noise (Ornstein-Uhlenbeck, 0.15 s) on one arm's joint targets.

    (T, joints + 1) rad; the last column, the gripper's, is 0.
    """
    noise = np.zeros((steps, joints + 1))
    if scale == 0:
        return noise
    keep = np.exp(-1 / (0.15 * fps))
    kicks = rng.normal(0, scale * np.sqrt(1 - keep**2), (steps, joints))
    for t in range(1, steps):
        noise[t, :joints] = keep * noise[t - 1, :joints] + kicks[t]
    return noise
