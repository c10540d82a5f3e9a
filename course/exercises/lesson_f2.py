"""Lesson F2: heads that keep several ways apart."""

import math
from collections.abc import Callable

import numpy as np

from ..toolkit.checks import (
    Wrong,
    attempt,
    each_case,
    exercise,
    is_right,
    number,
    numbers,
    two_parts,
)


def _chunks(seed: int, rows: int, k: int, joints: int) -> tuple[np.ndarray, np.ndarray]:
    """Demonstrations and noise, (B, k, A) each."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(rows, k, joints)) + 2.0, rng.normal(size=(rows, k, joints))


@exercise(
    "F2.velocity",
    minutes=10,
    hints=(
        "At t = 0 x is the noise, at t = 1 the demonstration, and between them a line.",
        "x = (1 - t) * noise + t * action, where t needs the shape (B, 1, 1).",
        "A point that goes from noise to action in one unit of time has the velocity "
        "action - noise, wherever it is.",
    ),
    praise="A straight line from noise to action, and the velocity along it.",
)
def check_velocity(function: Callable) -> None:
    """`function(action, noise (B, k, A), t (B,))` gives x and the velocity there."""
    each_case(
        {"B, k, A = 3, 4, 2": (3, 4, 2), "B, k, A = 2, 5, 3": (2, 5, 3)},
        lambda sizes: _examine_velocity(function, sizes),
        "take the sizes from `action`",
    )


def _examine_velocity(function: Callable, sizes: tuple[int, int, int]) -> None:
    action, noise = _chunks(1, *sizes)
    t = np.linspace(0.1, 0.8, sizes[0])
    given = attempt(function, action.copy(), noise.copy(), t.copy())
    pair = two_parts(given, "arrays are wanted: x and the velocity")
    x, velocity = map(numbers, pair)
    for name, found in (("x", x), ("the velocity", velocity)):
        if found.shape != action.shape:
            raise Wrong(
                f"{name} should have the shape of a batch of chunks, {action.shape}; "
                f"yours has {found.shape}. t[:, None, None] goes with every sample"
            )
    way = t[:, None, None]
    right = (1 - way) * noise + way * action
    mistakes = {
        "x is the wrong way round: t = 0 is the noise": (1 - way) * action
        + way * noise,
        "x is the noise wherever t is": noise,
        "x is the demonstration wherever t is": action,
        "the shares of noise and demonstration have to sum to 1": [
            action + (1 - way) * noise,
            noise + way * action,
            noise + action,
        ],
        "the shares are those of a diffusion, whose squares sum to 1": (
            np.sqrt(1 - way) * noise + np.sqrt(way) * action
        ),
        "every sample has a t of its own; here all have the same": [
            (1 - one) * noise + one * action for one in (t[0], t[-1], t.mean())
        ],
        "this is the velocity: x comes first": action - noise,
    }
    if not is_right(x, right, mistakes):
        raise Wrong("x is not at t on the line from the noise to the demonstration")
    mistakes = {
        "the velocity's sign: it leads to the demonstration": noise - action,
        "this is where it leads to, not how fast": action,
        "the velocity from x to the demonstration would get there at once; the time "
        "that is left is 1 - t": action - x,
        "this is the way from the noise to x, which took the time t: it grows, and the "
        "velocity is the same everywhere": x - noise,
    }
    if not is_right(velocity, action - noise, mistakes):
        raise Wrong("the velocity should be how x changes with t: d x / d t")


@exercise(
    "F2.euler",
    minutes=8,
    hints=(
        "In one of n steps the time goes on by 1 / n.",
        "Ask for the velocity at the place x and the time t, then go on from there.",
        "x + velocity(x, t) / n",
    ),
    praise="A step of 1 / n along the velocity; n of them lead from noise to a chunk.",
)
def check_euler(function: Callable) -> None:
    """`function(velocity, x (B, k, A), t, n)` gives x after one of n Euler steps."""
    each_case(
        {
            "n = 5": (5, 0.6, 2, 3, 2),
            "n = 10": (10, 0.7, 3, 2, 4),
            "n = 1": (1, 0.0, 2, 3, 2),
        },
        lambda case: _examine_euler(function, *case),
        "take the number of steps from `n`, the time from `t`, and sizes from `x`",
    )


def _one_time(t: float) -> float:
    if np.ndim(t):
        raise TypeError("x is handed over first, and then t as one number")
    return float(t)


def _examine_euler(function: Callable, n: int, t: float, *sizes: int) -> None:
    x, slope = _chunks(2, *sizes)
    asked: list[float] = []

    def velocity(x: np.ndarray, t: float) -> np.ndarray:
        asked.append(_one_time(t))
        return slope * np.asarray(x) + asked[-1]

    answer = numbers(attempt(function, velocity, x.copy(), t, n))
    if not asked:
        raise Wrong("the velocity is never asked: call velocity(x, t)")
    if answer.shape != x.shape:
        raise Wrong(f"x should keep its shape, {x.shape}; yours has {answer.shape}")
    v = slope * x + t
    mistakes = {
        "a whole step: the time goes on by 1 / n": x + v,
        "the sign: the velocity leads on, from noise to action": x - v / n,
        "this is the step; x goes on by it": v / n,
        "this is the velocity; x goes on by 1 / n of it": v,
        "the velocity times t; the step's length is 1 / n": x + v * t,
        "this goes all the way to t = 1; a step goes on by 1 / n": x + v * (1 - t),
        "the velocity times n; the step's length is 1 / n": x + v * n,
        "the velocity was asked at the end of the step, t + 1 / n; Euler's method asks "
        "at its beginning": x + (slope * x + t + 1 / n) / n,
    }
    if not is_right(answer, x + v / n, mistakes):
        if len(asked) > 1:
            raise Wrong("one step asks once; who calls this makes n of them")
        raise Wrong("x should go on by 1 / n of the velocity at x and t")


@exercise(
    "F2.second",
    minutes=10,
    hints=(
        "Two passes, two errors: of what the network says at first, and of what it "
        "says when it is shown something near the demonstration.",
        "It is shown action + (1 - t) * noise, together with t.",
        "np.abs(ask() - action).mean() / t + "
        "np.abs(ask(shown, t) - action).mean() / (1 - t)",
    ),
    praise="The second pass learns to mend what is nearly right.",
)
def check_second(function: Callable) -> None:
    """`function(ask, action, noise (B, k, A), t)` gives the loss of both passes."""
    each_case(
        {"t = 0.9": (0.9, 2, 4, 3), "t = 0.8": (0.8, 3, 5, 2)},
        lambda case: _examine_second(function, *case),
        "take t from the argument, and sizes from `action`",
    )


def _examine_second(function: Callable, t: float, *sizes: int) -> None:
    action, noise = _chunks(3, *sizes)
    base, times = _chunks(4, *sizes)[0], []

    def ask(x: np.ndarray | None = None, t: float = 0.0) -> np.ndarray:
        times.append(_one_time(t))
        return base.copy() if x is None else 0.5 * np.asarray(x) + base + times[-1]

    found = number(attempt(function, ask, action.copy(), noise.copy(), t))
    if len(times) < 2:
        often = ("never", "once")[len(times)]
        raise Wrong(f"the network is {often} asked; MIP asks twice")

    def error(x: np.ndarray) -> float:
        return float(np.abs(x - action).mean())

    def shown(x: np.ndarray, time: float = t) -> np.ndarray:
        return 0.5 * x + base + time

    near = action + (1 - t) * noise
    first, second = error(base), error(shown(near))
    mistakes = {
        "the second pass alone": second / (1 - t),
        "the first pass alone": first / t,
        "the errors are not divided by t and 1 - t": first + second,
        "the errors are multiplied by t and 1 - t; divide": first * t
        + second * (1 - t),
        "t and 1 - t are swapped: the second error weighs most": first / (1 - t)
        + second / t,
        "in training the second pass is shown something near the demonstration, not "
        "the first answer": first / t + error(shown(base)) / (1 - t),
        "the noise is too large: 1 - t of it": first / t
        + error(shown(action + noise)) / (1 - t),
        "without noise the second pass learns to copy": first / t
        + error(shown(action)) / (1 - t),
        "the second pass has to be told t": [
            first / t + error(shown(near, told)) / (1 - t) for told in (0.0, 1.0, 1 - t)
        ],
        "this shows a place on the way of a flow; MIP shows the whole demonstration, "
        "with noise": first / t + error(shown(t * action + (1 - t) * noise)) / (1 - t),
        "t of the noise; it should be 1 - t": first / t
        + error(shown(action + t * noise)) / (1 - t),
        "errors of either sign cancel; take np.abs": float(
            (base - action).mean() / t + (shown(near) - action).mean() / (1 - t)
        ),
        "the squared error; here it is the absolute one": float(
            ((base - action) ** 2).mean() / t
            + ((shown(near) - action) ** 2).mean() / (1 - t)
        ),
        "the sum over all numbers; the mean is wanted": (first / t + second / (1 - t))
        * action.size,
    }
    if not is_right(found, first / t + second / (1 - t), mistakes):
        raise Wrong(
            f"for t = {t} expected {first / t + second / (1 - t):.4f}, found "
            f"{found:.4f}"
        )


@exercise(
    "F2.mixture",
    minutes=12,
    hints=(
        "How likely is the whole chunk under each component? And then, of any of them?",
        "Of one component: the sum of -0.5 ((a - mean) / s)² - log s - 0.5 log 2π over "
        "all k A numbers.",
        "Then log sum_m weight_m exp(that): np.logaddexp.reduce(np.log(weight) + "
        "each).",
    ),
    praise="One component has to explain a chunk as a whole: so ways stay apart.",
)
def check_mixture(function: Callable) -> None:
    """`function(action (k, A), mean (M, k, A), s, weight (M,))`: log likelihood."""
    each_case(
        {
            "M, k, A = 3, 4, 2": (0.7, 3, 4, 2),
            "M, k, A = 2, 6, 1": (0.5, 2, 6, 1),
        },
        lambda case: _examine_mixture(function, *case),
        "take the sizes from `mean`, and s from the argument",
    )


def _examine_mixture(function: Callable, s: float, m: int, k: int, joints: int) -> None:
    rng = np.random.default_rng(5)
    mean = rng.normal(size=(m, k, joints))
    action = mean[0] + 0.3 * rng.normal(size=(k, joints))
    weight = np.arange(1.0, m + 1)
    weight /= weight.sum()
    found = number(attempt(function, action.copy(), mean.copy(), s, weight.copy()))

    def log_normal(mean: np.ndarray, spread: float) -> np.ndarray:
        each = -0.5 * ((action - mean) / spread) ** 2 - math.log(spread)
        return each - 0.5 * math.log(2 * math.pi)

    def mixed(each: np.ndarray, weights: np.ndarray) -> float:
        return float(np.logaddexp.reduce(np.log(weights) + each))

    def apart(each: np.ndarray) -> float:
        shares = np.log(weight).reshape(-1, *[1] * (each.ndim - 1))
        return float(np.logaddexp.reduce(shares + each, axis=0).sum())

    alone = log_normal(mean, s)  # (M, k, A)
    whole, count = alone.sum((1, 2)), k * joints  # (M,)
    right = mixed(whole, weight)
    squares = ((action - mean) ** 2).sum((1, 2))  # (M,)
    mistakes = {
        "the sign: this is the loss, the negative log likelihood": -right,
        "every number or action was given a component of its own; a chunk belongs to "
        "one as a whole": [apart(alone), apart(alone.sum(2))],
        "the weights are missing": mixed(whole, np.ones(m)),
        "all components weigh the same; take the weights": mixed(
            whole, np.full(m, 1 / m)
        ),
        "a weight multiplies a likelihood: to the logarithm add log weight": [
            mixed(whole, np.exp(weight)),
            mixed(weight * whole, np.ones(m)),
        ],
        "the weighted mean of log likelihoods; likelihoods are added, not their "
        "logarithms": float(weight @ whole),
        "this is the likelihood of the best component alone": [
            float(whole.max()),
            float((np.log(weight) + whole).max()),
        ],
        "this is one Gaussian, around the mean of the components: between the ways": (
            float(log_normal(np.tensordot(weight, mean, 1), s).sum())
        ),
        "the logarithm is missing": math.exp(right),
        "- log s is missing: once for each of the k A numbers": [
            right + count * math.log(s),
            right + (count - 1) * math.log(s),
        ],
        "- 0.5 log 2π is missing: once for each of the k A numbers": [
            right + missing * 0.5 * math.log(2 * math.pi)
            for missing in (count, count - 1)
        ],
        "s is a deviation, not a variance": mixed(
            log_normal(mean, math.sqrt(s)).sum((1, 2)), weight
        ),
        "s is squared with the distance: ((a - mean) / s)²": mixed(
            whole + 0.5 * squares * (1 / s**2 - 1 / s), weight
        ),
        "the mean over k A; a chunk's likelihood is a product, its log a sum": [
            mixed(alone.mean((1, 2)), weight),
            right / count,
        ],
    }
    if not is_right(found, right, mistakes):
        raise Wrong(f"expected {right:.4f}, found {found:.4f}")
