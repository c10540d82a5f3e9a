"""Where the SO-100's and the SO-101's tip is, from joint angles. NumPy only.

Frames, axes and ranges: SO-100 as in MuJoCo Menagerie's `trs_so_arm100` (the arm
points to -y at 0), SO-101 as in the maker's `so101_new_calib` (to +x, 0 is mid-range).
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..chain import Chain, Frames, Row, joined

JOINTS = (
    "shoulder_pan",
    "shoulder_lift",
    "elbow_flex",
    "wrist_flex",
    "wrist_roll",
    "gripper",
)
LINKS = (
    "base",
    "shoulder",
    "upper_arm",
    "lower_arm",
    "wrist",
    "fixed_jaw",
    "moving_jaw",
)
S = np.sqrt(0.5)


@dataclass(frozen=True)
class Kinematics:
    """A chain of five turning joints and the jaw.

    Attributes:
        name: "so100" or "so101".
        links: One row a joint of the chain: (position m, quaternion wxyz, axis) of its
            frame in the one before.
        tip: The fixed finger's tip in the last frame, m.
        jaw: The moving jaw's frame in the last one, as a row of `links`.
        ranges: (6, 2) mechanical range of each joint, rad.
        sense: (6,) 1 where the servo's steps grow with the angle, else -1.
    """

    name: str
    links: tuple[Row, ...]
    tip: tuple[float, float, float]
    jaw: Row
    ranges: np.ndarray
    sense: np.ndarray

    @property
    def middle(self) -> np.ndarray:
        """(6,) angles at the middle of the ranges, rad."""
        return self.ranges.mean(axis=1)

    def tip_of(self, joints: np.ndarray) -> np.ndarray:
        """(..., 5 or more) joint angles in rad -> (..., 3) the tip in m."""
        return self.points_of(joints)[..., -1, :]

    def points_of(self, joints: np.ndarray) -> np.ndarray:
        """(..., 5 or more) -> (..., 6, 3) m: each joint's origin, then the tip."""
        points, rotations = self._chain(joints)
        tip = points[..., -1, :] + rotations[..., -1, :, :] @ np.array(self.tip)
        return np.concatenate([points, tip[..., None, :]], axis=-2)

    def frames_of(self, state: np.ndarray) -> Frames:
        """Of the links in `LINKS`, of states (..., 6): rad, and the opening."""
        state = np.asarray(state, float)
        points, rotations = self._chain(state)
        closed, opened = self.ranges[5]
        angle = closed + state[..., 5:] * (opened - closed)
        jaw = self._jaw.walk(angle, points[..., -1, :], rotations[..., -1, :, :])
        base = np.zeros_like(jaw[0]), np.broadcast_to(np.eye(3), jaw[1].shape)
        return joined(base, (points, rotations), jaw)

    @cached_property
    def _arm(self) -> Chain:
        return Chain(self.links)

    @cached_property
    def _jaw(self) -> Chain:
        return Chain((self.jaw,))

    def _chain(self, joints: np.ndarray) -> Frames:
        joints = np.asarray(joints, float)[..., :5]
        base = np.zeros((*joints.shape[:-1], 3))
        return self._arm.walk(joints, base, np.eye(3))


SO100 = Kinematics(
    name="so100",
    links=(
        ((0, -0.0452, 0.0165), (S, S, 0, 0), (0, 1, 0)),
        ((0, 0.1025, 0.0306), (S, S, 0, 0), (1, 0, 0)),
        ((0, 0.11257, 0.028), (S, -S, 0, 0), (1, 0, 0)),
        ((0, 0.0052, 0.1349), (S, -S, 0, 0), (1, 0, 0)),
        ((0, -0.0601, 0), (S, 0, S, 0), (0, 1, 0)),
    ),
    tip=(0, -0.1014, 0),
    jaw=((-0.0202, -0.0244, 0), (0, 0, 1, 0), (0, 0, 1)),
    ranges=np.array(
        [
            (-1.92, 1.92),
            (-3.32, 0.174),
            (-0.174, 3.14),
            (-1.66, 1.66),
            (-2.79, 2.79),
            (-0.174, 1.75),
        ]
    ),
    sense=np.array([-1, 1, 1, 1, 1, 1]),
)
SO101 = Kinematics(
    name="so101",
    links=(
        ((0.0388353, 0, 0.0624), (0, 0, -1, 0), (0, 0, 1)),
        ((-0.0303992, -0.0182778, -0.0542), (0.5, -0.5, -0.5, -0.5), (0, 0, 1)),
        ((-0.11257, -0.028, 0), (S, 0, 0, S), (0, 0, 1)),
        ((-0.1349, 0.0052, 0), (S, 0, 0, -S), (0, 0, 1)),
        (
            (0, -0.0611, 0.0181),
            (0.0172091, -0.0172091, 0.706897, 0.706897),
            (0, 0, 1),
        ),
    ),
    tip=(-0.0079, -0.000218121, -0.0981274),
    jaw=((0.0202, 0.0188, -0.0234), (S, S, 0, 0), (0, 0, 1)),
    ranges=np.array(
        [
            (-1.91986, 1.91986),
            (-1.74533, 1.74533),
            (-1.69, 1.69),
            (-1.65806, 1.65806),
            (-2.74385, 2.84121),
            (-0.174533, 1.74533),
        ]
    ),
    sense=np.ones(6, int),
)
ARMS = {"so100": SO100, "so101": SO101}
