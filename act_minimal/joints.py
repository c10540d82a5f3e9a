"""The joints of the arms that are known here: names in order, units, and reach."""

import importlib
import json
from collections.abc import Sequence

import numpy as np

from act_minimal.lerobot_units import JOINTS

SO_ARMS = ("so100", "so101")
SIDES = ("left_", "right_")
ALOHA_ARM = ("waist", "shoulder", "elbow", "forearm_roll", "wrist_angle")
ALOHA_ARM += ("wrist_rotate", "gripper")
OPENARM_ARM = (*(f"joint_{i}" for i in range(1, 8)), "gripper")
ARM_JOINTS = {"so100": JOINTS, "so101": JOINTS, "openarm": OPENARM_ARM}
ARM_JOINTS |= {"aloha": ALOHA_ARM}
MARGIN = 0.26  # rad (15 degrees), and of an opening: calibrations are that far off
TURN = 2 * np.pi  # rad; no joint of an arm without a known reach goes farther


def joint_names(robot: str, width: int) -> list[str]:
    """What the `width` numbers of a state are called, in our order; [] if unknown.

    Two arms have "left_" and "right_" before each name. An OpenArm begins with the
    right arm, all others with the left one.
    """
    arm = ARM_JOINTS.get(robot, ())
    if not arm or width not in (len(arm), 2 * len(arm)):
        return []
    if width == len(arm):
        return list(arm)
    sides = SIDES[::-1] if robot == "openarm" else SIDES
    return [side + joint for side in sides for joint in arm]


def lerobot_joint_names(robot: str, width: int) -> list[str]:
    """The same in LeRobot's order, which begins with the left arm of every robot."""
    names = joint_names(robot, width)
    return sorted(names, key=lambda name: name.startswith(SIDES[1]))


def arm_attributes(robot: str, joints: Sequence[str], units: str) -> dict[str, str]:
    """What an episode's attributes say of its numbers, as far as it is known.

    Args:
        robot: "so100", "so101", "openarm", "aloha" or "other".
        joints: Their names in order; may be empty.
        units: "rad" (and grippers from 0 to 1), or "" where it is unknown.
    """
    said = {"robot": robot if robot != "other" else "", "units": units}
    said["joints"] = json.dumps(list(joints)) if joints else ""
    return {key: value for key, value in said.items() if value}


def named_joints(attribute: object, width: int) -> list[str]:
    """The names in an episode's attribute `joints`; [] if it does not name `width`."""
    try:
        names = json.loads(str(attribute or "[]"))
    except ValueError:
        return []
    whole = isinstance(names, list) and all(isinstance(name, str) for name in names)
    return names if whole and len(names) == width else []


def reach_of(robot: str, width: int) -> np.ndarray | None:
    """(width, 2) least and greatest angle of each joint, rad; of grippers 0 and 1.

    None for arms whose reach is not known here. The wrist of a SO-100 has no stops.
    """
    names = joint_names(robot, width)
    if robot in SO_ARMS and names:
        module = importlib.import_module("hardware.so100.kinematics")
        ranges = np.array(module.ARMS[robot].ranges, float)
        ranges[JOINTS.index("wrist_roll")] = -np.pi, np.pi
        ranges[JOINTS.index("gripper")] = 0.0, 1.0
        return np.tile(ranges, (width // len(ranges), 1))
    if robot == "openarm" and names:
        arms = importlib.import_module("hardware.openarm.kinematics").ARMS
        ranges = np.array([arm.ranges for arm in arms.values()])  # (versions, 16, 2)
        both = np.stack([ranges[..., 0].min(axis=0), ranges[..., 1].max(axis=0)], -1)
        if width == len(both):
            return both
        right, left = both[: len(OPENARM_ARM)], both[len(OPENARM_ARM) :]
        low = np.minimum(right[:, 0], left[:, 0])  # whose arm it is, is unknown
        return np.stack([low, np.maximum(right[:, 1], left[:, 1])], axis=-1)
    return None


def beyond_reach(
    low: np.ndarray, high: np.ndarray, robot: str, names: Sequence[str] = ()
) -> list[str]:
    """A sentence for each number that no such joint can have.

    Args:
        low: (S,) least values of a dataset's states.
        high: (S,) greatest ones.
        robot: Whose; of an unknown arm only more than a turn is odd.
        names: What the numbers are called; by default as the robot's joints.
    """
    reach = reach_of(robot, len(low))
    known = reach is not None
    if reach is None:
        reach = np.tile([-TURN, TURN], (len(low), 1))
    names = names or joint_names(robot, len(low))
    said = []
    for j, (least, most, (start, end)) in enumerate(zip(low, high, reach, strict=True)):
        if least >= start - MARGIN and most <= end + MARGIN:
            continue
        limit = "more than a turn of a joint; is it an angle in rad?"
        if known:
            limit = f"a {robot} reaches {start:.2f} to {end:.2f}; are its units right?"
        label = f"qpos[{j}]" + (f" ({names[j]})" if names else "")
        said.append(f"{label} goes from {least:.2f} to {most:.2f}, {limit}")
    return said
