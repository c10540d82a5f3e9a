"""Lesson 00: one small exercise, to meet the checks and the hints."""

from collections.abc import Callable

from ..toolkit.checks import (
    Wrong,
    attempt,
    each_case,
    exercise,
    is_right,
    number,
    told_apart,
)


@exercise(
    "00.seconds",
    minutes=3,
    hints=(
        "How long does one action last when there are `rate` of them in a second?",
        "One action lasts 1 / rate seconds. A chunk has k of them.",
    ),
    praise="That is for how long a policy acts on what it saw once.",
)
def check_seconds(function: Callable) -> None:
    """`function(k, rate)` gives the seconds that a chunk of k actions lasts."""

    def examine(case: tuple[int, float]) -> None:
        k, rate = case
        found = number(attempt(function, k, rate), "a number of seconds")
        right = k * (1.0 / rate)
        mistakes = {
            "actions times actions a second is no time: divide by the rate": k * rate,
            "the other way round: this many chunks fit into a second": rate / k,
            "these are milliseconds; seconds are wanted": 1000 * right,
            "k actions last k ticks, not k - 1: the last one is held for a tick, too": (
                k - 1
            )
            / rate,
            "this is one action; a chunk has k": 1.0 / rate,
            "whole seconds only: divide with /, not //": float(k // rate),
        }
        if not is_right(found, right, mistakes):
            expected, said = told_apart(right, found)
            raise Wrong(
                f"{k} actions at {rate:g} Hz last {expected} s; yours says {said}"
            )

    cases = ((50, 30.0), (100, 50.0), (1, 25.0))
    named = {f"k = {k} at {rate:g} Hz": (k, rate) for k, rate in cases}
    each_case(named, examine, "take both, k and rate, from the arguments")
