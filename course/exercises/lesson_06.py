"""Lesson 06: counting updates, normalising, and comparing orders."""

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from torch import Tensor

from ..toolkit.checks import (
    Wrong,
    attempt,
    each_case,
    exercise,
    is_right,
    name_the_mistake,
    number,
    numbers,
    told_apart,
    two_parts,
)


@exercise(
    "06.updates",
    minutes=5,
    hints=(
        "An epoch of the original visits each training episode once, whatever its "
        "length, and draws one window from it.",
        "So an epoch has as many windows as training episodes: share * episodes.",
        "A batch that is not full is an update, too: round up, math.ceil.",
    ),
    praise="2000 epochs sounds like much more than 10 000 updates. They are the same.",
)
def check_updates(function: Callable) -> None:
    """`function(epochs, episodes, frames, batch, share)` gives a number of updates."""
    first = (30, 50, 180, 12, 0.9)
    for case in (
        first,
        (40, 100, 210, 10, 0.7),
        (2000, 50, 410, 8, 0.8),
        (30, 46, 180, 16, 0.7),  # share * episodes is no whole number
        (20, 100, 190, 7, 0.29),  # nor is it here, to a computer: 28.999...
    ):
        epochs, episodes, _, batch, share = case
        found = number(attempt(function, *case), "a number")
        right = _updates(*case)
        mistakes = _miscounted(*case)
        mistakes[
            "this uses 30 epochs, 50 episodes, batches of 12, or a share of 0.9, "
            "whatever is asked: take each from its argument"
        ] = [
            _updates(*(mine if i == at else x for i, x in enumerate(case)))
            for at, mine in enumerate(first)
        ]
        if not is_right(found, right, mistakes, rtol=0, atol=1e-6):
            raise Wrong(
                f"{epochs} epochs over {episodes} episodes, {share:.0%} of them for "
                f"training, in batches of {batch}: expected {right}, found {found:g}"
            )


def _updates(epochs: Any, episodes: Any, frames: Any, batch: Any, share: Any) -> int:
    return epochs * -(-round(episodes * share) // batch)


def _miscounted(
    epochs: int, episodes: int, frames: int, batch: int, share: float
) -> dict[str, Any]:
    """Every combination of the usual slips, and the words for it."""
    windows = {
        "": round(episodes * share),
        "every frame is a window here; the original draws one window an episode and "
        "epoch": round(episodes * share) * frames,
    }
    held_out = "the episodes held out for validation are trained on here"
    windows |= {
        held_out: episodes,
        f"{'; '.join([*list(windows)[1:], held_out])}": episodes * frames,
    }
    batched: dict[str, Callable[[int], float]] = {
        "": lambda n: -(-n // batch),
        "the batches are rounded down; one that is not full is an update, too": (
            lambda n: n // batch
        ),
        "no rounding: an update happens or does not": lambda n: n / batch,
        "these are windows; an update takes `batch` of them": lambda n: n,
    }
    found: dict[str, Any] = {
        "round up in each epoch, not once at the end": (
            -(-epochs * windows[""] // batch)
        ),
        "int() cuts share * episodes off, and to a computer 0.29 * 100 is 28.999...; "
        "round it": epochs * -(-int(share * episodes) // batch),
        "no part of an episode is a window: round share * episodes": (
            epochs * math.ceil(share * episodes / batch)
        ),
    }
    for (one, n), (two, count) in itertools.product(windows.items(), batched.items()):
        for three, times in (("", epochs), ("these are the updates of one epoch", 1)):
            words = "; and ".join(x for x in (one, two, three) if x)
            if words:
                found[words] = times * count(n)
    return found


@exercise(
    "06.scale",
    minutes=8,
    hints=(
        "One mean and one deviation for each joint: over which axis?",
        "A floor is the least value that the deviation may have: np.maximum.",
        "x.mean(0), and np.maximum(x.std(0), floor).",
    ),
    praise="Each joint counts alike; where one hardly moves, noise stays small.",
)
def check_scale(function: Callable) -> None:
    """`function(x (M, S), floor)` gives mean (S,) and deviation (S,)."""
    rng = np.random.default_rng(0)
    three = rng.normal([0.5, -1.0, 2.0], [0.4, 1.5, 1e-5], (200, 3))
    four = rng.normal([0.1, 2.0, -1.0, 0.3], [0.5, 1e-3, 0.03, 1.0], (250, 4))
    each_case(  # no floor is the package's 0.01, so that it has to be used
        {
            "x (200, 3), floor = 0.02": (three, 0.02),
            "x (250, 4), floor = 0.05": (four, 0.05),
        },
        lambda case: _examine_scale(function, *case),
        "take the floor from the argument, and all sizes from x",
    )


def _examine_scale(function: Callable, x: np.ndarray, floor: float) -> None:
    found = attempt(function, x.copy(), floor)
    if isinstance(found, np.ndarray | Tensor) and found.ndim == 2:
        found = list(found)  # both as the rows of one array
    found = two_parts(found, "arrays are wanted: mean and deviation")
    mean, std = (numbers(part) for part in found)
    shape = x.shape[1:]
    if mean.shape != shape or std.shape != shape:
        raise Wrong(
            f"expected shapes {shape} and {shape}, one number a joint; found "
            f"{mean.shape} and {std.shape}. Over which axis do you go?"
        )
    centre = np.array([sum(column) / len(column) for column in x.T])
    if not np.allclose(mean, centre):
        raise Wrong(
            f"the means are {np.round(mean, 3)}, expected {np.round(centre, 3)}"
        )
    squares = np.array([((c - m) ** 2).sum() for c, m in zip(x.T, centre, strict=True)])
    plain = np.sqrt(squares / len(x))
    right = np.array([p if p > floor else floor for p in plain])
    if any(
        np.allclose(
            std, np.where(right > floor, np.sqrt(squares / m), floor), rtol=1e-5
        )
        for m in (len(x), len(x) - 1)
    ):
        return
    mistakes = {
        "there is no floor: the joint that hardly moves is divided by almost nothing": (
            plain
        ),
        "the floor is added to every deviation; it should only replace smaller ones": (
            plain + floor
        ),
        "this takes the smaller of deviation and floor; a floor holds from below": (
            np.minimum(plain, floor)
        ),
        "this is the variance; the deviation is its square root": np.maximum(
            plain**2, floor
        ),
        "this is the range, highest minus lowest; one outlier would decide it": (
            np.maximum(x.max(0) - x.min(0), floor)
        ),
        "the floor goes under the square root here: sqrt(variance + floor)": np.sqrt(
            plain**2 + floor
        ),
        "a deviation below the floor becomes 1 here; it should become the floor": (
            np.where(plain < floor, 1.0, plain)
        ),
        "the floor is put on the variance; it belongs on its square root": np.sqrt(
            np.maximum(plain**2, floor)
        ),
        "this is the mean absolute deviation; wanted is the root of the mean square": (
            np.maximum(np.abs(x - centre).mean(0), floor)
        ),
    }
    name_the_mistake(std, mistakes, rtol=1e-6)
    raise Wrong(f"the deviations are {np.round(std, 4)}, expected {np.round(right, 4)}")


@exercise(
    "06.ranks",
    minutes=10,
    hints=(
        "The rank of a value is how many values are smaller than it.",
        "argsort gives places in the sorted list, not ranks: of what is it the answer? "
        "x.argsort().argsort() gives ranks.",
        "Then Pearson's correlation of the two rank arrays: np.corrcoef(ra, rb)[0, 1].",
    ),
    praise="Only the order counts: no matter how a loss is scaled or bent.",
)
def check_ranks(function: Callable) -> None:
    """`function(a (n,), b (n,))` gives Spearman's correlation; there are no ties."""
    six = [0.3, 0.9, 0.1, 0.5, 8.0, 0.7], [50.0, 30.0, 2.0, 40.0, 1.0, 600.0]
    eight = (
        [0.3, 9.0, 0.1, 0.5, 0.2, 6.0, 2.0, 0.4],
        [50.0, 3.0, 2.0, 400.0, 9.0, 0.5, 30.0, 1.0],
    )
    each_case(
        {"n = 6": six, "n = 8": eight},
        lambda case: _examine_ranks(function, *map(np.array, case)),
        "take n from the arrays, len(a)",
    )


def _examine_ranks(function: Callable, a: np.ndarray, b: np.ndarray) -> None:
    n = len(a)
    found = number(attempt(function, a.copy(), b.copy()), "a number")

    def ranks_of(x: np.ndarray) -> np.ndarray:
        return np.array([sum(other < one for other in x) for one in x])

    gaps = ranks_of(a) - ranks_of(b)
    right = 1 - 6 * (gaps**2).sum() / (n * (n * n - 1))
    ra, rb = ranks_of(a), ranks_of(b)
    mistakes = {
        "this is Pearson's correlation of the values themselves; take their ranks "
        "first": np.corrcoef(a, b)[0, 1],
        "argsort once gives where the sorted values stood, not ranks; argsort its "
        "result again": np.corrcoef(a.argsort(), b.argsort())[0, 1],
        "the sign is wrong: is one of the two ranked from the top, or is this the "
        "absolute value?": -right,
        "only one of the two is ranked": [
            np.corrcoef(ra, b)[0, 1],
            np.corrcoef(a, rb)[0, 1],
        ],
        "these are Kendall's pairs; wanted is Pearson's correlation of the ranks": (
            _kendall(a, b)
        ),
        "this is the square of the correlation; its sign is lost": right**2,
        "this is the covariance of the ranks; divide by both deviations": [
            np.cov(ra, rb, ddof=ddof)[0, 1] for ddof in (0, 1)
        ],
    }
    if not is_right(found, right, mistakes, atol=1e-5):
        raise Wrong("expected {}, found {}".format(*told_apart(right, found)))


def _kendall(a: np.ndarray, b: np.ndarray) -> float:
    """The share of pairs in the same order, less the share in the opposite one."""
    pairs = list(itertools.combinations(range(len(a)), 2))
    return sum(np.sign((a[i] - a[j]) * (b[i] - b[j])) for i, j in pairs) / len(pairs)
