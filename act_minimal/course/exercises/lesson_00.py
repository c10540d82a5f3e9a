"""Lesson 00: one small exercise, to meet the checks and the hints."""

from collections.abc import Callable

from ..checks import Wrong, attempt, exercise


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
    for k, rate in ((50, 30.0), (100, 50.0), (1, 25.0)):
        answer = attempt(function, k, rate)
        try:
            found = float(answer)
        except (TypeError, ValueError):
            raise Wrong(
                f"a number of seconds is wanted, this is {type(answer).__name__}"
            ) from None
        right = k * (1.0 / rate)
        if abs(found - right) < 1e-9:
            continue
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
        for mistake, value in mistakes.items():
            if abs(found - value) < 1e-9:
                raise Wrong(mistake)
        raise Wrong(
            f"{k} actions at {rate:g} Hz last {right:.3f} s; yours says {found:.3f}"
        )
