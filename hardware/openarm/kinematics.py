"""Where the OpenArm's elbows, wrists and fingertips are, from joint angles. NumPy only.

The robot faces +x, +y is its left, and z = 0 is the ground that its pedestal stands on.
Lengths and axes: the maker's models, `openarm_bimanual.xml` of v1 and v2. v2 is mirror
symmetric; v1 is not quite: its elbow and hand lean to the same side on both arms.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..chain import Chain, Frames, Row, joined, matrix

S = np.sqrt(0.5)
SHOULDERS = (0.0, 0.0, 0.698)  # m, on the maker's pedestal
PARTS = (*(f"link{i}" for i in range(1, 8)), "finger1", "finger2")  # of an arm
LINKS = ("body", *(f"{side}_{part}" for side in ("right", "left") for part in PARTS))
ELBOW, WRIST = 3, 6  # places of joint4 and joint7 in the chain


@dataclass(frozen=True)
class Side:
    """One arm: seven turning joints, and two fingers that open together.

    Attributes:
        base: (position m, quaternion wxyz) of its base, from the robot's origin.
        links: One row a joint: (position m, quaternion wxyz, axis) of its frame in the
            one before.
        tool: The point whose place counts as the hand's, in the last frame, m.
        fingers: One row a finger, in the last frame: pivot m, axis, and the fingertip
            from the pivot, m.
        travel: Way of a finger from closed to open: rad, or m where it slides.
        open_at: Angle of the gripper's motor when it is open, rad; closed is 0.
        ranges: (7, 2) mechanical range of each joint, rad.
    """

    base: tuple[tuple, tuple]
    links: tuple[Row, ...]
    tool: tuple[float, float, float]
    fingers: tuple[Row, Row]
    travel: float
    open_at: float
    ranges: np.ndarray


@dataclass(frozen=True)
class Kinematics:
    """Both arms of one version of the OpenArm.

    Attributes:
        name: "v1" or "v2".
        sides: the right arm and the left one.
        slides: whether the fingers slide, instead of turning.
        origin: (3,) m, the point between the shoulders in the world.
    """

    name: str
    sides: tuple[Side, Side]
    slides: bool
    origin: tuple[float, float, float] = SHOULDERS

    @property
    def ranges(self) -> np.ndarray:
        """(16, 2) of both arms' joints, rad; of the grippers as openings, 0 to 1."""
        return np.vstack([row for side in self.sides for row in (side.ranges, (0, 1))])

    @property
    def open_at(self) -> np.ndarray:
        """(2,) angle of the right and the left gripper's motor when open, rad."""
        return np.array([side.open_at for side in self.sides])

    def angles_of(self, state: np.ndarray) -> np.ndarray:
        """States (..., 16) -> angles of the motors (..., 16), rad."""
        angles = np.array(state, float)
        angles[..., 7::8] *= self.open_at
        return angles

    def state_of(self, angles: np.ndarray) -> np.ndarray:
        """The inverse of `angles_of`; for velocities, too."""
        state = np.array(angles, float)
        state[..., 7::8] /= self.open_at
        return state

    def points_of(self, joints: np.ndarray, side: int) -> np.ndarray:
        """(..., 7 or more) -> (..., 8, 3) m: each joint's origin, then the hand."""
        points, rotations = self._chain(joints, side)
        hand = rotations[..., -1, :, :] @ np.array(self.sides[side].tool)
        tool = points[..., -1, :] + hand
        return np.concatenate([points, tool[..., None, :]], axis=-2)

    def watched_of(self, state: np.ndarray) -> np.ndarray:
        """What may hit a table, of a state (..., 16): angles in rad and openings.

        Returns:
            (..., 8, 3) m: elbow, wrist, both fingertips, of the right and the left arm.
        """
        state = np.asarray(state, float)
        watched = []
        for side in (0, 1):
            points, rotations = self._side(state[..., 8 * side : 8 * side + 8], side)
            watched += [points[..., ELBOW, :], points[..., WRIST, :]]
            for i, (_, _, tip) in enumerate(self.sides[side].fingers, start=7):
                watched.append(
                    points[..., i, :] + rotations[..., i, :, :] @ np.array(tip)
                )
        return np.stack(watched, axis=-2)

    def frames_of(self, state: np.ndarray) -> Frames:
        """Of the links in `LINKS`, of states (..., 16): angles in rad and openings."""
        state = np.asarray(state, float)
        right, left = (self._side(state[..., i : i + 8], i // 8) for i in (0, 8))
        shape = state.shape[:-1]
        body = np.broadcast_to(np.array(self.origin), (*shape, 1, 3))
        still = np.broadcast_to(np.eye(3), (*shape, 1, 3, 3))
        return joined((body, still), right, left)

    def _side(self, joints: np.ndarray, side: int) -> Frames:
        """Of one arm's seven links and two fingers, of its joints (..., 8)."""
        points, rotations = self._chain(joints, side)
        last, turned = points[..., -1, :], rotations[..., -1, :, :]
        travel = self.sides[side].travel * joints[..., 7:]
        fingers: list[Frames] = []
        chains = zip(self.sides[side].fingers, self._fingers[side], strict=True)
        for (pivot, axis, _), finger in chains:
            if self.slides:
                local = np.array(pivot) + travel * np.array(axis)
                point = last + (turned @ local[..., None])[..., 0]
                fingers.append((point[..., None, :], turned[..., None, :, :]))
            else:
                fingers.append(finger.walk(travel, last, turned))
        return joined((points, rotations), *fingers)

    def _chain(self, joints: np.ndarray, side: int) -> Frames:
        joints = np.asarray(joints, float)[..., :7]
        base, quat = self.sides[side].base
        origin = np.array(self.origin) + np.array(base)
        origin = np.broadcast_to(origin, (*joints.shape[:-1], 3))
        return self._arms[side].walk(joints, origin, matrix(quat))

    @cached_property
    def _arms(self) -> list[Chain]:
        return [Chain(side.links) for side in self.sides]

    @cached_property
    def _fingers(self) -> list[list[Chain]]:
        """Fingers that turn are one more joint each."""
        rows = [[(at, _WHOLE, axis) for at, axis, _ in s.fingers] for s in self.sides]
        return [[Chain((row,)) for row in pair] for pair in rows]


def _ranges(r: int, first: tuple, second: tuple, rest: np.ndarray) -> np.ndarray:
    """(7, 2) of the right arm (r = 1); the left one's first two joints are mirrored."""
    two = np.array([first, second])
    return np.vstack([two if r > 0 else -two[:, ::-1], rest])


_REST = np.array(
    [
        (-1.570796, 1.570796),
        (0.0, 2.443461),
        (-1.570796, 1.570796),
        (-0.785398, 0.785398),
        (-1.570796, 1.570796),
    ]
)
_WHOLE = (1.0, 0.0, 0.0, 0.0)  # no rotation


def _v1(r: int) -> Side:
    """The right arm (r = 1) or the left one (r = -1) of version 1."""
    side = (S, r * S, 0, 0)
    return Side(
        base=((0, -r * 0.031, 0), side),
        links=(
            ((0, 0, 0.0625), _WHOLE, (0, 0, 1)),
            ((-0.0301, 0, 0.06), side, (-1, 0, 0)),
            ((0.0301, 0, 0.06625), _WHOLE, (0, 0, 1)),
            ((0, 0.0315, 0.15375), _WHOLE, (0, 1, 0)),
            ((0, -0.0315, 0.0955), _WHOLE, (0, 0, 1)),
            ((0.0375, 0, 0.1205), _WHOLE, (1, 0, 0)),
            ((-0.0375, 0, 0), _WHOLE, (0, r, 0)),
        ),
        tool=(0, -0.0045, 0.1801),
        # The fingers' pads meet 6 mm beside the hand's middle.
        fingers=(
            ((0, 0.0015, 0.1001), (0, -1, 0), (0, 0, 0.0955)),
            ((0, 0.0015, 0.1001), (0, 1, 0), (0, 0, 0.0955)),
        ),
        travel=0.044,
        open_at=-1.0472,
        ranges=_ranges(r, (-1.396263, 3.490659), (-0.174533, 3.316125), _REST),
    )


def _v2(r: int) -> Side:
    """The right arm (r = 1) or the left one (r = -1) of version 2."""
    return Side(
        base=((0, -r * 0.031, 0), _WHOLE),
        links=(
            ((0, -r * 0.0625, 0), _WHOLE, (0, -r, 0)),
            ((0, -r * 0.06, 0), _WHOLE, (-1, 0, 0)),
            ((0, 0, -0.06625), _WHOLE, (0, 0, -1)),
            ((0, 0, -0.15375), _WHOLE, (0, -1, 0)),
            ((0, 0, -0.0955), _WHOLE, (0, 0, -1)),
            ((0, 0, -0.1205), _WHOLE, (0, r, 0)),
            ((0, 0, 0), _WHOLE, (1, 0, 0)),
        ),
        tool=(0, 0, 0),
        fingers=(
            ((-0.00143, r * 0.018, -0.068), (-1, 0, 0), (0, -r * 0.0105, -0.102)),
            ((-0.00143, -r * 0.018, -0.068), (1, 0, 0), (0, r * 0.0105, -0.102)),
        ),
        travel=-r * 0.7854,
        open_at=-r * np.pi / 2,
        ranges=_ranges(r, (-1.3963, 3.4907), (-0.17453, 3.3161), _REST),
    )


ARMS = {
    "v1": Kinematics("v1", (_v1(1), _v1(-1)), slides=True),
    "v2": Kinematics("v2", (_v2(1), _v2(-1)), slides=False),
}
