"""How an arm follows its commands: after how many ticks, and how fast."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from .evidence import IDLE


@dataclass(frozen=True)
class Response:
    """Fitted joint by joint: a step of qpos is `gain` times what was left of it."""

    delay: np.ndarray
    """(A,) ticks from a command to the state that it moves first."""
    gain: np.ndarray
    """(A,) share of the way that is left which a joint goes in a tick."""
    moves: np.ndarray
    """(A,) whether a joint moved enough to tell."""


def lag(
    runs: Sequence[tuple[np.ndarray, np.ndarray]], most: int
) -> tuple[np.ndarray, np.ndarray]:
    """By how many ticks joints are behind their actions, and whether that can be told.

    By how far the paths lie apart, which noise of the encoders hardly changes.

    Returns:
        (A,) ticks from -most to most; (A,) True where a joint was told to move and did,
        and one lag is better than its neighbours.
    """
    size = runs[0][0].shape[1]
    runs = [run for run in runs if len(run[0]) > 2 * most]
    if not runs:
        return np.zeros(size, int), np.zeros(size, bool)
    both = np.array([[np.ptp(x, axis=0) for x in run] for run in runs])  # (runs, 2, A)
    moves = both.max(0).min(0) > 3 * IDLE
    apart = []
    for d in range(-most, most + 1):
        off = [
            qpos[max(0, d) : len(qpos) + min(0, d)]
            - action[max(0, -d) : len(action) + min(0, -d)]
            for qpos, action in runs
        ]
        apart.append(np.concatenate(off).std(0))
    best = np.argmin(apart, axis=0)
    inside = (best > 0) & (best < 2 * most)
    return best - most, moves & inside


def response(
    runs: Sequence[tuple[np.ndarray, np.ndarray]], delays: Iterable[int]
) -> Response:
    """The delay and gain that explain best how joints (T, A) follow actions (T, A).

    qpos[t + 1] - qpos[t] = gain (action[t - delay] - qpos[t]): a first-order lag after
    a dead time, which position servos are nearly.
    """
    size = runs[0][0].shape[1]
    moves = np.max([np.ptp(qpos, axis=0) for qpos, _ in runs], axis=0) > 3 * IDLE
    best = np.full(size, np.inf)
    delay, gain = np.zeros(size, int), np.zeros(size)
    for d in delays:
        steps, left, before = [], [], []
        for qpos, action in runs:
            t = np.arange(max(1, d), len(qpos) - 1)
            if len(t) == 0:
                continue
            steps.append(qpos[t + 1] - qpos[t])
            left.append(action[t - d] - qpos[t])
            before.append(action[t - d] - qpos[t - 1])
        if not steps:
            continue
        step, rest = np.concatenate(steps), np.concatenate(left)  # (M, A)
        # qpos[t] and its noise are in both; the state before has noise of its own.
        other = np.concatenate(before)
        slope = (step * other).sum(0) / np.maximum((rest * other).sum(0), 1e-12)
        error = ((step - slope * rest) ** 2).mean(0)
        better = error < best
        best[better], delay[better] = error[better], d
        gain[better] = slope[better]
    return Response(delay, gain, moves)
