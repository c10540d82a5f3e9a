"""Lesson F1: its checks, its rollouts and figures, its widget."""

import numpy as np
import pytest

from act_minimal.realtime import Fade, Switch
from course.figures import lesson_f1 as late

from .helpers import answers, check_readable, evaluation, spoils, sweep


def switch(plan, chunk, late):
    return chunk[late:] if late < len(chunk) else plan


test_switch = answers(
    "F1.switch",
    right=[
        (switch, "past is dropped"),
        (lambda p, c, n: c[n:].tolist() if n < len(c) else p, "past is dropped"),
    ],
    wrong=[
        (lambda p, c, n: c, "the whole chunk"),
        (lambda p, c, n: c[n:], "keep the plan"),
        (lambda p, c, n: c[max(0, n - 1) :], "too early"),
        (lambda p, c, n: c[n + 1 :], "too late"),
        (lambda p, c, n: p, "the old plan"),
        (lambda p, c, n: np.concatenate([p, c[n:]]), "nothing of it comes first"),
        (lambda p, c, n: c[:n], "are the ones that are past"),
        (lambda p, c, n: c[: len(c) - n], "end of the chunk instead"),
        (lambda p, c, n: c[n:][: len(p)], "length of the old plan"),
        (lambda p, c, n: c[-1:] if n >= len(c) else c[n:], "last action"),
        (lambda p, c, n: switch(p, c, n).sum(0), "expected"),
        (lambda p, c, n: switch(p, c, n)[0], "found an array of shape (2,)"),
        (lambda p, c, n: c[3:], "wrong for k = 6, late = 1"),
        (lambda p, c, n: switch(p, c, n) * 1.0 + (n == 9), "long past"),
        (lambda p, c, n: "chunk", "numbers are wanted"),
        (lambda p, c, n: c[n], "expected the 5 actions"),
        (
            spoils(switch, lambda p, c, n: c.__imul__(2)),
            "changed its argument `chunk`",
        ),
    ],
)


def fade(plan, new, m, share=None, offset=None):
    j = np.arange(len(new))
    share = np.maximum(0, 1 - j / m) if share is None else share(j, m)
    offset = plan[0] - new[0] if offset is None else offset(plan, new)
    return new + share[:, None] * offset


test_fade = answers(
    "F1.fade",
    right=[(fade, "No jump at the seam")],
    wrong=[
        (lambda p, c, m: fade(p, c, m, offset=lambda p, c: c[0] - p[0]), "the sign"),
        (lambda p, c, m: c + p[0] - c[0], "let it fade out"),
        (lambda p, c, m: c, "at the seam it jumps"),
        (lambda p, c, m: fade(p, c, m, lambda j, m: 1 - j / m), "go on below it"),
        (
            lambda p, c, m: fade(p, c, m, lambda j, m: np.maximum(0, 1 - (j + 1) / m)),
            "j counts from 0",
        ),
        (
            lambda p, c, m: fade(p, c, m, lambda j, m: np.minimum(1, j / m)),
            "grows where it should fall",
        ),
        (
            lambda p, c, m: fade(p, c, m, offset=lambda p, c: p[-1] - c[0]),
            "last action of the plan",
        ),
        (
            lambda p, c, m: fade(p, c, m, lambda j, m: (1 - 1 / m) ** j),
            "constant factor",
        ),
        (
            lambda p, c, m: fade(p, c, m, lambda j, m: 0.5 * (j < m)),
            "should be the old plan's",
        ),
        (lambda p, c, m: fade(p, c, m)[:m], "an action for every row"),
        (lambda p, c, m: fade(p, c, 4), "take the fade from `m`"),
        (
            lambda p, c, m: fade(p, c, m, lambda j, m: np.maximum(0, 1 - (j / m) ** 2)),
            "not a line",
        ),
        (lambda p, c, m: fade(p, c, m + 1), "from tick m = 4 on"),
        (lambda p, c, m: p, "an action for every row"),
        (lambda p, c, m: "new", "numbers are wanted"),
        (
            spoils(fade, lambda p, c, m: p.__iadd__(1)),
            "changed its argument `plan`",
        ),
    ],
)


def mask(is_pad, d):
    return ~is_pad & (np.arange(is_pad.shape[1]) >= d[:, None])


def told(is_pad, d):
    return np.arange(is_pad.shape[1]) < d[:, None]


test_mask = answers(
    "F1.mask",
    right=[
        (mask, "What counts"),
        (lambda p, d: mask(p, d).astype(float), "What counts"),
    ],
    wrong=[
        (lambda p, d: ~p, "counts what was told"),
        (lambda p, d: ~told(p, d), "counts padding"),
        (lambda p, d: p | told(p, d), "other way round"),
        (lambda p, d: mask(p, d + 1), "action d counts"),
        (lambda p, d: mask(p, d - 1), "one action too many"),
        (lambda p, d: ~p | ~told(p, d), "and, not or"),
        (lambda p, d: ~p & told(p, d), "counts the told actions alone"),
        (lambda p, d: p & ~told(p, d), "True at padding"),
        (
            lambda p, d: ~p & (np.arange(p.shape[1]) < p.shape[1] - d[:, None]),
            "not the last",
        ),
        (lambda p, d: mask(p, np.full(len(d), d[0])), "that of the first"),
        (lambda p, d: mask(p, np.full(len(d), d.max())), "the longest"),
        (lambda p, d: mask(p, d).sum(1), "one truth value an action"),
        (lambda p, d: mask(p, d).T, "expected shape"),
        (lambda p, d: mask(p, d)[0], "expected shape"),
        (lambda p, d: ~p & (np.arange(6) >= d[:, None]), "take B and k"),
        (lambda p, d: "mask", "numbers are wanted"),
    ],
)


def future(committed, qpos, lag):
    d = len(committed)
    return committed[d - 1 - lag] if d > lag else qpos


test_future = answers(
    "F1.future",
    right=[(future, "where the arm will be")],
    wrong=[
        (lambda c, q, n: q, "where the arm is now"),
        (lambda c, q, n: c[-1] if len(c) else q, "comes there `lag` ticks later"),
        (lambda c, q, n: c[0] if len(c) else q, "first committed action"),
        (lambda c, q, n: c[n] if len(c) > n else q, "count `lag` back from the end"),
        (lambda c, q, n: c[len(c) - 2 - n] if len(c) > n else q, "too early"),
        (lambda c, q, n: c[len(c) - n] if len(c) > n > 0 else q, "too late"),
        (lambda c, q, n: q + c.sum(0), "do not add them up"),
        (lambda c, q, n: q + c[-1] if len(c) else q, "do not add them"),
        (lambda c, q, n: c.mean(0) if len(c) else q, "a mean"),
        (lambda c, q, n: c[len(c) - 1 - n] if len(c) else q, "counts from the end"),
        (lambda c, q, n: future(c, q, 2), "d = 5, lag = 0"),
        (lambda c, q, n: future(c, q, n)[None], "expected"),
        (lambda c, q, n: c[len(c) - 1 - n], "wrong for d = lag"),
        (lambda c, q, n: 0 * q, "expected"),
        (lambda c, q, n: "qpos", "numbers are wanted"),
        (
            spoils(future, lambda c, q, n: q.__iadd__(1)),
            "changed its argument `qpos`",
        ),
    ],
)


@pytest.mark.quick
@pytest.mark.parametrize("late_by", [0, 3, 7])
def test_the_exercises_are_what_the_package_does(late_by):
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(2, 1, 20, 3))
    for one, joined in (
        (Switch(20, 7, 7), lambda plan, new: new),
        (Fade(20, 7, 7, fade=5), lambda plan, new: fade(plan, new, 5)),
    ):
        one.reset(np.zeros((1, 3)))
        one.commit(0)
        one.deliver(first, 0)
        for _ in range(7 + late_by):
            if one.wants_chunk():
                one.commit(7)
            one.step()
        one.deliver(second, late_by)
        plan = first[0, 7 + late_by :]
        expected = joined(plan, switch(plan, second[0], late_by))
        np.testing.assert_allclose(one.plan[0], expected)


@pytest.fixture(scope="module")
def policy():
    return late.belt_policy("plain")


@pytest.fixture(scope="module")
def rides(policy):
    names = ("arm waits", "switch", "align and fade")
    return {name: late.ride(policy, late.way(name), 8, scene=5) for name in names}


def test_a_ride_keeps_what_was_sent_and_where_chunks_met(rides):
    waits, switched, faded = rides.values()
    assert waits.holds > 40
    assert not waits.seams
    for one in (switched, faded):
        assert one.holds == 8
        assert one.sent.shape == (len(one.qpos), 6)
        assert one.seams[:3] == [8, 33, 58]  # asked at 0, 25, 50
    seam = slice(32, 36)
    assert switched.acceleration[seam].max() > 2 * faded.acceleration[seam].max()
    still = np.ones((9, 6)) * np.arange(9)[:, None]  # goes evenly
    even = late.Ride(np.zeros((9, 13)), still, np.zeros((9, 3)), [4], 0, True, 30.0)
    np.testing.assert_array_equal(even.acceleration, 0)
    still[4:] += 0.1
    assert even.acceleration[3] == pytest.approx(0.1 * 900)
    near, apart = late.near_and_apart(even, near=1)
    assert near > apart == 0


def test_figures_of_a_seam_show_where_it_is(rides):
    two = {name: one for name, one in rides.items() if name != "arm waits"}
    fig = late.seam_figure(two, (1.0, 3.0))
    left = fig.axes[0]
    assert left.get_xlim() == (1.0, 3.0)
    marks = left.lines[1].get_xdata()
    assert all(1.0 <= x <= 3.0 for x in marks)
    assert len(marks) == 3  # after 1.1, 1.93 and 2.77 s


def test_a_line_about_late_rollouts_says_what_was_measured():
    some = evaluation(45, 50)
    some.late = {"holds": 8.0, "seam": 0.05, "near": 3.0, "apart": 2.0, "age": 12.0}
    line = late.outcome("switch", some)
    for words in ("90 % (45/50", "  8 ticks", "0.050 rad", "1.50 × elsewhere"):
        assert words in line
    assert late.outcome("no delay", evaluation(45, 50)).endswith(
        "0 ticks without an action"
    )


@pytest.mark.parametrize(
    ("milliseconds", "says"),
    [
        (20, "d =  1, nothing to do"),
        (80, "d =  3, s from 3 to 47: act deploy --mode fade"),
        (500, "d = 15, s from 15 to 35: act deploy --mode fade"),
        (1000, "expected at most half of them: 25"),
    ],
)
def test_settings_follow_from_a_measured_time(milliseconds, says):
    assert says in late.advice(milliseconds, fps=30, chunk_size=50)


def test_every_control_of_the_explorer_goes_to_both_ends(policy):
    explorer = late.clock_explorer(policy, scene=5)
    assert "8 ticks (267 ms)" in explorer.says
    check_readable(explorer)
    ends = {"time": (0.0, 12.0), "delay": (0, 16), "horizon": (10, 25)}
    for _ in sweep(explorer, 40, **ends, way_=tuple(late.NAMES)):
        pass
    assert max(explorer.seconds[1:]) < 5  # loose: a busy machine
