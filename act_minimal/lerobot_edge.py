"""Units and names at the edge between episodes here and LeRobot's datasets.

Here: radians, and a gripper from 0 (closed) to 1 (open). There, for a SO-100 or SO-101:
degrees that grow with the servo's steps and are 0 in the middle of the swept range, and
a gripper from 0 to 100 (`lerobot_units.py` has the lines). Other arms keep theirs.
"""

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from act_minimal.errors import SettingError, UserError
from act_minimal.lerobot_units import DEGREES, JOINTS, Line, to_degrees

Robot = Literal["so100", "so101", "aloha", "openarm", "other"]
RobotChoice = Literal["auto", "so100", "so101", "aloha", "openarm", "other"]
Units = Literal["auto", "degrees", "percent", "same"]
ROBOTS = ("so100", "so101", "aloha", "openarm", "other")
UNITS = ("auto", "degrees", "percent", "same")
SO_ARMS = ("so100", "so101")  # the arms whose units differ there

SIDES = ("left_", "right_")
ALOHA_ARM = ("waist", "shoulder", "elbow", "forearm_roll", "wrist_angle")
ALOHA_ARM += ("wrist_rotate", "gripper")
OPENARM_ARM = (*(f"joint_{i}" for i in range(1, 8)), "gripper")


@dataclass(frozen=True)
class Edge:
    """What the numbers of one robot are called there, and how they are converted.

    Attributes:
        robot: One of ROBOTS.
        units: "degrees", "percent" (-100 to 100 of each joint's range) or "same".
        line: From our numbers of one arm to LeRobot's; None where they are the same.
    """

    robot: str
    units: str
    line: Line | None = None

    @property
    def robot_type(self) -> str:
        """What info.json calls the robot; says so where SO-100 numbers are radians."""
        if self.robot in SO_ARMS:
            return f"{self.robot}_{'radians' if self.line is None else 'follower'}"
        return {"openarm": "bi_openarm_follower"}.get(self.robot, self.robot)

    def there(self, positions: np.ndarray, *, speed: bool = False) -> np.ndarray:
        """(T, S) positions, or speeds a second, in LeRobot's units: float32.

        Raises:
            UserError: S is not the number of joints of one or several such arms.
        """
        return self._convert(positions, self.line, speed)

    def here(self, positions: np.ndarray, *, speed: bool = False) -> np.ndarray:
        """The inverse of `there`."""
        back = None if self.line is None else self.line.inverse()
        return self._convert(positions, back, speed)

    def _convert(
        self, array: np.ndarray, line: Callable | None, speed: bool
    ) -> np.ndarray:
        if line is None:
            return np.asarray(array, np.float32)
        frames, width = array.shape
        if width % len(JOINTS):
            raise UserError(
                f"{width} numbers a frame, expected {len(JOINTS)} an arm for a "
                f"{self.robot}; other robots need units 'same'"
            )
        wide = np.asarray(array, np.float64).reshape(frames, -1, len(JOINTS))
        zero = line(np.zeros(len(JOINTS))) if speed else 0.0  # speeds have no offset
        return (line(wide) - zero).reshape(frames, width).astype(np.float32)

    def names(self, width: int) -> list[str]:
        """What LeRobot calls the `width` numbers of a state or an action."""
        if self.robot == "aloha" and width == 14:
            return [f"{side}{joint}" for side in SIDES for joint in ALOHA_ARM]
        if self.robot == "openarm" and width == 16:  # ours begins with the right arm
            return [f"{s}{j}.pos" for s in reversed(SIDES) for j in OPENARM_ARM]
        if self.robot in SO_ARMS and width in (len(JOINTS), 2 * len(JOINTS)):
            sides = ("",) if width == len(JOINTS) else SIDES
            return [f"{side}{joint}.pos" for side in sides for joint in JOINTS]
        return [f"number_{i}" for i in range(width)]

    def order(self, names: object, width: int) -> np.ndarray | None:
        """Where each number of ours is in LeRobot's row; None: in our order already.

        Args:
            names: A feature's `names` as info.json has them: a list, or a dictionary of
                one list, or nothing.
            width: How many numbers a row has.
        """
        if isinstance(names, Mapping):
            lists = [value for value in names.values() if isinstance(value, list)]
            names = lists[0] if len(lists) == 1 else None
        if not isinstance(names, list) or not all(isinstance(n, str) for n in names):
            return None

        def bare(name: str) -> str:
            return name.removesuffix(".pos").removeprefix("main_")

        ours, theirs = [bare(n) for n in self.names(width)], [bare(n) for n in names]
        if sorted(ours) != sorted(theirs) or ours == theirs:
            return None  # other names say nothing about the order
        return np.array([theirs.index(name) for name in ours])


def make_edge(robot: str, units: str = "auto") -> Edge:
    """The edge of a robot of ROBOTS.

    Args:
        robot: Whose numbers.
        units: What LeRobot's side has: "auto" is degrees for a SO-100 or SO-101, and
            the same numbers for all others. "percent" is what LeRobot has without
            `use_degrees`: -100 to 100 of what each joint's calibration swept, for which
            the arm's mechanical range is taken here; it is as good as that sweep was.

    Raises:
        SettingError: An unknown robot or unit, or a unit that the robot does not have.
    """
    if robot not in ROBOTS:
        raise SettingError(f"robot is {robot!r}, expected one of: {', '.join(ROBOTS)}")
    if units not in UNITS:
        raise SettingError(f"units are {units!r}, expected one of: {', '.join(UNITS)}")
    if units == "auto":
        units = "degrees" if robot in SO_ARMS else "same"
    if units == "same":
        return Edge(robot, units)
    if robot != "so100" and robot != "so101":
        raise SettingError(
            f"units are {units!r}, which only a SO-100 or SO-101 has; the robot is "
            f"{robot!r}, expected units 'same'"
        )
    line = to_degrees(robot)
    if units == "percent":
        arm = importlib.import_module("hardware.so100.kinematics").ARMS[robot]
        half = np.ptp(arm.ranges, axis=1) / 2 * DEGREES
        half[JOINTS.index("wrist_roll")] = 180.0  # it has no stops: a whole turn
        half[JOINTS.index("gripper")] = 100.0  # 0 to 100 already
        line = Line(line.scale * 100 / half, line.offset * 100 / half)
    return Edge(robot, units, line)


def robot_of_episode(attributes: Mapping[str, Any], width: int) -> str:
    """Which robot an episode of ours is of, by what its recorder wrote into it."""
    for key in ("robot", "task"):
        name = str(attributes.get(key, ""))
        for robot in ROBOTS:
            if name.startswith(robot):
                return robot
    return "aloha" if width == 14 else "other"


def robot_of_type(robot_type: object, where: str) -> tuple[str, Units]:
    """The robot that a dataset's `robot_type` means, and the units that it implies.

    Raises:
        UserError: It may be a SO-100 or a SO-101, whose zeros differ.
    """
    name = str(robot_type or "").lower().replace("-", "")
    for robot in ROBOTS:
        if robot in name:
            return robot, "same" if name.endswith("_radians") else "auto"
    if name in ("so_follower", "bi_so_follower"):
        raise UserError(
            f"{where}: robot_type is {robot_type!r}, a SO-100 or a SO-101, whose zeros "
            "differ; say which with: --robot so100 or --robot so101"
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
