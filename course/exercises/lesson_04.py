"""Lesson 04: the temporal ensembler, offline and online."""

from collections.abc import Callable

import numpy as np

from ..toolkit.checks import (
    Wrong,
    attempt,
    each_case,
    exercise,
    is_right,
    numbers,
    same,
    told_apart,
)


def _average(
    predictions: np.ndarray, m: float, newest_first: bool = False
) -> np.ndarray:
    """The definition, one prediction at a time in plain Python."""
    rows = predictions[::-1] if newest_first else predictions
    total, weights = np.zeros(predictions.shape[1]), 0.0
    for i, row in enumerate(rows):
        total, weights = total + np.exp(-m * i) * row, weights + np.exp(-m * i)
    return total / weights


@exercise(
    "04.average",
    minutes=8,
    hints=(
        "Row 0 of `predictions` is the oldest. How much should it weigh, by the paper?",
        "np.exp(-m * np.arange(n)) gives one weight a prediction: (n,).",
        "Weights that do not add up to one make the arm do too much, or too little.",
    ),
    praise="The oldest prediction weighs most, and the weights add up to one.",
)
def check_average(function: Callable) -> None:
    """`function(predictions (n, A), m)` gives the ensembled action (A,)."""
    shapes = (7, 3), (9, 5), (1, 3)
    each_case(
        {f"n, A = {n}, {a}": (n, a) for n, a in shapes},
        lambda shape: _examine_average(function, shape),
        "take the number of predictions and of joints from `predictions`",
    )


def _examine_average(function: Callable, shape: tuple[int, int]) -> None:
    predictions, m = np.random.default_rng(0).normal(size=shape) + 2.0, 0.3
    answer = numbers(attempt(function, predictions.copy(), m))
    if answer.shape != (shape[1],):
        raise Wrong(
            f"the action should have shape {shape[1:]}, one number a joint; yours has "
            f"{answer.shape}. Over which axis do you average?"
        )
    ages = np.arange(len(predictions))
    weights = np.exp(-m * ages)
    mistakes = {
        "the order is reversed (or m's sign, which is the same): i = 0 is the oldest "
        "prediction, row 0, so it weighs exp(0) = 1, the most": _average(
            predictions, m, newest_first=True
        ),
        "the weights are not divided by their sum": weights @ predictions,
        "the weights fall by exp(-m) each, not by m: exp(-m i), not m ** i": (
            m**ages @ predictions / (m**ages).sum()
        ),
        "this is the plain mean; m is not used": predictions.mean(0),
        "this is the sum over n, not over the weights": weights
        @ predictions
        / len(predictions),
        "this is the newest prediction alone": predictions[-1],
        "this is the oldest prediction alone": predictions[0],
    }
    if is_right(answer, _average(predictions, m), mistakes):
        for other in (0.0, -0.2):
            fixed = f"the same for m = {m} and m = {other}: take m from the argument"
            with np.errstate(all="ignore"):  # what is not finite is named below
                found = numbers(attempt(function, predictions.copy(), other))
            if not is_right(
                found, right := _average(predictions, other), {fixed: answer}
            ):
                raise Wrong(
                    f"right for m = {m}, but for m = {other} expected "
                    f"{np.round(right, 3)}, found {np.round(found, 3)}. m may have any "
                    "sign, and with m = 0 all weights are 1"
                )
        return
    raise Wrong(
        f"for m = {m} and predictions {np.round(predictions[:, 0], 2)} of the first "
        "joint, expected {}, found {}".format(
            *told_apart(_average(predictions, m)[0], answer[0])
        )
    )


@exercise(
    "04.online",
    minutes=12,
    hints=(
        "`mean` already holds `count` predictions. What share of the new mean is new?",
        "The newest weighs exp(-m * count); all older ones together weigh "
        "np.exp(-m * np.arange(count)).sum().",
        "mean + share * (new - mean), with share = newest / (older + newest).",
    ),
    praise="One running mean a tick: nothing old has to be kept.",
)
def check_online(function: Callable) -> None:
    """`function(mean (A,), count, new (A,), m)` gives the mean with `new` in it."""
    each_case(
        {"2 joints": 2, "3 joints": 3},
        lambda joints: _examine_online(function, joints),
        "take their number from `mean` or `new`",
    )


def _examine_online(function: Callable, joints: int) -> None:
    rng = np.random.default_rng(1)
    predictions, m = rng.normal(size=(6, joints)) + 1.0, 0.4
    first = numbers(attempt(function, np.zeros(joints), 0, predictions[0], m))
    if first.shape != (joints,):
        raise Wrong(
            f"the mean should keep its shape ({joints},); yours has {first.shape}"
        )
    if not same(first, predictions[0]):
        raise Wrong("with count = 0 there is nothing older: the mean is the new one")
    counts = np.arange(1, 6)
    means, rights, got = _growing_means(function, predictions, m)
    newest = np.exp(-m * counts)
    older = np.cumsum(np.exp(-m * np.arange(5)))  # of the `count` before it
    early, late = np.exp(-m * (counts - 1)), np.exp(-m * (counts + 1))
    shares = {
        "the newest of count + 1 predictions has i = count, not count + 1": late
        / (older + late),
        "the newest of count + 1 predictions has i = count, not count - 1": early
        / (older + early),
        "the newest should weigh exp(-m count), the least; here it weighs most: the "
        "order is reversed": 1 / (older + newest),
        "this is the plain running mean; m is not used": 1 / (counts + 1),
        "an exponential moving average forgets at a fixed rate; here the share "
        "depends on count": np.full(5, 1 - np.exp(-m)),
        "the newest's weight is not its share: divide it by the sum of all weights, "
        "its own too": newest,
        "this moves the wrong share: the new mean takes `share` of the new "
        "prediction, not of the old": older / (older + newest),
        "the sum has all weights, the newest's own too": newest / older,
    }
    # A mistake has to explain every answer: with two predictions many look alike.
    moves = predictions[1:] - means
    mistakes = {words: means + x[:, None] * moves for words, x in shares.items()}
    if not is_right(got, rights, mistakes):
        _raise_first_difference(got, rights, m)
    one, two = (
        numbers(attempt(function, means[1].copy(), 2, predictions[2], other))
        for other in (m, -0.3)
    )
    if same(one, two):
        raise Wrong(f"the same for m = {m} and m = -0.3: take m from the argument")
    _check_at_zero(function, predictions)
    for other in (-0.3, 0.01):
        _, rights, got = _growing_means(function, predictions, other)
        if not same(got, rights):
            _raise_first_difference(got, rights, other)
    # What no history explains: a mean of other predictions.
    mean, own = means[2] + np.arange(1, joints + 1), np.exp(-3 * m) / older[3]
    found = numbers(attempt(function, mean.copy(), 3, predictions[3], m))
    if not same(found, mean + own * (predictions[3] - mean)):
        raise Wrong(
            "`mean` is all that is known of the older predictions; yours gives another "
            "answer where it is not the mean of those of earlier calls. Keep no list"
        )


def _growing_means(
    function: Callable, predictions: np.ndarray, m: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Means (5, A) of 1 to 5 predictions, with one more, and that by `function`."""
    counts = range(1, 6)
    means = np.stack([_average(predictions[:c], m) for c in counts])
    rights = np.stack([_average(predictions[: c + 1], m) for c in counts])
    with np.errstate(all="ignore"):  # what is not finite is compared as it is
        got = [
            numbers(attempt(function, mean.copy(), c, predictions[c], m))
            for c, mean in zip(counts, means, strict=True)
        ]
    if any(one.shape != means[0].shape for one in got):
        raise Wrong(
            f"the mean should keep its shape {means[0].shape}, whatever the count"
        )
    return means, rights, np.stack(got)


def _check_at_zero(function: Callable, predictions: np.ndarray) -> None:
    zero = (
        "right for m = 0.4, but at m = 0 a closed form of the sum divides 0 by 0. All "
        "weights are 1 there, so the share is 1 / (count + 1): sum the weights, or "
        "treat m = 0 by itself"
    )
    try:
        _, rights, got = _growing_means(function, predictions, 0.0)
    except Wrong as mistake:
        raise Wrong(zero if "ZeroDivision" in str(mistake) else str(mistake)) from None
    if not np.isfinite(got).all():
        raise Wrong(zero)
    if not same(got, rights):
        _raise_first_difference(got, rights, 0.0)


def _raise_first_difference(got: np.ndarray, rights: np.ndarray, m: float) -> None:
    c = next(c for c in range(5) if not same(got[c], rights[c]))
    raise Wrong(
        f"for m = {m}, after {c + 2} predictions the mean of joint 0 should be "
        "{}; yours is {}".format(*told_apart(rights[c][0], got[c][0]))
    )
