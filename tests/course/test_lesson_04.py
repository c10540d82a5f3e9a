"""Lesson 04: its checks, its numbers, its widget."""

import re

import numpy as np
import pytest

from act_minimal.evaluation import jerk
from course.figures import lesson_04 as ensembling

from .helpers import answers, sweep

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
    ],
)


def take_in(mean, count, new, m, share=lambda n, m: np.exp(-m * n), first=False):
    """The running mean with the new prediction's `share` of all the weights."""
    if first and count == 0:
        return new
    own = share(count, m)
    return mean + own / (weights(count, m).sum() + own) * (new - mean)


test_the_running_mean = answers(
    "04.online",
    right=[(take_in, "running mean")],
    wrong=[
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
    ends = {"m": (-0.3, 0.0, 0.3), "direction": ("oldest first", "newest first")}
    for m, direction in sweep(explorer, 6, **ends):
        age = ensembling.mean_age(m, 10, direction == "oldest first")
        assert f"{age:.1f} ticks old" in explorer.says


def test_the_explorer_tells_the_jerk_of_what_it_draws(found):
    explorer = ensembling.ensemble_explorer(found).set(m=0.0)
    # The plain mean, from the definition.
    mean = np.empty((50, 6))
    for t in range(50):
        known = [found.chunks[s, t - s] for s in range(max(0, t - 9), t + 1)]
        mean[t] = np.mean(known, axis=0)
    said = float(re.search(r"jerk (\d+)", explorer.says)[1])
    assert said == pytest.approx(jerk(mean[:, :5], 30.0), abs=0.5)
    assert said < jerk(found.executed[:, :5], 30.0)


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
