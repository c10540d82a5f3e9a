"""Radians here, degrees there: joints in LeRobot's units.

LeRobot counts a servo's steps from the middle of the range that calibration swept, as
degrees, and the gripper from 0 (closed) to 100. Here a joint's 0 and sense are the
model's, in radians, and the gripper goes from 0 to 1. Each number is therefore a
straight line of the other.

An OpenArm's motors count in degrees there, from the same zero and with the same sense;
its gripper is closed at 0 and open at -65 degrees, the limit of LeRobot's follower.
LeRobot begins with the left arm, ours with the right one.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

Units = Literal["keep", "so100", "so101", "openarm"]
JOINTS = (
    "shoulder_pan",
    "shoulder_lift",
    "elbow_flex",
    "wrist_flex",
    "wrist_roll",
    "gripper",
)
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
class Line:
    """y = scale x + offset, a row a joint."""

    scale: np.ndarray  # (numbers,)
    offset: np.ndarray  # (numbers,)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Convert (..., numbers)."""
        return x * self.scale + self.offset

    def inverse(self) -> "Line":
        """The way back."""
        return Line(1 / self.scale, -self.offset / self.scale)


def to_degrees(arm: Literal["so100", "so101", "openarm"]) -> Line:
    """From our units to LeRobot's, in the order of one arm's joints.

    LeRobot's SO-100 must be used with `use_degrees=true`; without it, it counts in
    percent of whatever range one arm's calibration swept, which no policy can know.
    """
    if arm == "openarm":  # seven joints
        scale = np.append(np.full(7, 180 / math.pi), OPEN_DEGREES)
        return Line(scale, 0 * scale)
    scale = np.append(np.array(SENSE[arm]) * DEGREES, 100.0)
    return Line(scale, np.append(-np.array(MIDDLE[arm]), 0.0) * scale)
