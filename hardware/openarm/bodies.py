"""The boxes around the OpenArms' links, and which of them may not meet.

The extents of the maker's meshes, a box a link, and four or one a finger. Lengths in m.
"""

from ..safety.guard import Box, Guard
from .kinematics import LINKS, SHOULDERS, Kinematics

APART = 0.012  # m that links stay from each other; springs swing past their goals
NEAR = 0.007  # m for two hands, whose fingers have to meet, and beside the pillar
# m for the fingers of two hands that hold one thing: they are told to squeeze it, so
# what they are told is nearer than they come.
MEET = -0.008
OVER = 0.006  # m over the table or the ground
FINGERS = -0.003  # m; they go down to it, and are told to press on it a little
Part = tuple[tuple[float, float, float], tuple[float, float, float]]  # centre, half
PILLAR = {"v1": 0.055, "v2": 0.08}  # half of its width; the makers draw its foot, too


# Of a right arm. A finger is a closed one in its own frame; the second one mirrors it.
V2: dict[str, tuple[Part, ...]] = {
    "link1": (((0.0015, -0.0545, 0), (0.0475, 0.0545, 0.0490)),),
    "link2": (((-0.0068, 0, -0.0083), (0.0416, 0.0489, 0.0573)),),
    "link3": (((-0.0038, 0.0002, -0.0910), (0.0386, 0.0327, 0.0913)),),
    "link4": (((-0.0050, 0, -0.0340), (0.0375, 0.0391, 0.0625)),),
    "link5": (((0, 0.0005, -0.0660), (0.0380, 0.0358, 0.0644)),),
    "link6": (((-0.0050, 0, 0), (0.0330, 0.0330, 0.0285)),),
    "link7": (((0.0066, -0.0030, -0.0751), (0.0385, 0.0495, 0.0355)),),
    "finger1": (
        ((-0.0145, 0.0029, -0.0175), (0.0120, 0.0184, 0.0331)),
        ((0.0006, 0.0072, -0.0602), (0.0269, 0.0090, 0.0100)),
        ((0.0092, 0.0012, -0.0860), (0.0183, 0.0107, 0.0158)),
        ((0, -0.0141, -0.0905), (0.0279, 0.0046, 0.0115)),  # and the pad
    ),
}
V1: dict[str, tuple[Part, ...]] = {
    "link1": (((0.0011, 0, 0.0549), (0.0479, 0.0492, 0.0544)),),
    "link2": (((0.0232, 0, 0.0088), (0.0418, 0.0491, 0.0578)),),
    "link3": (((-0.0039, 0, 0.0910), (0.0386, 0.0325, 0.0913)),),
    "link4": (((-0.0050, -0.0315, 0.0340), (0.0375, 0.0391, 0.0625)),),
    "link5": (((0, 0, 0.0664), (0.0358, 0.0380, 0.0641)),),
    # These lean to a side, which is not known to be the same one on both arms.
    "link6": (((-0.0375, 0, 0), (0.0375, 0.0380, 0.0285)),),
    "link7": (
        ((0, 0, 0.0385), (0.0285, 0.0345, 0.0560)),
        ((0, 0.0005, 0.1026), (0.0285, 0.0841, 0.0080)),
    ),
    "finger1": (((0, -0.0157, 0.0480), (0.0305, 0.0174, 0.0475)),),
}


def _body(name: str) -> list[Box]:
    return [
        Box("body", (-0.03, 0, 0.31 - SHOULDERS[2]), (0.07, PILLAR[name], 0.31)),
        Box("body", (0, 0, 0), (0.0491, 0.0926, 0.0610)),  # holds both arms
    ]


def _boxes(name: str) -> list[Box]:
    parts, boxes = {"v1": V1, "v2": V2}[name], _body(name)
    for side, mirror in (("right", 1), ("left", -1 if name == "v2" else 1)):
        for part, rows in parts.items():
            # What turns about the shoulder cannot leave the workspace.
            over = None if part in ("link1", "link2") else OVER
            if part != "finger1":
                for (x, y, z), half in rows:
                    boxes.append(Box(f"{side}_{part}", (x, mirror * y, z), half, over))
                continue
            for finger, sign in (("finger1", mirror), ("finger2", -mirror)):
                for (x, y, z), half in rows:
                    centre = (x, sign * y, z)
                    boxes.append(Box(f"{side}_{finger}", centre, half, FINGERS))
    return boxes


def _pairs() -> list[tuple[str, str, float]]:
    fingers, pairs = ("finger1", "finger2"), []
    outer = ("link5", "link6", "link7", *fingers)  # from the elbow on
    arm = ("link3", "link4", *outer)
    for side in ("right", "left"):
        pairs += [("body", f"{side}_{part}", NEAR) for part in ("link3", "link4")]
        pairs += [("body", f"{side}_{part}", APART) for part in outer]
        for inner in ("link1", "link2", "link3"):
            # What the elbow's own range keeps apart is left out: link 3 and link 5.
            pairs += [
                (f"{side}_{inner}", f"{side}_{part}", APART) for part in outer[1:]
            ]
    for right in ("link1", "link2", *arm):
        for left in ("link1", "link2", *arm):
            count = sum(part in fingers for part in (right, left))
            hands = {right, left} <= {"link7", *fingers}
            apart = (NEAR if count < 2 else MEET) if hands else APART
            pairs.append((f"right_{right}", f"left_{left}", apart))
    return pairs


def guard_of(arm: Kinematics) -> Guard:
    """Of both arms of a version."""
    return Guard(LINKS, arm.frames_of, _boxes(arm.name), _pairs())
