"""C30: chunks on linear systems that are stable without feedback, or are not.

x⁺ = A x + u + w with states in the plane; A turns by 0.3 rad and stretches by its
spectral radius. The expert takes 5 % off the state each step, and its demonstrations
all begin on one axis and stay there. So they do not say what to do beside it, and there
a clone keeps what it was initialised with, as a network does: that is the third thing
varied, beside the system and the chunk.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from act_minimal.evaluation import Rate

from ..rollouts import Row, grouped, total
from .claim import Claim

LABELS = ("radius", "injected", "initial", "k")
RADII = (0.8, 1.0, 1.1)  # of A: stable, marginal, unstable
CHUNKS = (1, 5, 25)
STEPS = 100
CLOSED = 0.95  # what the expert makes of the state in a step
HAND = 0.02  # deviation of what is noted of the expert's actions
WIND = 0.01  # deviation of w
INJECTED = 0.2  # deviation of what every second demonstration's actions get added
INITIAL = (0.0, 0.25, 0.5)  # deviation of a clone's gains before it has learnt
RIDGE = 0.01  # how hard it is to move them
AWAY = 0.5  # a clone that gets farther from the expert has failed


@dataclass
class Clones:
    """Sizes of C30."""

    seeds: tuple[int, ...] = (0, 1, 2)
    n: int = 100
    """Clones a seed, each with its own demonstrations."""
    demonstrations: int = 10
    """Of a clone."""


def system(radius: float) -> np.ndarray:
    """A (2, 2)."""
    c, s = np.cos(0.3), np.sin(0.3)
    return radius * np.array([[c, -s], [s, c]])


def demonstrate(
    a: np.ndarray, n: int, inject: bool, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """States and noted actions, (n, T, 2) each; half of them disturbed, if asked."""
    expert = CLOSED * np.eye(2) - a
    states, actions = np.zeros((n, STEPS, 2)), np.zeros((n, STEPS, 2))
    x = np.stack([rng.uniform(0.5, 1.5, n), np.zeros(n)], 1)  # (n, 2)
    disturbed = inject * (np.arange(n) % 2)[:, None]
    for t in range(STEPS):
        action = x @ expert.T
        states[:, t], actions[:, t] = x, action + rng.normal(0, HAND, (n, 2))
        x = x @ a.T + action + disturbed * rng.normal(0, INJECTED, (n, 2))
    return states, actions


def clone(
    states: np.ndarray,
    actions: np.ndarray,
    k: int,
    initial: float,
    rng: np.random.Generator,
) -> np.ndarray:
    """Gains (k, 2, 2) of a chunk: ridge regression towards random initial gains."""
    gains = []
    for j in range(k):
        x = states[:, : STEPS - j].reshape(-1, 2)
        y = actions[:, j:].reshape(-1, 2)  # the action j steps later
        first = rng.normal(0, initial, (2, 2))
        gain = np.linalg.solve(x.T @ x + RIDGE * np.eye(2), x.T @ y + RIDGE * first)
        gains.append(gain.T)
    return np.stack(gains)


def execute(a: np.ndarray, gains: np.ndarray, wind: np.ndarray) -> np.ndarray:
    """States (T + 1, 2): a chunk is decided every k steps, and executed blindly."""
    x = seen = np.array([1.0, 0.0])
    states = [x]
    for t, w in enumerate(wind):
        if t % len(gains) == 0:
            seen = x
        x = a @ x + gains[t % len(gains)] @ seen + w
        states.append(x)
    return np.stack(states)


def farthest(
    radius: float, inject: bool, initial: float, k: int, n: int, seed: Sequence[int]
) -> float:
    """How far a clone of n demonstrations gets from the expert in the same wind."""
    rng = np.random.default_rng(seed)
    a = system(radius)
    wind = rng.normal(0, WIND, (STEPS, 2))
    gains = clone(*demonstrate(a, n, inject, rng), k, initial, rng)
    expert = execute(a, CLOSED * np.eye(2)[None] - a, wind)
    return float(np.linalg.norm(execute(a, gains, wind) - expert, axis=1).max())


def measure(settings: Clones) -> Row:
    """Every system and start with every chunk size, with and without injected noise."""
    rows, n = [], settings.demonstrations
    for what in itertools.product(RADII, (False, True), INITIAL, CHUNKS):
        for seed in settings.seeds:
            found = [farthest(*what, n, [seed, i]) for i in range(settings.n)]
            rate = Rate(sum(far < AWAY for far in found), settings.n)
            row = dict(zip(LABELS, what, strict=True)) | {"seed": seed}
            rows.append(row | rate.to_json() | {"median": float(np.median(found))})
    return {
        "seeds": settings.seeds,
        "away": AWAY,
        "summary": [
            label
            | total(group)
            | {"median": float(np.median([r["median"] for r in group]))}
            for label, group in grouped(rows, LABELS)
        ],
        "runs": rows,
    }


def at(radius: float, k: int, initial: float = 0.5, injected: bool = False) -> str:
    """A number, as prose names it."""
    how = f"radius={radius} injected={str(injected).lower()} initial={initial} k={k}"
    return f"{{{{{how}}}}}"


C30 = Claim(
    "C30",
    "Chunks keep errors from growing where the system is stable without feedback; "
    "elsewhere noise injected into demonstrations does.",
    "Zhang et al. (2507.09061), a theorem, and three simulated tasks.",
    measure,
    Clones(),
    ours="Linear systems in the plane, clones that stay within 0.5 of an expert that "
    "begins at 1. Off the demonstrations they act by gains drawn with a deviation of "
    f"0.5. Spectral radius 0.8: single steps {at(0.8, 1)}, k = 5 {at(0.8, 5)}, k = 25 "
    f"{at(0.8, 25)}. 1.0: {at(1.0, 1)}, {at(1.0, 5)}, {at(1.0, 25)}. 1.1: "
    f"{at(1.1, 1)}, {at(1.1, 5)}, {at(1.1, 25)}. With a deviation of 0.25, 1.0: single "
    f"steps {at(1.0, 1, 0.25)}, k = 25 {at(1.0, 25, 0.25)}; with gains of 0, 0.8: "
    f"{at(0.8, 1, 0.0)} and {at(0.8, 25, 0.0)}, 1.1: {at(1.1, 1, 0.0)} and "
    f"{at(1.1, 25, 0.0)}. With noise in half of the demonstrations (0.5 again) single "
    f"steps reach {at(0.8, 1, injected=True)}, {at(1.0, 1, injected=True)} and "
    f"{at(1.1, 1, injected=True)}, chunks of 25 {at(0.8, 25, injected=True)}, "
    f"{at(1.0, 25, injected=True)} and {at(1.1, 25, injected=True)}.",
    verdict="under a condition",
    line="A stable system forgets errors of a chunk; an unstable one multiplies them, "
    "and needs noise in its data.",
    why="How much there is to gain depends on what a clone does where it was shown "
    "nothing. With injected noise the demonstrations show every direction, and looking "
    "at each step is best.",
)
