"""The SO-100 arm as MuJoCo XML: true kinematics and inertias, primitive shapes.

Frames, joint ranges, inertias and servo gains are those of the MuJoCo Menagerie model
`trs_so_arm100` (MIT); the meshes are replaced by boxes of the same extent, so that a
policy's camera image costs about a millisecond on a CPU. The base stands at the origin
with z up, and at q = 0 the arm points along -y.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

JAW_CLOSED, JAW_OPEN = -0.174, 1.75  # rad; the gripper's 0 and 1
# Folded back, so that the cameras see the whole table before the first move.
HOME = np.array([0.0, -2.3, 2.1, 1.2, -1.57, 0.45])  # rad

PRINTED, MOTOR, RUBBER = ".95 .62 .16 1", ".13 .13 .15 1", ".25 .25 .28 1"


@dataclass(frozen=True)
class Servo:
    """Position loop of an STS3215 as a spring with critical damping.

    kp: N·m/rad; force: N·m, symmetric limit.
    """

    kp: float
    force: float


ARM_SERVO = Servo(kp=50.0, force=3.5)
# The jaw's servo runs at reduced torque, as the real driver configures it: at full
# torque a 25 mm cube is squeezed out of the fingers instead of being held.
JAW_SERVO = Servo(kp=8.0, force=1.0)


class Link(NamedTuple):
    """One moving body of the arm, with the joint that moves it."""

    name: str
    pos: str  # m, in the parent's frame
    quat: str  # wxyz
    joint: str
    axis: str
    range: tuple[float, float]  # rad
    mass: float  # kg
    com: str  # m
    inertia: str  # kg·m², diagonal
    inertia_quat: str  # wxyz
    boxes: tuple[tuple[str, str, str], ...]  # (centre m, half size m, colour)


S = "0.70710678"
LINKS = (
    Link(
        "shoulder", "0 -.0452 .0165", f"{S} {S} 0 0",
        "shoulder_pan", "0 1 0", (-1.92, 1.92),
        0.119226, "-9.07886e-05 .0590972 .031089",
        "5.94278e-05 5.89975e-05 3.13712e-05", ".363978 .441169 -.623108 .533504",
        (("0 .0431 .0194", ".0262 .0431 .0314", PRINTED),
         ("0 .0900 .0306", ".0198 .0227 .0124", MOTOR)),
    ),
    Link(
        "upper_arm", "0 .1025 .0306", f"{S} {S} 0 0",
        "shoulder_lift", "1 0 0", (-3.32, 0.174),
        0.162409, "-1.72052e-05 .0701802 .00310545",
        "2.13312e-04 1.67164e-04 7.01522e-05", ".50104 .498994 -.493562 .50632",
        (("0 .0591 .0020", ".0350 .0710 .0140", PRINTED),
         ("0 .1126 .0155", ".0198 .0124 .0227", MOTOR)),
    ),
    Link(
        "lower_arm", "0 .11257 .028", f"{S} -{S} 0 0",
        "elbow_flex", "1 0 0", (-0.174, 3.14),
        0.147968, "-.00339604 .00137796 .0768007",
        "1.38803e-04 1.07748e-04 4.84242e-05", ".701995 .0787996 .0645626 .704859",
        (("-.0045 .0034 .0533", ".0306 .0184 .0653", PRINTED),
         ("0 .0052 .1224", ".0198 .0124 .0227", MOTOR)),
    ),
    Link(
        "wrist", "0 .0052 .1349", f"{S} -{S} 0 0",
        "wrist_flex", "1 0 0", (-1.66, 1.66),
        0.0661321, "-.00852653 -.0352279 -2.34622e-05",
        "3.45403e-05 2.39041e-05 1.94704e-05", "-.0522806 .705235 .0549524 .704905",
        (("-.0036 -.0252 0", ".0316 .0372 .0160", PRINTED),
         ("-.0125 -.0428 0", ".0227 .0198 .0124", MOTOR)),
    ),
    Link(
        "fixed_jaw", "0 -.0601 0", f"{S} 0 {S} 0",
        "wrist_roll", "0 1 0", (-2.79, 2.79),
        0.0929859, ".00552377 -.0280167 .000483583",
        "5.03136e-05 4.64098e-05 2.72961e-05", ".41836 .620891 -.350644 .562599",
        # The finger's box starts behind its pads, which make the contact, and tapers.
        ((".0252 -.0616 0", ".0100 .0250 .0165", PRINTED),
         (".0185 -.0960 0", ".0080 .0094 .0060", PRINTED),
         (".0024 -.0202 0", ".0328 .0202 .0240", PRINTED),
         ("-.0077 -.0244 .0005", ".0227 .0124 .0198", MOTOR)),
    ),
    Link(
        "moving_jaw", "-.0202 -.0244 0", "0 0 1 0",
        "gripper", "0 0 1", (JAW_CLOSED, JAW_OPEN),
        0.0202444, "-.00161745 -.0303473 .000449646",
        "1.11265e-05 8.99651e-06 2.99548e-06", ".696562 .716737 -.0239844 -.0227026",
        (("-.0028 -.0709 0", ".0068 .0111 .0074", PRINTED),
         ("-.0003 -.0408 0", ".0070 .0212 .0108", PRINTED),
         ("0 -.0060 0", ".0100 .0160 .0240", PRINTED)),
    ),
)  # fmt: skip

# One flat rubber pad a finger, parallel when 25 mm apart: (centre m, half size m,
# turn about z in rad). A staircase of small pads would hold a cube by its edge.
PADS = {
    "fixed_jaw": (".0095 -.0914 0", ".0015 .0150 .0090", 0.0),
    "moving_jaw": ("-.0104 -.0662 0", ".0015 .0150 .0080", -0.13),
}

# Contact pairs by bit mask: the arm meets table and objects, never itself.
ARM_CONTACT = 'contype="1" conaffinity="0"'
TABLE_CONTACT = 'contype="2" conaffinity="5"'
OBJECT_CONTACT = 'contype="4" conaffinity="1"'


def gripper_to_jaw(gripper):
    """Gripper opening, 0 (closed) to 1 (open), to the jaw's angle in rad."""
    return JAW_CLOSED + gripper * (JAW_OPEN - JAW_CLOSED)


def jaw_to_gripper(jaw):
    """The jaw's angle in rad to the gripper's opening, 0 (closed) to 1 (open)."""
    return (jaw - JAW_CLOSED) / (JAW_OPEN - JAW_CLOSED)


def arm_xml() -> str:
    """The arm's `<body>`, for a world body at the origin."""
    inner = ""
    for link in reversed(LINKS):
        inner = _link_xml(link, inner)
    return f"""
    <body name="base">
      <geom type="box" pos="0 -.0231 .0417" size=".0555 .0480 .0417" rgba="{PRINTED}"
            {ARM_CONTACT}/>
      {inner}
    </body>"""


def actuators_xml() -> str:
    """One position servo a joint, in the order of `JOINTS`."""
    rows = []
    for link in LINKS:
        servo = JAW_SERVO if link.joint == "gripper" else ARM_SERVO
        low, high = link.range
        rows.append(
            f'<position name="{link.joint}" joint="{link.joint}" kp="{servo.kp}" '
            f'dampratio="1" forcerange="-{servo.force} {servo.force}" '
            f'ctrlrange="{low} {high}"/>'
        )
    return "\n".join(rows)


def joint_limits() -> np.ndarray:
    """(6, 2) lowest and highest joint angle in rad."""
    return np.array([link.range for link in LINKS])


def _link_xml(link: Link, children: str) -> str:
    boxes = "".join(
        f'<geom type="box" pos="{pos}" size="{size}" rgba="{rgba}" {ARM_CONTACT}/>'
        for pos, size, rgba in link.boxes
    )
    pad = ""
    if link.name in PADS:
        pos, size, turn = PADS[link.name]
        pad = (
            f'<geom type="box" pos="{pos}" size="{size}" euler="0 0 {turn}" '
            f'rgba="{RUBBER}" {ARM_CONTACT} friction="1.2 .005 .0001" condim="4"/>'
        )
    extras = ""
    if link.name == "fixed_jaw":
        # `tcp` is the fixed finger's tip. `grasp` is where a cube's middle should be
        # when the fingers come down: clear of both, and the closing jaw pushes it home.
        extras = """
        <site name="tcp" pos="0 -.1014 0" size=".002" group="4"/>
        <site name="grasp" pos="-.0165 -.0935 0" size=".002" group="4"/>
        <camera name="wrist" pos="0 -.015 .07" xyaxes="-1 0 0 0 -.61 .79" fovy="75"/>
        """
    low, high = link.range
    return f"""
      <body name="{link.name}" pos="{link.pos}" quat="{link.quat}">
        <inertial pos="{link.com}" mass="{link.mass}" diaginertia="{link.inertia}"
                  quat="{link.inertia_quat}"/>
        <joint name="{link.joint}" axis="{link.axis}" range="{low} {high}"
               frictionloss=".1" armature=".1"/>
        {boxes}{pad}{extras}{children}
      </body>"""
