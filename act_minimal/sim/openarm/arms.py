"""OpenArm 2.0, two arms, as MuJoCo XML: the official model in light shapes.

Kinematics, inertias, joint limits, friction and servo gains are read from the package
`openarm-mujoco` (Enactic, Apache-2.0). Its meshes cost 50 ms a picture, so the links
are drawn as boxes of the same extent; `arms_xml(meshes=True)` keeps the meshes, for
films. Two things are ours: gravity compensation, which on the real arm is the driver's
work, and a flat pad on each fingertip, turned to be parallel when it holds something
30 mm wide. The real fingers are soft, and lie flat on more than that.

The arms hang at the origin of a frame at shoulder height: x forwards, y to the left,
z up. At q = 0 both hang straight down, grippers closed. The model is its own mirror
image: the left arm with -q (joint 4: +q) is the right one seen in the x-z plane.
"""

import xml.etree.ElementTree as ElementTree
from functools import cache
from pathlib import Path

import numpy as np
from openarm_mujoco.v2 import openarm_bimanual_xml

SIDES = ("right", "left")
JOINTS = tuple(
    f"{side}_{name}"
    for side in SIDES
    for name in (*(f"joint{i}" for i in range(1, 8)), "gripper")
)
FINGER_OPEN = 0.7854  # rad, of each finger; the gripper's 1. Its 0 is 0 rad.
MIRROR = np.array([-1.0, -1, -1, 1, -1, -1, -1])  # the other arm's joints
GRASP_DEPTH = 0.158  # m from the wrist's centre to the middle of the fingertips
PAD_WIDTH = 0.030  # m between the fingers when the pads are parallel
PAD_SIZE = (0.0265, 0.003, 0.0095)  # m, half: across the hand, thickness, along it

BODY, MOTOR, PRINTED, RUBBER = (
    ".75 .76 .78 1",
    ".2 .2 .22 1",
    ".3 .3 .32 1",
    ".1 .1 .1 1",
)
Box = tuple[tuple[float, float, float], tuple[float, float, float], str]
# Centre and half size in m, colour; right arm, in the frame of the link. The left arm's
# are mirrored. The fingers follow their meshes' parts without the tip's.
BOXES: dict[str, tuple[Box, ...]] = {
    "base_link": (((0.0, -0.0308, 0.0), (0.0491, 0.0308, 0.0610), MOTOR),),
    "link1": (((0.0015, -0.0545, 0.0), (0.0475, 0.0545, 0.0490), BODY),),
    "link2": (((-0.0068, 0.0, -0.0083), (0.0416, 0.0489, 0.0573), MOTOR),),
    "link3": (((-0.0038, 0.0002, -0.0910), (0.0386, 0.0327, 0.0913), BODY),),
    "link4": (((-0.0050, 0.0, -0.0340), (0.0375, 0.0391, 0.0625), MOTOR),),
    "link5": (((0.0, 0.0005, -0.0660), (0.0380, 0.0358, 0.0644), BODY),),
    "link6": (((-0.0050, 0.0, 0.0), (0.0330, 0.0330, 0.0285), MOTOR),),
    "ee_base_link": (((0.0066, -0.0030, -0.0751), (0.0385, 0.0495, 0.0355), PRINTED),),
    "ee_inner_finger": (
        ((-0.0145, 0.0029, -0.0175), (0.0120, 0.0140, 0.0330), PRINTED),
        ((0.0006, 0.0072, -0.0602), (0.0269, 0.0090, 0.0100), PRINTED),
        ((0.0092, 0.0012, -0.0840), (0.0183, 0.0087, 0.0137), PRINTED),
    ),
    "ee_outer_finger": (
        ((-0.0145, -0.0029, -0.0175), (0.0120, 0.0140, 0.0330), PRINTED),
        ((0.0006, -0.0072, -0.0602), (0.0269, 0.0090, 0.0100), PRINTED),
        ((0.0092, -0.0012, -0.0840), (0.0183, 0.0087, 0.0137), PRINTED),
    ),
}  # fmt: skip

# Contact pairs by bit mask: an arm meets the other arm, table and objects, not itself.
ARM_CONTACT = {
    "right": {"contype": "1", "conaffinity": "2"},
    "left": {"contype": "2", "conaffinity": "1"},
}
TABLE_CONTACT = 'contype="4" conaffinity="11"'
OBJECT_CONTACT = 'contype="8" conaffinity="11"'

_PIVOT = np.array([-0.00143, 0.018, -0.068])  # m, of the inner finger of a right hand


def finger_to_gripper(finger: np.ndarray) -> np.ndarray:
    """A finger's angle in rad, of either hand, to the opening: 0 closed, 1 open."""
    return np.abs(finger) / FINGER_OPEN


def closed_on(width: float, finger: np.ndarray) -> np.ndarray:
    """Whether fingers at these angles in rad hold something `width` m wide.

    Closed fingers stop where they meet it, to 4 mm a finger; empty, they meet at 0.
    """
    reach = GRASP_DEPTH + _PIVOT[2]
    angle = _pad_angle() + np.arcsin((width - PAD_WIDTH) / 2 / reach)
    return np.abs(np.abs(finger) - angle) < 0.004 / reach


def joint_limits() -> np.ndarray:
    """(16, 2) lowest and highest action: rad, and gripper openings."""
    limits = []
    for side in SIDES:
        for i in range(1, 8):
            joint = _bodies()[side].find(f".//joint[@name='openarm_{side}_joint{i}']")
            assert joint is not None
            limits.append([float(x) for x in joint.attrib["range"].split()])
        limits.append([0.0, 1.0])
    return np.array(limits)


def hand_pose(side: str, joints: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where a hand is: forward kinematics of many arms at once.

    Args:
        side: "right" or "left".
        joints: (n, 7) rad.

    Returns:
        The middle between the fingertips (n, 3) in m, from between the shoulders, and
        the hand's orientation (n, 3, 3): columns across, closing, back to the wrist.
    """
    position = np.zeros((len(joints), 3))
    rotation = np.broadcast_to(np.eye(3), (len(joints), 3, 3))
    for offset, axis, angle in zip(*_chain(side), joints.T, strict=True):
        position = position + rotation @ offset
        # Rodrigues: I + sin K + (1 - cos) K², with K the axis' cross product.
        k = np.cross(axis, np.eye(3)).T
        sin, cos = np.sin(angle)[:, None, None], np.cos(angle)[:, None, None]
        rotation = rotation @ (np.eye(3) + sin * k + (1 - cos) * k @ k)
    return position + rotation @ np.array([0, 0, -GRASP_DEPTH]), rotation


def defaults_xml() -> str:
    """The `<default>` classes of joints and motors, for inside a `<default>`."""
    found = _package().find("default/default[@class='robot']")
    assert found is not None
    return ElementTree.tostring(found, encoding="unicode")


def arms_xml(sides: tuple[str, ...] = SIDES, *, meshes: bool = False) -> str:
    """The arms' `<body>`s, right first, for a frame at shoulder height.

    Full meshes need `mesh_assets_xml`.
    """
    parts = []
    for side in sides:
        body = ElementTree.fromstring(ElementTree.tostring(_bodies()[side]))
        for link in body.iter("body"):
            _dress(link, side, meshes)
        body.attrib["gravcomp"] = "1"
        parts.append(ElementTree.tostring(body, encoding="unicode"))
    return "\n".join(parts)


def mesh_assets_xml() -> str:
    """Materials and meshes of the full model, by absolute path, for an `<asset>`."""
    folder = Path(openarm_bimanual_xml()).parent / "assets"
    parts = []
    for asset in _package().findall("asset/*"):
        if "collision" in asset.attrib["name"]:
            continue
        if "file" in asset.attrib:
            asset = ElementTree.Element(asset.tag, dict(asset.attrib))
            asset.attrib["file"] = str(folder / asset.attrib["file"])
        parts.append(ElementTree.tostring(asset, encoding="unicode"))
    return "\n".join(parts)


def actuators_xml() -> str:
    """One position servo a joint, in the order of `JOINTS`.

    A gripper's moves one finger, which takes the other along.
    """
    rows = []
    for side in SIDES:
        names = [
            *(f"{side}_joint{i}_ctrl" for i in range(1, 8)),
            f"{side}_finger1_ctrl",
        ]
        for name in names:
            found = _package().find(f"actuator/position[@name='{name}']")
            assert found is not None
            rows.append(ElementTree.tostring(found, encoding="unicode"))
    return "\n".join(rows)


def equality_xml() -> str:
    """The coupling of each hand's two fingers."""
    found = _package().findall("equality/joint")
    return "\n".join(ElementTree.tostring(one, encoding="unicode") for one in found)


@cache
def _package() -> ElementTree.Element:
    return ElementTree.parse(openarm_bimanual_xml()).getroot()


@cache
def _bodies() -> dict[str, ElementTree.Element]:
    found = {}
    for side in SIDES:
        name = f"openarm_{side}_base_link"
        body = _package().find(f"worldbody/body[@name='{name}']")
        assert body is not None
        found[side] = body
    return found


@cache
def _chain(side: str) -> tuple[np.ndarray, np.ndarray]:
    """Offset (7, 3) and axis (7, 3) of each joint from the one before."""
    body: ElementTree.Element | None = _bodies()[side]
    offset, offsets, axes = np.zeros(3), [], []
    while body is not None and len(axes) < 7:
        offset = offset + np.array(body.attrib.get("pos", "0 0 0").split(), float)
        if (joint := body.find("joint")) is not None:
            offsets.append(offset)
            axes.append(np.array(joint.attrib["axis"].split(), float))
            offset = np.zeros(3)
        body = body.find("body")
    return np.array(offsets), np.array(axes)


def _pad_angle() -> float:
    """The finger's angle in rad at which the pads are parallel, from the real tip.

    The tip's face is 18 mm inwards of the pivot and 95 mm along the finger.
    """
    inwards, along = 0.018, 0.095
    away = PAD_WIDTH / 2 - _PIVOT[1]  # from the pivot's plane, in the hand
    return float(np.arcsin((away + inwards) / along))


def _dress(link: ElementTree.Element, side: str, meshes: bool) -> None:
    """Give a link its boxes; take its meshes away, or leave them for the eye only."""
    name = link.attrib["name"].removeprefix(f"openarm_{side}_")
    link.attrib["gravcomp"] = "1"
    for geom in link.findall("geom"):
        if not meshes or geom.attrib.get("class") != "visual":
            link.remove(geom)
    sign = 1.0 if side == "right" else -1.0
    group = {"group": "3" if meshes else "0"}
    for (x, y, z), size, colour in BOXES[name]:
        attributes = {"type": "box", "pos": _text(x, sign * y, z), "size": _text(*size)}
        ElementTree.SubElement(
            link, "geom", attributes | ARM_CONTACT[side] | group | {"rgba": colour}
        )
    if name.endswith("finger"):
        outwards = 1.0 if name == "ee_inner_finger" else -1.0
        ElementTree.SubElement(
            link, "geom", _pad(outwards * sign) | ARM_CONTACT[side] | group
        )
    for camera in link.findall("camera"):
        camera.attrib["name"] = f"{side}_wrist"
        camera.attrib.pop("resolution", None)
    if name == "ee_base_link":
        place = {"name": f"{side}_grasp", "pos": _text(0, 0, -GRASP_DEPTH)}
        ElementTree.SubElement(link, "site", place | {"size": ".002", "group": "4"})


def _pad(side: float) -> dict[str, str]:
    """The rubber on a fingertip; `side` is the finger's in the hand: +y or -y."""
    angle = _pad_angle()
    # In the hand, with the finger at `angle`: a box beside the gap of PAD_WIDTH.
    centre = np.array([0.0, PAD_WIDTH / 2 + PAD_SIZE[1], -GRASP_DEPTH]) - _PIVOT
    y = np.cos(angle) * centre[1] + np.sin(angle) * centre[2]
    z = -np.sin(angle) * centre[1] + np.cos(angle) * centre[2]
    return {
        "type": "box",
        "pos": _text(centre[0], side * y, z),
        "size": _text(*PAD_SIZE),
        "euler": _text(-side * angle, 0, 0),
        "rgba": RUBBER,
        "condim": "4",
        "friction": "1.2 .01 .0001",
        "solref": ".005 1",
        "priority": "1",
    }


def _text(*numbers: float) -> str:
    return " ".join(f"{x:.6g}" for x in numbers)
