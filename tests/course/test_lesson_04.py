"""Lesson 04: its checks, its numbers, its widget."""

import math
import re

import numpy as np
import pytest

from act_minimal.evaluation import jerk
from act_minimal.execution import make_executor
from course.figures import lesson_04 as ensembling

from .helpers import answers, check_readable, evaluation, spoils, sweep

pytestmark = pytest.mark.quick


def weights(n, m):
    return np.exp(-m * np.arange(n))


def average(predictions, m):
    w = weights(len(predictions), m)
    return w @ predictions / w.sum()


test_the_weighted_mean = answers(
    "04.average",
    right=[(average, "oldest")],
    wrong=[
        (
            spoils(average, lambda p, m: p.__imul__(2)),
            "changed its argument `predictions`",
        ),
        (lambda p, m: average(p[::-1], m), "order is reversed"),
        (lambda p, m: weights(len(p), m) @ p, "not divided by their sum"),
        (lambda p, m: weights(len(p), m) @ p / len(p), "sum over n"),
        (lambda p, m: p.mean(0), "m is not used"),
        (lambda p, m: m ** np.arange(7) @ p / (m ** np.arange(7)).sum(), "not m ** i"),
        (lambda p, m: p[-1], "newest prediction alone"),
        (lambda p, m: p[0], "oldest prediction alone"),
        (lambda p, m: p.mean(), "shape (3,)"),
        (lambda p, m: p.mean(1), "Over which axis"),
        (lambda p, m: 0 * p[0], "expected"),
        (lambda p, m: weights(7, m) @ p / weights(7, m).sum(), "your function raised"),
        (lambda p, m: average(p[:7], m), "right for n, A = 7, 3, wrong for n, A = 9"),
        (lambda p, m: average(p[:, :3], m), "number of predictions and of joints from"),
        (lambda p, m: average(p, 0.3), "take m from the argument"),
        (lambda p, m: average(p, abs(m)), "for m = -0.2"),
        (lambda p, m: average(p, m or 1), "for m = 0.0"),
        (lambda p, m: geometric_average(p, m), "found [nan nan nan]"),
        (lambda p, m: average(p, 2 * m), "expected"),
        (lambda p, m: average(p[1:], m) if len(p) > 1 else p[0], "expected"),
        (lambda p, m: average(p, m)[None], "shape (3,)"),
        (lambda p, m: "mean", "numbers are wanted"),
        (lambda p, m: [[1.0], [2.0, 3.0]], "numbers are wanted"),
    ],
)


def geometric_average(p, m):
    """Right but at m = 0, where the sum of the geometric series is 0 / 0."""
    r = np.exp(-m)
    total = np.float64(1 - r ** len(p)) / (1 - r)
    return weights(len(p), m) @ p / total


def take_in(mean, count, new, m, share=lambda n, m: np.exp(-m * n), first=False):
    """The running mean with the new prediction's `share` of all the weights."""
    if first and count == 0:
        return new
    own = share(count, m)
    return mean + own / (weights(count, m).sum() + own) * (new - mean)


def closed_form(mean, count, new, m, exp=np.exp):
    """Right but at m = 0: there NumPy gives nan, and plain Python raises."""
    share = exp(-m * count) * (1 - exp(-m)) / (1 - exp(-m * (count + 1)))
    return mean + share * (new - mean)


def mended(mean, count, new, m):
    """The closed form, with m = 0 treated by itself."""
    if m == 0:
        return mean + (new - mean) / (count + 1)
    return closed_form(mean, count, new, m)


def of_a_list(mean, count, new, m, kept=[]):  # noqa: B006, as learners have it
    """All predictions of the calls before; `mean` is not used."""
    kept[count:] = [new]
    return average(np.stack(kept), m)


def in_place(mean, count, new, m):
    mean += np.exp(-m * count) / weights(count + 1, m).sum() * (new - mean)
    return mean


test_the_running_mean = answers(
    "04.online",
    right=[(take_in, "running mean"), (mended, "running mean")],
    wrong=[
        (of_a_list, "`mean` is all that is known"),
        (in_place, "changed its argument `mean`"),
        (closed_form, "at m = 0 a closed form"),
        (lambda *a: closed_form(*a, exp=math.exp), "at m = 0 a closed form"),
        (lambda x, n, new, m: take_in(x, n, new, m) if m else new, "for m = 0.0"),
        (lambda x, n, new, m: take_in(x, n, new, abs(m)), "for m = -0.3"),
        (lambda x, n, new, m: take_in(x, n, new, round(m, 1)), "for m = 0.01"),
        (lambda x, n, new, m: take_in(x, n, new, 2 * m), "for m = 0.4"),
        (lambda x, n, new, m: take_in(x, n, new, 0.4), "take m from the argument"),
        (lambda x, n, new, m: take_in(x, n, new, m)[:2], "take their number from"),
        (
            lambda x, n, new, m: (
                x + np.exp(-m * n) / weights(n, m).sum() * (new - x) if n else new
            ),
            "the newest's own too",
        ),
        (lambda x, n, new, m: take_in(new, n, x, m), "count = 0"),
        (
            lambda x, n, new, m: take_in(new, n, x, m) if n else new,
            "moves the wrong share",
        ),
        (lambda x, n, new, m: take_in(x, n, new, m).mean(), "keep its shape"),
        (
            lambda x, n, new, m: take_in(x, n, new, m)[: 2 if n == 0 else 1],
            "keep its shape",
        ),
        (lambda x, n, new, m: "mean", "numbers are wanted"),
        (lambda x, n, new, m: (x, n + 1), "numbers are wanted"),
        (lambda x, n, new, m: new, "for m = 0.4"),
        (lambda x, n, new, m: x + new, "for m = 0.4"),
        (
            lambda x, n, new, m: x + 1 / weights(n + 1, m).sum() * (new - x),
            "order is reversed",
        ),
        (lambda x, n, new, m: x + (new - x) / (n + 1), "plain running mean"),
        (
            lambda x, n, new, m: x + (1 - np.exp(-m)) * (new - x) if n else new,
            "exponential moving average",
        ),
        (lambda x, n, new, m: x, "count = 0"),
        (lambda x, n, new, m: x + np.exp(-m * n) * (new - x), "not its share"),
        (
            lambda *a: take_in(*a, lambda n, m: np.exp(-m * (n - 1)), first=True),
            "i = count, not count - 1",
        ),
        (
            lambda *a: take_in(*a, lambda n, m: np.exp(-m * (n + 1)), first=True),
            "i = count, not count + 1",
        ),
    ],
)


def test_the_mean_age_of_an_ensemble():
    for k in (1, 7, 50):
        assert ensembling.mean_age(0.0, k) == pytest.approx((k - 1) / 2)
        other = ensembling.mean_age(-0.2, k, oldest_first=False)
        assert ensembling.mean_age(0.2, k) == pytest.approx(other)
    # Two predictions: the newest has age 0 and weight e^-m.
    w = np.exp(-0.5)
    assert ensembling.mean_age(0.5, 2) == pytest.approx(1 / (1 + w))


@pytest.fixture(scope="module")
def found():
    """A made-up rollout: a noisy ramp, chunks that are off by a constant each."""
    rng = np.random.default_rng(0)
    ramp = np.arange(60.0)[:, None] * np.ones(6) / 60
    chunks = np.stack([ramp[t : t + 10] for t in range(50)])
    chunks = chunks + rng.normal(0, 0.02, (50, 1, 6))
    return ensembling.Trace(chunks, chunks[:, 0], 30.0)


def test_every_slider_goes_to_both_ends(found):
    explorer = ensembling.ensemble_explorer(found)
    check_readable(explorer)
    ends = {"m": (-0.3, 0.0, 0.3), "direction": ("oldest first", "newest first")}
    for m, direction in sweep(explorer, 6, **ends):
        age = ensembling.mean_age(m, 10, direction == "oldest first")
        assert f"{age:.1f} ticks old" in explorer.says


def test_the_explorer_tells_the_roughness_of_what_it_draws(found):
    explorer = ensembling.ensemble_explorer(found).set(m=0.0)
    # The plain mean, from the definition.
    mean = np.empty((50, 6))
    for t in range(50):
        known = [found.chunks[s, t - s] for s in range(max(0, t - 9), t + 1)]
        mean[t] = np.mean(known, axis=0)
    said = float(re.search(r"roughness (\d+)", explorer.says)[1])
    assert said == pytest.approx(jerk(mean[:, :5], 30.0), abs=0.5)
    assert said < jerk(found.executed[:, :5], 30.0)


def test_the_explorer_opens_on_the_papers_ensemble(found):
    explorer = ensembling.ensemble_explorer(found)
    assert explorer.says.startswith("m = 0.01, i counts from the oldest")


def test_roughness_is_of_the_arm_alone():
    rng = np.random.default_rng(0)
    commands = rng.normal(size=(20, 6))
    rough = ensembling.roughness(commands, 30.0)
    # 1, -3, 3, -1: the third difference of each joint.
    third = commands[3:] - 3 * commands[2:-1] + 3 * commands[1:-2] - commands[:-3]
    assert rough == pytest.approx(np.sqrt((third[:, :5] ** 2).mean()) * 30**3)
    assert ensembling.roughness(commands * [1, 1, 1, 1, 1, 0], 30.0) == rough


@pytest.mark.parametrize(("short", "m"), [(False, 0.01), (True, -0.1)])
def test_the_filters_lag_is_the_mean_age_of_its_ensemble(short, m):
    k, ticks = 50, 400
    executor = make_executor(ensembling.low_pass(short), k)
    sent = []
    for t in range(ticks):  # a ramp, which a first-order filter follows late by its age
        ramp = np.arange(t, t + k, dtype=float)[None, :, None]
        sent.append(executor.step(ramp if executor.needs_chunk() else None)[0, 0])
    assert sent[0] == 0
    lag = ticks - 1 - sent[-1]
    assert lag == pytest.approx(ensembling.mean_age(m, k), rel=1e-3)
    executor.reset()
    assert executor.step(np.full((1, k, 1), 7.0)) == 7  # nothing of before is left


def test_a_line_about_rollouts_says_what_was_measured():
    some = evaluation(45, 50, jerk=25.2, frozen=0.026, seconds_to_success=5.13)
    line = ensembling.outcome("half", some)
    assert line.startswith("half")
    assert "90 % (45/50, 95 % interval 79-96 %), 5.1 s, jerk 25 rad/s³" in line
    assert line.endswith(", frozen 3 %")
    none = ensembling.outcome("half", evaluation(0, 50, jerk=25.2))
    assert none.endswith("0-7 %), jerk 25 rad/s³, frozen 0 %")


def test_a_trace_asks_at_every_tick():
    from pathlib import Path

    from act_minimal.checkpoint import load_policy
    from course.toolkit.paths import ROOT

    policy = load_policy(Path(ROOT) / "data/checkpoints/so100_pick_place_state")
    found = ensembling.trace(policy, scene=1, ticks=30)
    k = policy.chunk_size
    assert found.chunks.shape == (30, k, 6)
    half = k // 2
    np.testing.assert_array_equal(found.executed[:half], found.chunks[0, :half])
    np.testing.assert_array_equal(
        found.executed[half:], found.chunks[half, : 30 - half]
    )
    assert ensembling.fan(found).axes
    # An ensemble of almost only the newest knows of a moved cube at once; the mean of
    # all of them has 1, 2, 3 ... of `at` + 1, `at` + 2 ... predictions that know.
    at = 10
    newest = ensembling.reaction(policy, found, m=-30.0, at=at)
    np.testing.assert_allclose(newest, 1.0, atol=1e-3)
    mean = ensembling.reaction(policy, found, m=0.0, at=at)
    assert mean[0] == pytest.approx(1 / (at + 1), abs=1e-3)
    assert mean[0] < mean[5] < mean[15]
    fig, half = ensembling.reaction_figure(policy, found, (-30.0, 0.0), at)
    assert half[-30.0] == 0 < half[0.0]
    assert len(fig.axes[0].lines) == 3
