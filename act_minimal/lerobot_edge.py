"""Units and names at the edge between episodes here and LeRobot's datasets.

Here: radians, and a gripper from 0 (closed) to 1 (open). There, for a SO-100 or SO-101:
degrees that grow with the servo's steps and are 0 in the middle of the swept range, and
a gripper from 0 to 100 (`lerobot_units.py` has the lines); for OpenArms: the motors'
degrees, and a gripper from 0 (closed) to -65 degrees. Other arms keep theirs.

Which of them a dataset has is read from the names and the values of its numbers. The
robot's type alone does not say it: LeRobot has had three conventions under one type.
What neither decides is asked for.
"""

import importlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from act_minimal.errors import SettingError, UserError
from act_minimal.joints import (
    ALOHA_ARM,
    ARM_JOINTS,
    OPENARM_ARM,
    SIDES,
    SO_ARMS,
    TURN,
    joint_names,
)
from act_minimal.lerobot_units import DEGREES, JOINTS, Line, to_degrees

Robot = Literal["so100", "so101", "aloha", "openarm", "other"]
RobotChoice = Literal["auto", "so100", "so101", "aloha", "openarm", "other"]
Units = Literal["auto", "degrees", "percent", "old-degrees", "same"]
ROBOTS = ("so100", "so101", "aloha", "openarm", "other")
UNITS = ("auto", "degrees", "percent", "old-degrees", "same")

# Arms that have the joints' names of a SO-100, and other zeros and gears.
NAMESAKES = ("koch", "omx", "moss", "lekiwi")
KINDS = {"pos": "", "vel": "velocity", "torque": "effort"}  # endings of names there


@dataclass(frozen=True)
class Layout:
    """Which numbers of a row are what, by their names there.

    Attributes:
        joints: Names without ending and prefix, one a position; of a single arm also
            without its side.
        places: Ending of KINDS -> where its numbers are, in the order of `joints`;
            missing where there are none.
        old: The names are those of before LeRobot's redesign of June 2025.
        width: How many numbers the names name.
        unused: Names of speeds and efforts, which are no commands.
    """

    joints: tuple[str, ...]
    places: dict[str, np.ndarray]
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


def layout_of(names: Sequence[str]) -> Layout:
    """What the names of a state or an action say about its order."""
    kinds: dict[str, dict[str, int]] = {kind: {} for kind in KINDS}
    for place, name in enumerate(names):
        stem, dot, ending = name.rpartition(".")
        kind = ending if dot and ending in KINDS else "pos"
        bare = (stem if dot and ending in KINDS else name).lower()
        bare = re.sub(r"joint(?=\d)", "joint_", bare.removeprefix("main_"))
        kinds[kind].setdefault(bare, place)
    joints = tuple(kinds["pos"])
    sides = {joint.partition("_")[0] + "_" for joint in joints}
    one = len(sides) == 1 and sides <= set(SIDES)
    places = {
        kind: np.array([found[joint] for joint in joints])
        for kind, found in kinds.items()
        if found and set(found) == set(joints)
    }
    marked = tuple(f"{start}{j}" for start in ("main_", *SIDES) for j in JOINTS)
    old = bool(names) and all(name in marked for name in names)
    unused = tuple(n for n in names if n.rpartition(".")[2] in ("vel", "torque"))
    if one:
        joints = tuple(joint.partition("_")[2] for joint in joints)
    return Layout(joints, places, old, len(names), unused)


def _arm_of(joints: Sequence[str]) -> str:
    """Whose joints have such names: "so", "openarm", "aloha" or ""."""
    for arm, names in (("so", JOINTS), ("openarm", OPENARM_ARM), ("aloha", ALOHA_ARM)):
        both = [side + name for side in SIDES for name in names]
        if sorted(joints) in (sorted(names), sorted(both)):
            return arm
    return ""


@dataclass(frozen=True)
class Edge:
    """What the numbers of one robot are called there, and how they are converted.

    Attributes:
        robot: One of ROBOTS.
        units: "degrees", "percent" (-100 to 100 of each joint's range), "old-degrees"
            (before LeRobot's redesign) or "same".
        line: From our numbers of one arm to LeRobot's; None where they are the same.
        labels: Names of another robot's numbers, where they are known.
    """

    robot: str
    units: str
    line: Line | None = None
    labels: tuple[str, ...] = ()

    def robot_type(self, width: int) -> str:
        """What info.json calls a robot of `width` joints, and if they are radians."""
        if self.robot not in (*SO_ARMS, "openarm"):
            return self.robot
        both = "bi_" if width == 2 * len(ARM_JOINTS[self.robot]) else ""
        return f"{both}{self.robot}_{'radians' if self.line is None else 'follower'}"

    @property
    def inside(self) -> str:
        """Our side's units: "rad" where that is known."""
        return "rad" if self.robot in (*SO_ARMS, "openarm") else ""

    def joints(self, width: int) -> list[str]:
        """What our `width` numbers are called, in our order; [] where it is unknown."""
        if len(self.labels) == width:
            return list(self.labels)
        return joint_names(self.robot, width)

    def there(self, positions: np.ndarray, *, speed: bool = False) -> np.ndarray:
        """(T, S) positions, or speeds a second, in LeRobot's units: float32.

        Raises:
            UserError: S is not the number of joints of one or several such arms.
        """
        return self.ordered(self._convert(positions, self.line, speed))

    def here(
        self,
        positions: np.ndarray,
        joints: Sequence[str] = (),
        *,
        speed: bool = False,
    ) -> np.ndarray:
        """The inverse of `there`.

        Args:
            positions: (T, S) in LeRobot's units.
            joints: What a layout calls them; by default the order is our exports'.
            speed: Whether they are speeds.
        """
        back = None if self.line is None else self.line.inverse()
        return self._convert(self.sorted(positions, joints), back, speed)

    def ordered(self, array: np.ndarray) -> np.ndarray:
        """(T, S) from our order to LeRobot's: the left arm first."""
        ours = joint_names(self.robot, array.shape[1])
        if not ours:
            return array
        return array[:, [ours.index(joint) for joint in self._theirs(array.shape[1])]]

    def sorted(self, array: np.ndarray, joints: Sequence[str] = ()) -> np.ndarray:
        """(T, S) from LeRobot's order to ours; other names say nothing about it."""
        width = array.shape[1]
        ours, theirs = joint_names(self.robot, width), list(joints)
        theirs = theirs or self._theirs(width)
        if not ours or sorted(ours) != sorted(theirs):
            return array
        return array[:, [theirs.index(joint) for joint in ours]]

    def _theirs(self, width: int) -> list[str]:
        """LeRobot's order of the joints' names: sorted by side, left first."""
        ours = joint_names(self.robot, width)
        return sorted(ours, key=lambda name: name.startswith(SIDES[1]))

    def _convert(
        self, array: np.ndarray, line: Callable | None, speed: bool
    ) -> np.ndarray:
        if line is None:
            return np.asarray(array, np.float32)
        (frames, width), arm = array.shape, len(ARM_JOINTS[self.robot])
        if width % arm:
            raise UserError(
                f"{width} numbers a frame, expected {arm} an arm for a "
                f"{self.robot}; other robots need units 'same'"
            )
        wide = np.asarray(array, np.float64).reshape(frames, -1, arm)
        zero = line(np.zeros(arm)) if speed else 0.0  # speeds have no offset
        return (line(wide) - zero).reshape(frames, width).astype(np.float32)

    def names(self, width: int) -> list[str]:
        """What LeRobot calls the `width` numbers of a state or an action."""
        theirs = self._theirs(width)
        if theirs:
            return theirs if self.robot == "aloha" else [f"{j}.pos" for j in theirs]
        return self.joints(width) or [f"number_{i}" for i in range(width)]


def make_edge(robot: str, units: str = "auto", labels: Sequence[str] = ()) -> Edge:
    """The edge of a robot of ROBOTS.

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
    if units not in UNITS:
        raise SettingError(f"units are {units!r}, expected one of: {', '.join(UNITS)}")
    if units == "auto":
        units = "degrees" if robot in (*SO_ARMS, "openarm") else "same"
    if units == "same":
        named = () if joint_names(robot, len(labels)) else tuple(labels)
        return Edge(robot, units, labels=named)
    if robot == "openarm" and units == "degrees":
        return Edge(robot, units, to_degrees(robot))
    if robot != "so100" and robot != "so101":
        which = "a SO-100 or SO-101" + (", or an OpenArm," * (units == "degrees"))
        allowed = "'degrees' or 'same'" if robot == "openarm" else "'same'"
        raise SettingError(
            f"units are {units!r}, which only {which} has; the robot is "
            f"{robot!r}, expected units {allowed}"
        )
    line = to_degrees(robot)
    if units == "percent":
        arm = importlib.import_module("hardware.so100.kinematics").ARMS[robot]
        half = np.ptp(arm.ranges, axis=1) / 2 * DEGREES
        half[JOINTS.index("wrist_roll")] = 180.0  # it has no stops: a whole turn
        half[JOINTS.index("gripper")] = 100.0  # 0 to 100 already
        line = Line(line.scale * 100 / half, line.offset * 100 / half)
    if units == "old-degrees":
        # LeRobot's page on backward compatibility: the newer shoulder_lift is
        # -(old - 90), the newer elbow_flex is old - 90, all others are as they were.
        scale, offset = line.scale.copy(), line.offset.copy()
        lift, elbow = JOINTS.index("shoulder_lift"), JOINTS.index("elbow_flex")
        scale[lift], offset[lift] = -scale[lift], 90 - offset[lift]
        offset[elbow] += 90
        line = Line(scale, offset)
    return Edge(robot, units, line)


def edge_to_write(robot: str, units: str, labels: Sequence[str] = ()) -> Edge:
    """The edge of a dataset that is written now: never with the old zeros."""
    return make_edge(robot, "degrees" if units == "old-degrees" else units, labels)


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


def find_edge(
    info: Mapping[str, Any],
    keys: Sequence[str],
    where: str,
    robot: str,
    units: str,
    extremes: Callable[[], np.ndarray | None],
) -> Edge:
    """The edge of a dataset that somebody else wrote.

    Args:
        info: Its info.json.
        keys: The features of the state and of the action.
        where: What messages call info.json.
        robot: One of ROBOTS, or "auto": by the names of the numbers and robot_type.
        units: One of UNITS; "auto": by the names and the values.
        extremes: Gives (2, S), the least and the greatest of each number of the state;
            None where no file can be read. Called only if it matters.

    Raises:
        UserError: Nothing decides on the robot, the units or the order; says which flag
            does.
    """
    names, commands = (names_of(info["features"][key]) for key in keys)
    layout, other = layout_of(names), layout_of(commands)
    kind, implied = _arm_of(layout.joints), "auto"
    if robot == "auto":
        said = info.get("robot_type")
        robot, implied = _robot_of(said, kind, names, where, units)
    for key, found in zip(keys, (layout, other), strict=True):
        if robot == "openarm" and _arm_of(found.joints) != "openarm":
            raise UserError(
                f"{where}: {key} has the names {list(found.joints) or None}, expected "
                "an OpenArm's, like left_joint_1.pos, which say whose arm comes first; "
                "--robot other keeps the numbers as they are"
            )
    same = (sorted(layout.joints), layout.old) == (sorted(other.joints), other.old)
    if robot in SO_ARMS and kind == "so" and other.joints and not same:
        raise UserError(
            f"{where}: {keys[0]} is named {names}, {keys[1]} {commands}, expected the "
            "same joints in both; --robot other keeps the numbers as they are"
        )
    if units == "auto":
        units = implied
    if units == "auto" and robot in (*SO_ARMS, "openarm"):
        units = _units_of(robot, layout, kind, names, where, extremes())
    return make_edge(robot, units, names)


def _robot_of(
    robot_type: object, kind: str, names: Sequence[str], where: str, units: str
) -> tuple[str, Units]:
    """`robot_of_type`, checked against whose joints the names are."""
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
    layout: Layout,
    kind: str,
    names: Sequence[str],
    where: str,
    extremes: np.ndarray | None,
) -> Units:
    """What the values say about units that names leave open."""
    wide = extremes is not None and layout.width in (0, extremes.shape[1])
    if extremes is None or not wide:  # reading says what is wrong
        return "degrees"
    if "pos" in layout.places:
        extremes = extremes[:, layout.places["pos"]]
    joints = list(layout.joints) or [f"number {i}" for i in range(extremes.shape[1])]
    turning = [i for i, joint in enumerate(joints) if "gripper" not in joint]
    reach = float(np.abs(extremes[:, turning]).max(initial=0.0))
    if robot == "openarm":
        if reach > TURN:
            return "degrees"
        choice = "degrees or --units same (radians)"
        why = f"the joints stay within {reach:.2f}, which may be degrees or radians"
    elif layout.old and reach > TURN:
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


def robot_of_type(robot_type: object, where: str, also: str = "") -> tuple[str, Units]:
    """The robot that a dataset's `robot_type` means, and the units that it implies.

    Raises:
        UserError: It may be a SO-100 or a SO-101, whose zeros differ; `also` is added.
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
    """Refuse names of cameras that LeRobot cannot have as a part of a key.

    Raises:
        UserError: Names the one.
    """
    for name in names:
        if not name or set(name) & set("/\\{}"):
            raise UserError(f"{where}: {name!r} is no name for a camera in a dataset")
