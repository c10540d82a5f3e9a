"""The boxes around a SO-100's and a SO-101's links, and which of them may not meet.

SO-100: the shapes of the simulated arm, which are those of MuJoCo Menagerie's meshes.
SO-101: the extents of the maker's meshes, a box a link.
"""

from functools import cache

from ..safety.guard import Box, Guard
from .kinematics import ARMS, LINKS

APART = 0.004  # m that links stay from each other
OVER = 0.003  # m over the table
FINGERS = -0.003  # m; they go down to it, and what they are told may be a bit lower
BOXES = {
    "so100": (
        Box("base", (0, -0.0231, 0.0417), (0.0555, 0.0480, 0.0417)),
        Box("shoulder", (0, 0.0431, 0.0194), (0.0262, 0.0431, 0.0314)),
        Box("shoulder", (0, 0.0900, 0.0306), (0.0198, 0.0227, 0.0124)),
        Box("upper_arm", (0, 0.0591, 0.0020), (0.0350, 0.0710, 0.0140), OVER),
        Box("upper_arm", (0, 0.1126, 0.0155), (0.0198, 0.0124, 0.0227), OVER),
        Box("lower_arm", (-0.0045, 0.0034, 0.0533), (0.0306, 0.0184, 0.0653), OVER),
        Box("lower_arm", (0, 0.0052, 0.1224), (0.0198, 0.0124, 0.0227), OVER),
        Box("wrist", (-0.0036, -0.0252, 0), (0.0316, 0.0372, 0.0160), OVER),
        Box("wrist", (-0.0125, -0.0428, 0), (0.0227, 0.0198, 0.0124), OVER),
        Box("fixed_jaw", (0.0252, -0.0616, 0), (0.0100, 0.0250, 0.0165), FINGERS),
        Box("fixed_jaw", (0.0185, -0.0960, 0), (0.0080, 0.0094, 0.0060), FINGERS),
        Box("fixed_jaw", (0.0095, -0.0914, 0), (0.0015, 0.0150, 0.0090), FINGERS),
        Box("fixed_jaw", (0.0024, -0.0202, 0), (0.0328, 0.0202, 0.0240), OVER),
        Box("fixed_jaw", (-0.0077, -0.0244, 0.0005), (0.0227, 0.0124, 0.0198), OVER),
        Box("moving_jaw", (-0.0028, -0.0709, 0), (0.0068, 0.0111, 0.0074), FINGERS),
        Box(
            "moving_jaw",
            (-0.0104, -0.0662, 0),
            (0.0015, 0.0150, 0.0080),
            FINGERS,
            -0.13,
        ),
        Box("moving_jaw", (-0.0003, -0.0408, 0), (0.0070, 0.0212, 0.0108), FINGERS),
        Box("moving_jaw", (0, -0.0060, 0), (0.0100, 0.0160, 0.0240), OVER),
    ),
    "so101": (
        Box("base", (0.0168, 0, 0.0336), (0.0478, 0.0555, 0.0360)),
        Box("shoulder", (-0.0192, 0.0012, -0.0091), (0.0314, 0.0275, 0.0553)),
        Box("upper_arm", (-0.0591, -0.0131, 0.0201), (0.0711, 0.0251, 0.0336), OVER),
        Box("lower_arm", (-0.0665, 0.0035, 0.0202), (0.0786, 0.0184, 0.0322), OVER),
        Box("wrist", (-0.0022, -0.0269, 0.0222), (0.0178, 0.0389, 0.0312), OVER),
        Box(
            "fixed_jaw", (-0.0024, -0.0020, -0.0517), (0.0328, 0.0260, 0.0527), FINGERS
        ),
        Box(
            "moving_jaw", (-0.0012, -0.0360, 0.0189), (0.0111, 0.0460, 0.0240), FINGERS
        ),
    ),
}


# Neighbours may touch, for a joint holds them together, and some never meet.
_LONG = ("lower_arm", "wrist", "fixed_jaw", "moving_jaw")
PAIRS = [
    *((one, other, APART) for one in ("base", "shoulder") for other in _LONG),
    *(("upper_arm", other, APART) for other in _LONG[1:]),
]
"""Links of one arm, and how far they stay from each other, m."""


@cache
def guard_of(model: str) -> Guard:
    """Of "so100" or "so101"."""
    return Guard(LINKS, ARMS[model].frames_of, BOXES[model], PAIRS)
