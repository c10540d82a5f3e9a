"""Lesson 07: an interval, a paired comparison, and what seeds add to chance."""

import math
from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise

import numpy as np

from ..toolkit.checks import (
    Wrong,
    attempt,
    each_case,
    exercise,
    is_right,
    number,
    same,
    told_apart,
)

Z = 1.96  # 1.95996 is right, too: it moves a limit by less than `NEAR`
NEAR = {"rtol": 0, "atol": 1e-5}


def _crossings(successes: int, n: int) -> tuple[float, float]:
    """Wilson's limits by bisection: where |p - seen| is z deviations of p itself."""
    seen = successes / n

    def excess(p: float) -> float:
        return abs(p - seen) - Z * math.sqrt(p * (1 - p) / n)

    def root(outside: float, inside: float) -> float:
        if excess(outside) <= 0:
            return outside
        for _ in range(200):
            middle = (outside + inside) / 2
            if excess(middle) > 0:
                outside = middle
            else:
                inside = middle
        return inside

    return root(0.0, seen), root(1.0, seen)


def _pair_of(function: Callable, successes: int, n: int) -> tuple[float, float]:
    answer = attempt(function, successes, n)
    try:
        low, high = (float(x) for x in answer)
    except (TypeError, ValueError):
        raise Wrong(
            f"return two numbers, the lower and the upper limit; yours is {answer!r}"
        ) from None
    return low, high


@exercise(
    "07.wilson",
    minutes=12,
    hints=(
        "Both limits solve one equation, (1 + z²/n) p² − (2 seen + z²/n) p + seen² = "
        "0. What are a, b and c of the formula for quadratics?",
        "(-b ± sqrt(b² − 4ac)) / (2a), with a = 1 + z²/n, b = −(2 seen + z²/n), "
        "c = seen².",
        "root = np.sqrt(b * b - 4 * a * c); return (-b - root) / (2 * a), "
        "(-b + root) / (2 * a).",
    ),
    praise="An interval that stays inside 0 to 1, and says something at 20 of 20.",
)
def check_wilson(function: Callable) -> None:
    """`function(successes, n)` gives the lower and the upper limit, as shares."""
    successes, n = 17, 20
    found = _pair_of(function, successes, n)
    right = _crossings(successes, n)
    mistakes = _wrong_intervals(successes, n, right)
    if not is_right(found, right, mistakes, **NEAR):
        raise Wrong(f"for {successes} of {n} {_difference(right, found)}")
    for successes, n in ((20, 20), (0, 20), (150, 300)):
        found = _pair_of(function, successes, n)
        if not same(found, right := _crossings(successes, n), **NEAR):
            fixed = "; take n from the argument" if n != 20 else ""
            raise Wrong(
                f"right for 17 of 20, but for {successes} of {n} "
                f"{_difference(right, found)}{fixed}"
            )


def _difference(right: tuple[float, float], found: tuple[float, float]) -> str:
    (low, lower), (high, higher) = map(told_apart, right, found)
    return f"expected {low} to {high}, found {lower} to {higher}"


def _wrong_intervals(
    successes: int, n: int, right: tuple[float, float]
) -> dict[str, list[tuple[float, float]]]:
    p = successes / n
    wald = Z * math.sqrt(p * (1 - p) / n)

    def parts(z: float) -> tuple[float, float, float]:
        a, b = 1 + z * z / n, -(2 * p + z * z / n)
        return a, b, math.sqrt(b * b - 4 * a * p * p)

    a, b, root = parts(Z)
    centre, half = -b / (2 * a), root / (2 * a)
    a90, b90, root90 = parts(1.645)
    return {
        "this is the textbook interval, seen ± z deviations *at the rate that was "
        "seen*; Wilson takes the deviation at p itself": [(p - wald, p + wald)],
        "this is the textbook interval, cut off at 0 and 1; Wilson takes the deviation "
        "at p itself, and stays inside without a cut": [
            (max(0.0, p - wald), min(1.0, p + wald))
        ],
        "the limits are in the wrong order: lower first": [(right[1], right[0])],
        "these are percent; return shares from 0 to 1": [
            (100 * right[0], 100 * right[1])
        ],
        "this is symmetric about the rate that was seen; the middle of Wilson's "
        "interval is drawn towards one half": [(p - half, p + half)],
        "divide by 2a, not by 2 alone or by nothing: a is 1 + z²/n": [
            ((-b - root) / 2, (-b + root) / 2),
            (-b - root, -b + root),
        ],
        "z is 1.96 for 95 %; this is the interval for 90 % (z = 1.645)": [
            ((-b90 - root90) / (2 * a90), (-b90 + root90) / (2 * a90))
        ],
        "the square root of b² − 4ac is missing": [
            (centre - root**2 / (2 * a), centre + root**2 / (2 * a))
        ],
    }


def _coin_tail(k: int, n: int) -> Fraction:
    """Chance of at most k heads in n fair tosses, by Pascal's triangle."""
    row = [1]
    for _ in range(n):
        row = [1, *(a + b for a, b in pairwise(row)), 1]
    return Fraction(sum(row[: k + 1]), 2**n)


@exercise(
    "07.paired",
    minutes=10,
    hints=(
        "Where both succeed or both fail, the scene says nothing about which is "
        "better. Which scenes are left, and what would a coin do on them?",
        "Under a coin, P(at most k of n) is the sum of comb(n, i) / 2**n for i = 0 "
        "to k, k the smaller count. The other tail is as large.",
        "min(1, 2 * sum(comb(n, i) for i in range(k + 1)) / 2**n), with "
        "n = only_a + only_b, k = min(only_a, only_b).",
    ),
    praise="Only the scenes on which the two differ count, and both tails do.",
)
def check_paired(function: Callable) -> None:
    """`function(only_a, only_b)` gives the two-sided p value."""
    each_case(
        {"9 against 2": (9, 2), "12 against 5": (12, 5)},
        lambda split: _examine_split(function, *split),
        "take both counts from the arguments; n is their sum",
    )
    answer, other = (number(attempt(function, *split)) for split in ((9, 2), (2, 9)))
    if not math.isclose(other, answer, abs_tol=1e-9):
        raise Wrong(
            "which policy is called A must not matter: 2 against 9 gives another p"
        )
    even = number(attempt(function, 4, 4))
    if not math.isclose(even, 1.0, abs_tol=1e-9):
        raise Wrong(
            f"4 against 4 gives {even:.3f}: the two tails share the middle; a "
            "probability is at most 1"
        )


def _examine_split(function: Callable, only_a: int, only_b: int) -> None:
    answer = number(attempt(function, only_a, only_b))
    k, n = min(only_a, only_b), only_a + only_b
    tail = float(_coin_tail(k, n))
    exactly = float(_coin_tail(k, n) - _coin_tail(k - 1, n))
    chi = (only_a - only_b) ** 2 / n
    chi_corrected = (abs(only_a - only_b) - 1) ** 2 / n
    mistakes = {
        "this is one tail; asking 'do they differ' takes both": tail,
        "this is the chance of exactly this split; at least as uneven ones count, "
        "too": exactly,
        "this doubles the chance of exactly this split; at least as uneven ones "
        "count, too": 2 * exactly,
        "the observed split itself is missing from the sum: range(k + 1), not "
        "range(k)": 2 * (tail - exactly),
        "this is the χ² approximation; with so few scenes count exactly": math.erfc(
            math.sqrt(chi / 2)
        ),
        "this is the χ² approximation with its correction; with so few scenes count "
        "exactly": math.erfc(math.sqrt(chi_corrected / 2)),
        "this is the tail from the larger count: k is the smaller one": min(
            1.0, 2 * float(_coin_tail(max(only_a, only_b), n))
        ),
        "this is one minus the p value: small means surprising": 1 - 2 * tail,
    }
    if not is_right(answer, 2 * tail, mistakes):
        expected, found = told_apart(2 * tail, answer, digits=4)
        raise Wrong(f"for {only_a} against {only_b} expected {expected}, found {found}")


@exercise(
    "07.seeds",
    minutes=8,
    hints=(
        "Rollouts alone make rates differ: by p(1 − p)/n, in variance. Take that "
        "from the variance you see.",
        "np.var(rates, ddof=1) − np.mean(rates * (1 − rates)) / n; what if that is "
        "negative?",
        "np.sqrt(max(0.0, rates.var(ddof=1) - (rates * (1 - rates)).mean() / n)).",
    ),
    praise="What is left over is what training seeds add to chance.",
)
def check_seeds(function: Callable) -> None:
    """`function(rates (S,), n)` gives a standard deviation, a share."""
    rates = [0.62, 0.91, 0.78, 0.45, 0.3]
    each_case(
        {
            "4 rates and n = 50": (rates[:4], 50),
            "4 rates and n = 200": (rates[:4], 200),
            "5 rates and n = 200": (rates, 200),
        },
        lambda case: _examine_spread(function, np.array(case[0]), case[1]),
        "take n from the argument, and the number of seeds from len(rates)",
    )
    calm = number(attempt(function, np.array([0.5, 0.52, 0.51]), 20))
    if not calm == 0:
        raise Wrong(
            "seeds that differ less than chance would make them give 0, not "
            f"{calm}: no root of a negative number"
        )


def _examine_spread(function: Callable, rates: np.ndarray, n: int) -> None:
    answer = number(attempt(function, rates.copy(), n))
    mean = sum(rates) / len(rates)
    squares = sum((r - mean) ** 2 for r in rates)
    seen = squares / (len(rates) - 1)
    chance = sum(r * (1 - r) for r in rates) / len(rates) / n
    right = math.sqrt(seen - chance)
    mistakes = {
        "this is the whole spread between seeds; what rollouts alone would give has "
        "to be taken away": math.sqrt(seen),
        "this is a variance; the question is for a deviation, its square root": seen
        - chance,
        "with few seeds divide by their number less one: ddof=1": math.sqrt(
            squares / len(rates) - chance
        ),
        "variances subtract, deviations do not: the roots come last": math.sqrt(seen)
        - math.sqrt(chance),
        "this is what rollouts alone give; the question is for the rest": math.sqrt(
            chance
        ),
        "the signs are turned: chance adds to what seeds do": math.sqrt(seen + chance),
        "this takes p(1 − p) at the mean rate of all seeds, which counts part of their "
        "spread as chance; take it for each seed, then the mean": math.sqrt(
            seen - mean * (1 - mean) / n
        ),
    }
    if not is_right(answer, right, mistakes):
        if not answer > 0:
            raise Wrong(
                f"expected {right:.4f}, found {answer}: is p(1 − p) divided by n, the "
                "rollouts a seed?"
            )
        raise Wrong(
            "expected {}, found {}".format(*told_apart(right, answer, digits=4))
        )
