"""What a checkpoint's card and an episode say of their arm, and whether it is this one.

A policy's numbers mean something at one rate, for joints in one order and in one unit.
Files written from now on say which: `fps`, `robot`, `joints`, `units`. What an older
file or a foreign one does not say cannot be compared, and is not guessed.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .errors import SettingError, UserError
from .joints import ARM_JOINTS

UNITS = "rad"  # of every joint inside the package; a gripper is 0 (closed) to 1 (open)
CONVERTED = ("so100", "so101", "openarm")  # robots whose name is a choice of --units
ABOUT_ARM = ("fps", "task", "robot", "joints", "units")  # what a policy passes on


def arm_of(
    said: Mapping[str, Mapping[str, Any]], width: int | None = None
) -> dict[str, Any]:
    """What a card says of the arm whose episodes have these attributes.

    Args:
        said: file name -> its attributes; those without a word are left out.
        width: how many joints the episodes have.

    Raises:
        UserError: two files say different things, or `joints` is no list of names.
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
    """Whether what a card says of its arm can be meant.

    Raises:
        UserError: names the file and the key.
    """
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
    """Whether units are those of the robot that a card names, if it names one.

    Raises:
        SettingError: they are another robot's.
    """
    if (robot := card.get("robot", units)) != units:
        expected = robot if robot in CONVERTED else "keep"
        raise SettingError(
            f"units is {units!r}, but the card beside {where} says that its robot is a "
            f"{robot}, expected {expected!r}"
        )


def check_card(
    card: Mapping[str, Any],
    fps: float,
    robot: str = "",
    joints: Sequence[str] = (),
) -> None:
    """Whether a policy with this card can drive an arm: rate, joints, order, units.

    Args:
        card: of the policy.
        fps: at which the arm is driven, Hz.
        robot: which arm that is.
        joints: its joints, in order.

    Raises:
        UserError: names what differs, and what to do.
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
