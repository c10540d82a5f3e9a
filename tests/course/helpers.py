"""What the lessons' tests share: answers to exercises, made-up rollouts, sweeps."""

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from matplotlib.text import Text

from act_minimal.evaluation import Evaluation, Rollout
from course.toolkit.checks import check
from course.toolkit.widgets import Explorer

Cases = Sequence[tuple[Any, str]]
STUBS = [(stub, "minutes") for stub in (None, lambda *a: None, lambda *a: ...)]


def answers(
    exercise: str, *, right: Cases, wrong: Cases, stubs: Cases = ()
) -> Callable:
    """A test that checks every answer, given with words of what the check says."""
    states = {"right": right, "not attempted": (*STUBS, *stubs), "wrong": wrong}
    cases = [(one, state, says) for state in states for one, says in states[state]]

    @pytest.mark.quick
    @pytest.mark.parametrize(("answer", "state", "says"), cases)
    def test(answer, state, says):
        verdict = check(exercise, answer)
        assert verdict.state == state, verdict
        assert says in verdict.message, verdict

    return test


def spoils(right: Callable, change: Callable) -> Callable:
    """A right answer that changes what it was handed, by `change`."""

    @functools.wraps(right)
    def answer(*given):
        found = right(*given)
        change(*given)
        return found

    return answer


def evaluation(
    successes: int, n: int, rollouts: Sequence[Rollout] = (), **measured: float
) -> Evaluation:
    """Made-up rollouts of a policy; what is not `measured` is 0."""
    about: dict[str, Any] = {"seconds_to_success": None, "rollouts": list(rollouts)}
    about |= dict.fromkeys(("jerk", "frozen", "chunk_ms", "seed", "seconds"), 0)
    return Evaluation(successes, n, **about | measured)


def check_readable(explorer: Explorer) -> None:
    """No text of its figure is under 9 pt, cut at an edge, or wider than the page."""
    values = {name: control.value for name, control in explorer.controls.items()}
    fig, _ = explorer.draw(**values)
    assert fig.get_figwidth() <= 8
    fig.draw_without_rendering()
    whole = fig.bbox.padded(1.0)
    for text in fig.findobj(Text):
        assert text.get_fontsize() >= 9 or not text.get_text().strip(), text
    for axes in fig.axes:
        labels = (axes.xaxis.label, axes.yaxis.label)
        for text in (label for label in labels if label.get_text()):
            box = text.get_window_extent()
            assert whole.x0 <= box.x0 <= box.x1 <= whole.x1, text
            assert whole.y0 <= box.y0 <= box.y1 <= whole.y1, text


def sweep(explorer: Explorer, pictures: int, **ends: Any) -> Iterator[tuple]:
    """Set every combination of the controls' values, and yield it.

    There is no error, and at the end there were so many different `pictures`.
    """
    shown = set()
    for values in itertools.product(*ends.values()):
        explorer.set(**dict(zip(ends, values, strict=True)))
        shown.add(explorer.figure_html)
        assert explorer.errors == []
        yield values
    assert len(shown) == pictures
