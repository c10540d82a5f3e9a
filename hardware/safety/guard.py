"""Boxes around the links of an arm, and how near they are to what they may not touch.

Each link is covered by boxes that move with it. How far two of them are apart follows
from the separating axis theorem (S. Gottschalk et al., OBBTree, 1996): along one of 15
directions the gap between their shadows is widest. If they overlap, that is how deep;
else they are at least that far apart. NumPy only, for many states at once.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np

from ..chain import Frames

FAR = 0.06  # m: what is farther apart is not looked at more closely


class Box(NamedTuple):
    """A box that moves with a link."""

    link: str
    centre: tuple[float, float, float]
    """m, in the link's frame."""
    half: tuple[float, float, float]
    """m, half of its edges."""
    over_table: float | None = None
    """m that it has to stay within the workspace; None where it cannot leave it."""
    turn: float = 0.0
    """rad about the link's z axis, along whose axes its edges lie else."""


class Guard:
    """The boxes of an arm, or of two.

    Args:
        links: their names, in the order of the frames.
        frames_of: state (..., A) -> frames of the links.
        boxes: at least one a link.
        pairs: (link, link, m): which may not come nearer than that to each other;
            none for an arm that cannot meet itself.
    """

    def __init__(
        self,
        links: Sequence[str],
        frames_of: Callable[[np.ndarray], Frames],
        boxes: Sequence[Box],
        pairs: Iterable[tuple[str, str, float]],
    ):
        self.frames_of = frames_of
        self.boxes = tuple(boxes)
        self._link = np.array([links.index(box.link) for box in boxes])
        self._centre = np.array([box.centre for box in boxes])
        self._half = np.array([box.half for box in boxes])
        self._turn = np.stack([_about_z(box.turn) for box in boxes])
        self._round = np.linalg.norm(self._half, axis=1)
        self._free = np.array([box.over_table is not None for box in boxes])
        self.in_workspace = int(self._free.sum())
        self._over = np.array([box.over_table or 0.0 for box in boxes])[self._free]
        rows = [
            (a, b, margin)
            for one, other, margin in pairs
            for a, first in enumerate(boxes)
            for b, second in enumerate(boxes)
            if first.link == one and second.link == other
        ]
        indices = np.array([row[:2] for row in rows], int).reshape(-1, 2)
        self._a, self._b = indices.T
        self._margin = np.array([row[2] for row in rows], float)
        self._reach = self._round[self._a] + self._round[self._b]
        self.pairs = [(boxes[a].link, boxes[b].link) for a, b, _ in rows]

    def places_of(self, state: np.ndarray) -> Frames:
        """Of the boxes, of states (..., A): middles and rotations."""
        points, rotations = self.frames_of(np.asarray(state, float))
        rotations = rotations[..., self._link, :, :]
        turned = (rotations @ self._centre[:, :, None])[..., 0]
        return points[..., self._link, :] + turned, rotations @ self._turn

    def lowest(self, state: np.ndarray) -> np.ndarray:
        """(...,) m, how high the lowest corner is of what may leave the workspace."""
        centres, rotations = self.places_of(state)
        down = (np.abs(rotations[..., 2, :]) * self._half).sum(-1)
        return (centres[..., 2] - down)[..., self._free].min(-1)

    def clearance(
        self, state: np.ndarray, low: np.ndarray, high: np.ndarray
    ) -> np.ndarray:
        """How much farther than it must be everything is.

        Args:
            state: (..., A).
            low: (3,) m, of the workspace.
            high: (3,) m.

        Returns:
            (..., C) m, below zero where something is too near: of `in_workspace` boxes
            from the workspace's sides, then of the pairs, at most FAR.
        """
        state = np.asarray(state, float)
        centres, rotations = self.places_of(state.reshape(-1, state.shape[-1]))
        extent = (np.abs(rotations) @ self._half[:, :, None])[..., 0]
        centre, extent = centres[:, self._free], extent[:, self._free]
        inside = np.minimum(centre - extent - low, high - centre - extent).min(-1)
        found = np.concatenate(
            [inside - self._over, self._apart(centres, rotations)], 1
        )
        return found.reshape(*state.shape[:-1], -1)

    def moved(self, start: np.ndarray, end: np.ndarray) -> np.ndarray:
        """(C,) which clearances are of boxes that are elsewhere in state `end` (A,)."""
        (middles, turns), (new_middles, new_turns) = map(self.places_of, (start, end))
        stays = np.abs(new_middles - middles).max(-1) < 1e-9
        stays &= np.abs(new_turns - turns).max((-2, -1)) < 1e-9
        return ~np.concatenate([stays[self._free], stays[self._a] & stays[self._b]])

    def _apart(self, centres: np.ndarray, rotations: np.ndarray) -> np.ndarray:
        """(N, P) m, of N states: the distance of each pair above its margin."""
        between = centres[:, self._b] - centres[:, self._a]  # (N, P, 3)
        # Where the spheres around two boxes are far apart, the boxes are at least so.
        gap = np.sqrt((between**2).sum(-1)) - self._reach - self._margin
        state, pair = np.nonzero(gap < FAR)
        if len(pair):
            a, b = self._a[pair], self._b[pair]
            exact = gap_of(
                between[state, pair],
                rotations[state, a],
                rotations[state, b],
                self._half[a],
                self._half[b],
            )
            gap[state, pair] = exact - self._margin[pair]
        return np.minimum(gap, FAR)


def _about_z(angle: float) -> np.ndarray:
    sine, cosine = np.sin(angle), np.cos(angle)
    return np.array([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]])


def gap_of(
    between: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    half_first: np.ndarray,
    half_second: np.ndarray,
) -> np.ndarray:
    """How far two boxes are apart.

    Args:
        between: (n, 3) m, from the first one's middle to the second one's.
        first: (n, 3, 3) rotation of the first one.
        second: (n, 3, 3) rotation of the second one.
        half_first: (n, 3) m, half of its edges.
        half_second: (n, 3) m.

    Returns:
        (n,) m: below zero, minus how deep they overlap; else at most their distance.
    """
    turn = np.swapaxes(first, -1, -2) @ second  # (n, 3, 3), the second in the first
    size = np.abs(turn)
    way = (between[:, None] @ first)[:, 0]  # (n, 3) in the first one's frame
    back = (between[:, None] @ second)[:, 0]
    of_first = np.abs(way) - half_first - (size @ half_second[:, :, None])[..., 0]
    of_second = np.abs(back) - half_second - (half_first[:, None] @ size)[:, 0]
    # Directions across an edge of each: e_i x e_j, with i + 1 and i + 2 beside i.
    i1, i2 = [1, 2, 0], [2, 0, 1]
    shift = np.abs(way[:, i2, None] * turn[:, i1] - way[:, i1, None] * turn[:, i2])
    shadow = (
        half_first[:, i1, None] * size[:, i2]
        + half_first[:, i2, None] * size[:, i1]
        + half_second[:, None, i1] * size[:, :, i2]
        + half_second[:, None, i2] * size[:, :, i1]
    )
    length = np.sqrt(np.maximum(1.0 - turn**2, 0.0))
    # Parallel edges have no direction across both; the faces' own stand for it.
    across = np.where(
        length > 1e-3, (shift - shadow) / np.maximum(length, 1e-3), -np.inf
    )
    return np.maximum(
        np.maximum(of_first, of_second).max(-1), across.reshape(len(turn), 9).max(-1)
    )
