"""Where an arm's joints are, from their angles: forward kinematics with NumPy only."""

import numpy as np

Row = tuple[tuple, tuple, tuple]
"""(position m, quaternion wxyz, axis) of a turning joint's frame in the one before."""
Frames = tuple[np.ndarray, np.ndarray]
"""Places (..., L, 3) m and rotations (..., L, 3, 3) of L links."""


class Chain:
    """Turning joints, one behind the other, a row each; axes have length 1."""

    def __init__(self, links: tuple[Row, ...]):
        self._offsets = np.array([p for p, _, _ in links], float)  # (J, 3)
        frames = np.stack([matrix(q) for _, q, _ in links])  # (J, 3, 3)
        cross = np.stack([_cross(axis) for _, _, axis in links])
        # Rodrigues' formula: 1 + sin k + (1 - cos) k², in the frame before.
        self._still = frames
        self._sine = frames @ cross
        self._rest = frames @ cross @ cross

    def walk(
        self, angles: np.ndarray, position: np.ndarray, rotation: np.ndarray
    ) -> Frames:
        """Along the chain with its angles (..., J) rad.

        It begins at a position (..., 3) m, turned by a rotation (..., 3, 3).

        Returns:
            (..., J, 3) m, the frames' origins; (..., J, 3, 3), how they are turned.
        """
        angles = np.asarray(angles, float)[..., None, None]
        sine, rest = np.sin(angles), 1 - np.cos(angles)
        turns = self._still + sine * self._sine + rest * self._rest
        points, rotations = [], []
        for i, offset in enumerate(self._offsets):
            position = position + rotation @ offset
            points.append(position)
            rotation = rotation @ turns[..., i, :, :]
            rotations.append(rotation)
        return np.stack(points, axis=-2), np.stack(rotations, axis=-3)


def joined(*frames: Frames) -> Frames:
    """Frames of the same states, one after the other."""
    points, rotations = zip(*frames, strict=True)
    return np.concatenate(points, axis=-2), np.concatenate(rotations, axis=-3)


def matrix(quat: tuple) -> np.ndarray:
    """Rotation matrix (3, 3) of a quaternion wxyz."""
    w, x, y, z = np.array(quat, float) / np.linalg.norm(quat)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


def _cross(axis: tuple) -> np.ndarray:
    """(3, 3) that takes a vector to its cross product with an axis."""
    x, y, z = axis
    return np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]], float)
