"""Whose numbers they are: joints, their order, units and reach, and the rate.

A policy's numbers mean something at one rate, for joints in one order and in one unit.
Files written from now on say which: `fps`, `robot`, `joints`, `units`. What an older
file or a foreign one does not say cannot be compared, and is not guessed.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..support.errors import SettingError, UserError
from ..support.plugins import plugin

JOINTS = (
    "shoulder_pan",
    "shoulder_lift",
    "elbow_flex",
    "wrist_flex",
    "wrist_roll",
    "gripper",
)
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

    `units` is "rad" (and grippers from 0 to 1), or "" where it is unknown.
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
    return names if _are_names(names) and len(names) == width else []


def reach_of(robot: str, width: int) -> np.ndarray | None:
    """(width, 2) least and greatest angle of each joint, rad; of grippers 0 and 1.

    None for arms whose reach is not known here. The wrist of a SO-100 has no stops.
    """
    names = joint_names(robot, width)
    if robot in SO_ARMS and names:
        ranges = np.array(plugin("so_arms")[robot].ranges, float)
        ranges[JOINTS.index("wrist_roll")] = -np.pi, np.pi
        ranges[JOINTS.index("gripper")] = 0.0, 1.0
        return np.tile(ranges, (width // len(ranges), 1))
    if robot == "openarm" and names:
        arms = plugin("openarms").values()
        ranges = np.array([arm.ranges for arm in arms])  # (versions, 16, 2)
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

    From least and greatest values (S,) of a dataset's states. Of an unknown arm only
    more than a turn is odd.
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


# ---------------------------------------------------------------- cards

UNITS = "rad"  # of every joint inside the package; a gripper is 0 (closed) to 1 (open)
CONVERTED = ("so100", "so101", "openarm")  # robots whose name is a choice of --units
ABOUT_ARM = ("fps", "task", "robot", "joints", "units")  # what a policy passes on


def arm_of(
    said: Mapping[str, Mapping[str, Any]], width: int | None = None
) -> dict[str, Any]:
    """What a card says of the arm whose episodes (file name -> attributes) say this.

    UserError if two files say different things, or `joints` is no list of names.
    """
    arm: dict[str, Any] = {}
    first: dict[str, str] = {}
    for key in ("robot", "joints", "units"):
        for name, attributes in said.items():
            if key not in attributes:
                continue
            value = attributes[key]
            if arm.setdefault(key, value) != value:
                raise UserError(
                    f"{name} has {key} {value}, but {first[key]} has {arm[key]}; one "
                    "policy drives one arm"
                )
            first.setdefault(key, name)
    if "joints" in arm:
        try:
            names = json.loads(arm["joints"])
        except (TypeError, ValueError):
            names = ()
        if not _are_names(names) or (width is not None and len(names) != width):
            raise UserError(
                f"{first['joints']}: joints is {arm['joints']!r}, expected a JSON list "
                f"of {'its' if width is None else width} joints' names"
            )
        arm["joints"] = names
    return arm


def expect_card(card: Mapping[str, Any], path: Path) -> None:
    """UserError, naming file and key, if a card cannot mean what it says of its arm."""
    fps = card.get("fps")
    number = isinstance(fps, int | float) and not isinstance(fps, bool)
    if fps is not None and not (number and 0 < fps < float("inf")):
        raise UserError(
            f"'fps' in {path} is {fps!r}, expected a positive number of ticks a second"
        )
    for key in ("robot", "units"):
        if not isinstance(card.get(key, ""), str):
            raise UserError(f"{key!r} in {path} is {card[key]!r}, expected a name")
    joints = card.get("joints")
    if joints is not None and not _are_names(joints):
        raise UserError(f"'joints' in {path} is {joints!r}, expected a list of names")


def expect_robot(card: Mapping[str, Any], units: str, where: Path | str) -> None:
    """SettingError if units are not those of the robot that a card names."""
    if (robot := card.get("robot", units)) != units:
        expected = robot if robot in CONVERTED else "keep"
        raise SettingError(
            f"units is {units!r}, but the card beside {where} says that its robot is a "
            f"{robot}, expected {expected!r}"
        )


def check_card(
    card: Mapping[str, Any], fps: float, robot: str = "", joints: Sequence[str] = ()
) -> None:
    """UserError, and what to do, for a policy that cannot drive an arm.

    `fps` is the arm's rate, Hz; `joints` are its joints, in order.
    """
    taught = card.get("fps")
    if taught is not None and abs(taught - fps) > 1e-3 * fps:
        raise UserError(
            f"the policy was taught at {taught:g} Hz, as its card says, but this loop "
            f"ticks at {fps:g} Hz, so it would move {fps / taught:.3g} times as fast; "
            "--fps says otherwise"
        )
    other = card.get("robot")
    if robot and other in ARM_JOINTS and other != robot:
        raise UserError(
            f"the policy was taught on a {other}, as its card says, but this arm is a "
            f"{robot}: its joints have other zeros"
        )
    theirs = card.get("joints")
    if joints and theirs is not None and list(theirs) != list(joints):
        raise UserError(
            f"the policy's joints are {', '.join(theirs)}, as its card says, but the "
            f"arm's are {', '.join(joints)}, in this order"
        )
    units = card.get("units", UNITS)
    if units != UNITS:
        raise UserError(
            f"the policy's joints are in {units!r}, as its card says, expected "
            f"{UNITS!r}; import it with the units of its arm: act import-lerobot "
            "--units"
        )


def _are_names(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(x, str) for x in value)
