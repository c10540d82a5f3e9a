"""Joints, names and units of LeRobot's datasets and policies.

LeRobot counts a servo's steps from the middle of the range that calibration swept, as
degrees, and the gripper from 0 (closed) to 100. Here a joint's 0 and sense are the
model's, in radians, and the gripper goes from 0 to 1. Each number is therefore a
linear function of the other.

An OpenArm's motors count in degrees there, from the same zero and with the same sense;
its gripper is closed at 0 and open at -65 degrees, the limit of LeRobot's follower.
LeRobot begins with the left arm, ours with the right one. Other arms keep their units.

Which of them a dataset has is read from the names and the values of its numbers. The
robot's type alone does not say it: LeRobot has had three conventions under one type.
What neither decides is asked for.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from ..datasets.embodiment import (
    ALOHA_ARM,
    ARM_JOINTS,
    CONVERTED,
    JOINTS,
    OPENARM_ARM,
    SIDES,
    SO_ARMS,
    TURN,
    UNITS,
    joint_names,
    lerobot_joint_names,
)
from ..support.errors import SettingError, UserError
from ..support.plugins import plugin

# LeRobot's names of features.
STATE, ENV, ACTION = "observation.state", "observation.environment_state", "action"
CAMERA = "observation.images."

PolicyUnits = Literal["keep", "so100", "so101", "openarm"]
# The middle of each joint's range in its model's frame, rad, and 1 where the servo's
# steps grow with the model's angle. Models: see hardware/so100/kinematics.py.
MIDDLE: dict[str, tuple[float, ...]] = {
    "so100": (0.0, -1.573, 1.483, 0.0, 0.0),
    "so101": (0.0, 0.0, 0.0, 0.0, 0.04868),
}
SENSE: dict[str, tuple[int, ...]] = {
    "so100": (-1, 1, 1, 1, 1),
    "so101": (1, 1, 1, 1, 1),
}
# A servo divides the turn into 4096 steps; LeRobot takes 4095 of them for 360 degrees.
DEGREES = 360 / 4095 * 4096 / (2 * math.pi)
OPEN_DEGREES = -65.0  # of an OpenArm's gripper


@dataclass(frozen=True)
class LinearMap:
    """y = scale x + offset, for each joint."""

    scale: np.ndarray  # (numbers,)
    offset: np.ndarray  # (numbers,)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        return x * self.scale + self.offset

    def inverse(self) -> "LinearMap":
        return LinearMap(1 / self.scale, -self.offset / self.scale)


def to_degrees(arm: Literal["so100", "so101", "openarm"]) -> LinearMap:
    """From our units to LeRobot's, in the order of one arm's joints.

    LeRobot's SO-100 must be used with `use_degrees=true`; without it, it counts in
    percent of whatever range one arm's calibration swept, which no policy can know.
    """
    if arm == "openarm":  # seven joints
        scale = np.append(np.full(7, 180 / math.pi), OPEN_DEGREES)
        return LinearMap(scale, 0 * scale)
    scale = np.append(np.array(SENSE[arm]) * DEGREES, 100.0)
    return LinearMap(scale, np.append(-np.array(MIDDLE[arm]), 0.0) * scale)


# ---------------------------------------------------------------- datasets

Robot = Literal["so100", "so101", "aloha", "openarm", "other"]
RobotChoice = Literal["auto", "so100", "so101", "aloha", "openarm", "other"]
DatasetUnits = Literal["auto", "degrees", "percent", "old-degrees", "same"]
ROBOTS: tuple[Robot, ...] = get_args(Robot)
DATASET_UNITS: tuple[DatasetUnits, ...] = get_args(DatasetUnits)

# Arms that have the joints' names of a SO-100, and other zeros and gears.
NAMESAKES = ("koch", "omx", "moss", "lekiwi")
SUFFIXES = ("pos", "vel", "torque")  # of LeRobot's names of numbers


@dataclass(frozen=True)
class FeatureNames:
    """What LeRobot's names say of the numbers of a state or an action.

    Attributes:
        joints: Names without suffix and prefix, one a position; of a single arm also
            without its side.
        columns: Suffix -> the columns of its numbers, in the order of `joints`.
        old: The names are those of before LeRobot's redesign of June 2025.
        width: How many numbers the names name.
        unused: Names of speeds and efforts, which are no commands.
    """

    joints: tuple[str, ...]
    columns: dict[str, np.ndarray]
    old: bool = False
    width: int = 0
    unused: tuple[str, ...] = ()


def names_of(feature: Mapping[str, Any]) -> list[str]:
    """A feature's names, [] if it has none: a list, or a dictionary of one list."""
    names = feature.get("names")
    if isinstance(names, Mapping):
        lists = [value for value in names.values() if isinstance(value, list)]
        names = lists[0] if len(lists) == 1 else None
    if not isinstance(names, list) or not all(isinstance(n, str) for n in names):
        return []
    return names


def parse_names(names: Sequence[str]) -> FeatureNames:
    """What the names of a state or an action say about its order."""
    found: dict[str, dict[str, int]] = {suffix: {} for suffix in SUFFIXES}
    for column, name in enumerate(names):
        stem, dot, suffix = name.rpartition(".")
        if not dot or suffix not in SUFFIXES:
            stem, suffix = name, "pos"
        joint = stem.lower().removeprefix("main_")
        joint = re.sub(r"joint(?=\d)", "joint_", joint)
        found[suffix].setdefault(joint, column)
    joints = tuple(found["pos"])
    sides = {joint.partition("_")[0] + "_" for joint in joints}
    columns = {
        suffix: np.array([where[joint] for joint in joints])
        for suffix, where in found.items()
        if where and set(where) == set(joints)
    }
    marked = tuple(f"{start}{j}" for start in ("main_", *SIDES) for j in JOINTS)
    old = bool(names) and all(name in marked for name in names)
    unused = tuple(n for n in names if n.rpartition(".")[2] in ("vel", "torque"))
    if len(sides) == 1 and sides <= set(SIDES):
        joints = tuple(joint.partition("_")[2] for joint in joints)
    return FeatureNames(joints, columns, old, len(names), unused)


def _arm_of(joints: Sequence[str]) -> str:
    """Whose joints have such names: "so", "openarm", "aloha" or ""."""
    for arm, names in (("so", JOINTS), ("openarm", OPENARM_ARM), ("aloha", ALOHA_ARM)):
        both = [side + name for side in SIDES for name in names]
        if sorted(joints) in (sorted(names), sorted(both)):
            return arm
    return ""


@dataclass(frozen=True)
class LeRobotJoints:
    """What LeRobot calls one robot's joints, and how their numbers are converted.

    Attributes:
        robot: One of ROBOTS.
        units: "degrees", "percent" (-100 to 100 of each joint's range), "old-degrees"
            (before LeRobot's redesign) or "same".
        to_lerobot: From our numbers of one arm to LeRobot's; None if they are the same.
        labels: Names of another robot's numbers, where they are known.
    """

    robot: str
    units: str
    to_lerobot: LinearMap | None = None
    labels: tuple[str, ...] = ()

    def robot_type(self, width: int) -> str:
        """What info.json calls a robot of `width` joints, and if they are radians."""
        if self.robot not in CONVERTED:
            return self.robot
        both = "bi_" if width == 2 * len(ARM_JOINTS[self.robot]) else ""
        kind = "radians" if self.to_lerobot is None else "follower"
        return f"{both}{self.robot}_{kind}"

    @property
    def our_units(self) -> str:
        return UNITS if self.robot in CONVERTED else ""

    def our_names(self, width: int) -> list[str]:
        """What our `width` numbers are called, in our order; [] where it is unknown."""
        if len(self.labels) == width:
            return list(self.labels)
        return joint_names(self.robot, width)

    def their_names(self, width: int) -> list[str]:
        """What LeRobot calls the `width` numbers of a state or an action."""
        theirs = lerobot_joint_names(self.robot, width)
        if theirs:
            return theirs if self.robot == "aloha" else [f"{j}.pos" for j in theirs]
        return self.our_names(width) or [f"number_{i}" for i in range(width)]

    def theirs(self, ours: np.ndarray, *, speed: bool = False) -> np.ndarray:
        """(T, S) positions, or speeds a second, in LeRobot's units: float32.

        UserError if S is not the number of joints of one or several such arms.
        """
        return self.in_their_order(self._convert(ours, self.to_lerobot, speed))

    def ours(
        self, theirs: np.ndarray, joints: Sequence[str] = (), *, speed: bool = False
    ) -> np.ndarray:
        """The inverse of `theirs`; `joints` are the names in the dataset's order."""
        back = None if self.to_lerobot is None else self.to_lerobot.inverse()
        return self._convert(self.in_our_order(theirs, joints), back, speed)

    def in_their_order(self, array: np.ndarray) -> np.ndarray:
        """(T, S) from our order to LeRobot's: the left arm first."""
        width = array.shape[1]
        ours = joint_names(self.robot, width)
        order = [ours.index(j) for j in lerobot_joint_names(self.robot, width)]
        return array[:, order] if order else array

    def in_our_order(self, array: np.ndarray, joints: Sequence[str] = ()) -> np.ndarray:
        """(T, S) from LeRobot's order to ours; other names say nothing about it."""
        width = array.shape[1]
        ours = joint_names(self.robot, width)
        theirs = list(joints) or lerobot_joint_names(self.robot, width)
        if not ours or sorted(ours) != sorted(theirs):
            return array
        return array[:, [theirs.index(joint) for joint in ours]]

    def _convert(
        self, array: np.ndarray, units: LinearMap | None, speed: bool
    ) -> np.ndarray:
        if units is None:
            return np.asarray(array, np.float32)
        (frames, width), arm = array.shape, len(ARM_JOINTS[self.robot])
        if width % arm:
            raise UserError(
                f"{width} numbers a frame, expected {arm} an arm for a "
                f"{self.robot}; other robots need units 'same'"
            )
        wide = np.asarray(array, np.float64).reshape(frames, -1, arm)
        zero = units(np.zeros(arm)) if speed else 0.0  # speeds have no offset
        return (units(wide) - zero).reshape(frames, width).astype(np.float32)


def lerobot_joints(
    robot: str, units: str = "auto", labels: Sequence[str] = ()
) -> LeRobotJoints:
    """The joints of a robot of ROBOTS.

    Args:
        robot: Whose numbers.
        units: What LeRobot's side has: "auto" is degrees for a SO-100, a SO-101 or
            OpenArms, and the same numbers for all others. "percent" is what LeRobot has
            without `use_degrees`: -100 to 100 of what each joint's calibration swept,
            for which the arm's mechanical range is taken here; it is as good as that
            sweep was. "old-degrees" are a SO-100's from before June 2025.
        labels: Names of the numbers, for other robots.

    Raises:
        SettingError: An unknown robot or unit, or a unit that the robot does not have.
    """
    if robot not in ROBOTS:
        raise SettingError(f"robot is {robot!r}, expected one of: {', '.join(ROBOTS)}")
    if units not in DATASET_UNITS:
        known = ", ".join(DATASET_UNITS)
        raise SettingError(f"units are {units!r}, expected one of: {known}")
    if units == "auto":
        units = "degrees" if robot in CONVERTED else "same"
    if units == "same":
        named = () if joint_names(robot, len(labels)) else tuple(labels)
        return LeRobotJoints(robot, units, labels=named)
    if robot == "openarm" and units == "degrees":
        return LeRobotJoints(robot, units, to_degrees(robot))
    if robot != "so100" and robot != "so101":
        which = "a SO-100 or SO-101" + (", or an OpenArm," * (units == "degrees"))
        allowed = "'degrees' or 'same'" if robot == "openarm" else "'same'"
        raise SettingError(
            f"units are {units!r}, which only {which} has; the robot is "
            f"{robot!r}, expected units {allowed}"
        )
    degrees = to_degrees(robot)
    scale, offset = degrees.scale, degrees.offset
    if units == "percent":
        arm = plugin("so_arms")[robot]
        half = np.ptp(arm.ranges, axis=1) / 2 * DEGREES
        half[JOINTS.index("wrist_roll")] = 180.0  # it has no stops: a whole turn
        half[JOINTS.index("gripper")] = 100.0  # 0 to 100 already
        scale, offset = scale * 100 / half, offset * 100 / half
    if units == "old-degrees":
        # LeRobot's page on backward compatibility: the newer shoulder_lift is
        # -(old - 90), the newer elbow_flex is old - 90, all others are as they were.
        lift, elbow = JOINTS.index("shoulder_lift"), JOINTS.index("elbow_flex")
        scale[lift], offset[lift] = -scale[lift], 90 - offset[lift]
        offset[elbow] += 90
    return LeRobotJoints(robot, units, LinearMap(scale, offset))


def robot_of_episode(attributes: Mapping[str, Any], width: int) -> str:
    """Which robot an episode of ours is of, by what its recorder wrote into it."""
    for key in ("robot", "task"):
        name = str(attributes.get(key, ""))
        for robot in ROBOTS:
            if name.startswith(robot):
                return robot
    named = attributes.get("robot") or attributes.get("joints")  # another arm's
    return "aloha" if width == 14 and not named else "other"


# --- what a dataset has ---------------------------------------------------------------


def recognise_joints(
    info: Mapping[str, Any],
    keys: Sequence[str],
    where: str,
    robot: str,
    units: str,
    extremes: Callable[[], np.ndarray | None],
) -> LeRobotJoints:
    """The joints of a dataset that somebody else wrote.

    Args:
        keys: The features of the state and of the action.
        where: What messages call info.json.
        robot: One of ROBOTS, or "auto": by the names of the numbers and robot_type.
        units: One of DATASET_UNITS; "auto": by the names and the values.
        extremes: Gives (2, S), the least and the greatest of each number of the state;
            None where no file can be read. Called only if it matters.

    Raises:
        UserError: Nothing decides on the robot, the units or the order; says which flag
            does.
    """
    names, commands = (names_of(info["features"][key]) for key in keys)
    state, action = parse_names(names), parse_names(commands)
    kind, implied = _arm_of(state.joints), "auto"
    if robot == "auto":
        said = info.get("robot_type")
        robot, implied = _robot_of(said, kind, names, where, units)
    for key, found in zip(keys, (state, action), strict=True):
        if robot == "openarm" and _arm_of(found.joints) != "openarm":
            raise UserError(
                f"{where}: {key} has the names {list(found.joints) or None}, expected "
                "an OpenArm's, like left_joint_1.pos, which say whose arm comes first; "
                "--robot other keeps the numbers as they are"
            )
    same = (sorted(state.joints), state.old) == (sorted(action.joints), action.old)
    if robot in SO_ARMS and kind == "so" and action.joints and not same:
        raise UserError(
            f"{where}: {keys[0]} is named {names}, {keys[1]} {commands}, expected the "
            "same joints in both; --robot other keeps the numbers as they are"
        )
    if units == "auto":
        units = implied
    if units == "auto" and robot in CONVERTED:
        units = _units_of(robot, state, kind, names, where, extremes())
    return lerobot_joints(robot, units, names)


def _robot_of(
    robot_type: object, kind: str, names: Sequence[str], where: str, units: str
) -> tuple[str, DatasetUnits]:
    also = ", and its units with --units" if units == "auto" else ""
    ask = f"; say which with: --robot so100 or --robot so101 (other keeps them){also}"
    robot, implied = robot_of_type(robot_type, where, also)
    said = re.sub(r"[^a-z]", "", str(robot_type or "").lower())
    if robot in SO_ARMS and kind != "so":
        raise UserError(
            f"{where}: robot_type is {robot_type!r}, but the numbers of the state are "
            f"named {names or 'nowhere'}, expected {', '.join(JOINTS)}{ask}"
        )
    if robot == "other" and kind == "openarm":
        return "openarm", implied if said.endswith("radians") else "auto"
    if robot == "other" and kind == "so" and not said.startswith(NAMESAKES):
        raise UserError(
            f"{where}: the joints are named like a SO-100's or SO-101's, whose zeros "
            f"differ, and robot_type {robot_type!r} does not say which{ask}"
        )
    return robot, implied


def _units_of(
    robot: str,
    state: FeatureNames,
    kind: str,
    names: Sequence[str],
    where: str,
    extremes: np.ndarray | None,
) -> DatasetUnits:
    """What the values say about units that names leave open."""
    wide = extremes is not None and state.width in (0, extremes.shape[1])
    if extremes is None or not wide:  # reading says what is wrong
        return "degrees"
    if "pos" in state.columns:
        extremes = extremes[:, state.columns["pos"]]
    joints = list(state.joints) or [f"number {i}" for i in range(extremes.shape[1])]
    turning = [i for i, joint in enumerate(joints) if "gripper" not in joint]
    reach = float(np.abs(extremes[:, turning]).max(initial=0.0))
    if robot == "openarm":
        if reach > TURN:
            return "degrees"
        choice = "degrees or --units same (radians)"
        why = f"the joints stay within {reach:.2f}, which may be degrees or radians"
    elif state.old and reach > TURN:
        return "old-degrees"
    elif kind == "so" and names[0].endswith(".pos") and reach > 100.5:
        return "degrees"  # percent ends at 100
    else:
        choice = "degrees or --units percent"
        if kind != "so" or not names[0].endswith(".pos"):
            choice += " or --units old-degrees (before June 2025)"
        if reach <= TURN:
            choice += " or --units same (radians)"
        why = (
            "from June 2025 to February 2026 LeRobot recorded percent of each joint's "
            "sweep under the names of degrees, and nothing here says which these are"
        )
        if pinned := [joints[i] for i in turning if 100.0 in np.abs(extremes[:, i])]:
            why += f" ({', '.join(pinned)} ending at exactly 100 hints at percent)"
    raise UserError(f"{where}: {why}; say which with: --units {choice}")


def robot_of_type(
    robot_type: object, where: str, also: str = ""
) -> tuple[str, DatasetUnits]:
    """The robot that a dataset's `robot_type` means, and the units that it implies.

    UserError, with `also`, if it may be a SO-100 or a SO-101, whose zeros differ.
    """
    name = str(robot_type or "").lower().replace("-", "")
    for robot in ROBOTS:
        if robot in name:
            return robot, "same" if name.endswith("_radians") else "auto"
    if name in ("so_follower", "bi_so_follower"):
        raise UserError(
            f"{where}: robot_type is {robot_type!r}, a SO-100 or a SO-101, whose zeros "
            f"differ; say which with: --robot so100 or --robot so101{also}"
        )
    return "other", "same"


def check_names(names: Sequence[str], where: str) -> None:
    """UserError for a camera's name that LeRobot cannot have as a part of a key."""
    for name in names:
        if not name or set(name) & set("/\\{}"):
            raise UserError(f"{where}: {name!r} is no name for a camera in a dataset")
