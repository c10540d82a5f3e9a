"""Lesson 06: its checks, its runs, its numbers, its widget."""

import re
from types import SimpleNamespace

import numpy as np
import pytest

from act_minimal.course import practice
from act_minimal.course.checks import check
from act_minimal.course.place import ROOT
from act_minimal.dataset import Demonstrations, Statistics, Windows
from act_minimal.evaluation import Evaluation, wilson

pytestmark = pytest.mark.quick


def judged(name, answer, state, says):
    verdict = check(name, answer)
    assert verdict.state == state, verdict
    assert says in verdict.message


# ---------------------------------------------------------------- the exercises


def counted(epochs, episodes, frames, batch, share):
    return epochs * int(np.ceil(round(episodes * share) / batch))


@pytest.mark.parametrize(
    ("answer", "state", "says"),
    [
        (counted, "right", "They are the same"),
        (lambda e, n, f, b, s: None, "not attempted", ""),
        (
            lambda e, n, f, b, s: e * int(np.ceil(round(n * s) * f / b)),
            "wrong",
            "every frame counts here",
        ),
        (lambda e, n, f, b, s: e * (round(n * s) // b), "wrong", "rounded down"),
        (lambda e, n, f, b, s: e * n * s / b, "wrong", "no rounding"),
        (lambda e, n, f, b, s: e * int(np.ceil(n / b)), "wrong", "held out"),
        (lambda e, n, f, b, s: e * round(n * s), "wrong", "these are windows"),
        (lambda e, n, f, b, s: counted(1, n, f, b, s), "wrong", "of one epoch"),
        (
            lambda e, n, f, b, s: int(np.ceil(e * round(n * s) / b)),
            "wrong",
            "in each epoch",
        ),
        (lambda e, n, f, b, s: 17, "wrong", "expected 10000"),
        (lambda e, n, f, b, s: "many", "wrong", "a number is wanted"),
    ],
)
def test_counting_updates(answer, state, says):
    judged("06.updates", answer, state, says)


def test_the_original_s_epochs():
    assert counted(2000, 50, 400, 8, 0.8) == 10_000


@pytest.mark.parametrize(
    ("answer", "state", "says"),
    [
        (lambda x, f: (x.mean(0), np.maximum(x.std(0), f)), "right", "harmless"),
        (lambda x, f: (x.mean(0), np.maximum(x.std(0, ddof=1), f)), "right", ""),
        (lambda x, f: None, "not attempted", ""),
        (lambda x, f: (None, None), "not attempted", ""),
        (lambda x, f: (x.mean(0), x.std(0)), "wrong", "there is no floor"),
        (lambda x, f: (x.mean(0), x.std(0) + f), "wrong", "added to every"),
        (
            lambda x, f: (x.mean(0), np.minimum(x.std(0), f)),
            "wrong",
            "holds from below",
        ),
        (lambda x, f: (x.mean(0), np.maximum(x.var(0), f)), "wrong", "the variance"),
        (lambda x, f: (x.mean(0), np.sqrt(x.var(0) + f)), "wrong", "square root"),
        (lambda x, f: (x.mean(0), np.maximum(np.ptp(x, 0), f)), "wrong", "range"),
        (lambda x, f: (x.mean(1), x.std(1)), "wrong", "Over which axis"),
        (lambda x, f: (x.mean(), x.std()), "wrong", "Over which axis"),
        (lambda x, f: (np.median(x, 0), x.std(0)), "wrong", "the means are"),
        (lambda x, f: x.mean(0), "wrong", "two arrays"),
        (lambda x, f: (x.mean(0), 0 * x.std(0)), "wrong", "the deviations are"),
    ],
)
def test_normalising(answer, state, says):
    judged("06.scale", answer, state, says)


def ranks(x):
    return x.argsort().argsort()


def correlation(a, b):
    return np.corrcoef(a, b)[0, 1]


@pytest.mark.parametrize(
    ("answer", "state", "says"),
    [
        (lambda a, b: correlation(ranks(a), ranks(b)), "right", "Only the order"),
        (lambda a, b: None, "not attempted", ""),
        (correlation, "wrong", "of the values themselves"),
        (
            lambda a, b: correlation(a.argsort(), b.argsort()),
            "wrong",
            "argsort its result again",
        ),
        (lambda a, b: correlation(ranks(a), ranks(-b)), "wrong", "sign is reversed"),
        (lambda a, b: correlation(ranks(a), b), "wrong", "only one of the two"),
        (lambda a, b: correlation(a, ranks(b)), "wrong", "only one of the two"),
        (lambda a, b: np.cov(ranks(a), ranks(b))[0, 1], "wrong", "covariance"),
        (lambda a, b: 0.5, "wrong", "expected"),
        (lambda a, b: ranks(a), "wrong", "a number is wanted"),
    ],
)
def test_rank_correlation(answer, state, says):
    judged("06.ranks", answer, state, says)


# ---------------------------------------------------------------- numbers


def test_the_course_s_rank_correlation_shares_ranks():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 9))
    gaps = ranks(a) - ranks(b)
    right = 1 - 6 * (gaps**2).sum() / (9 * 80)
    assert practice.rank_correlation(a, b) == pytest.approx(right)
    assert practice.rank_correlation(a, np.exp(a)) == pytest.approx(1)
    # Ties: ranks 0, 1.5, 1.5, 3 against 0, 1, 2, 3.
    tied = practice.rank_correlation([1, 2, 2, 5], [1, 2, 3, 4])
    assert tied == pytest.approx(correlation([0, 1.5, 1.5, 3], [0, 1, 2, 3]))
    assert np.isnan(practice.rank_correlation([1, 1], [1, 2]))


def test_smoothing_is_a_running_mean():
    values = np.array([4.0, 2, 9, 1, 5])
    right = [np.mean(values[max(0, i - 2) : i + 1]) for i in range(5)]
    np.testing.assert_allclose(practice.smooth(values, 3), right)
    np.testing.assert_allclose(practice.smooth(values, 1), values)
    assert practice.smooth(values, 99)[-1] == pytest.approx(values.mean())


@pytest.fixture(scope="module")
def demos():
    return Demonstrations.load(ROOT / "data/samples/state")


def test_a_short_run_learns_and_repeats(demos):
    small = {"chunk_size": 5, "width": 32, "feedforward": 32}
    policy, losses = practice.short_run(demos, steps=25, **small)
    _, again = practice.short_run(demos, steps=25, **small)
    np.testing.assert_array_equal(losses, again)
    assert losses[-5:].mean() < 0.8 * losses[:5].mean()
    drawn, zero = practice.both_losses(policy, demos, frames=32)
    assert 0 < drawn < 2
    assert 0 < zero < 2


def test_a_short_run_that_comes_apart_ends_in_nan(demos):
    plain = Windows(demos, [0], 5).statistics()
    mean = {**plain.mean, "qpos": plain.mean["qpos"] * np.nan}
    _, losses = practice.short_run(
        demos, Statistics(mean, plain.std), steps=3, chunk_size=5, width=32
    )
    assert np.isnan(losses).all()


def test_the_still_joint(demos):
    seven = practice.still_joint(demos, tremor=1e-4)
    assert demos.qpos.shape[1] == 6  # as it was
    np.testing.assert_array_equal(seven.qpos[:, :6], demos.qpos)
    assert seven.qpos[:, 6].mean() == pytest.approx(0.5, abs=1e-4)
    assert seven.qpos[:, 6].std() == pytest.approx(1e-4, rel=0.2)
    windows = Windows(seven, range(len(seven)), 5)
    found = {}
    for floor in (0.01, 1e-8):
        statistics = windows.statistics(floor)
        least = max(floor, float(seven.qpos[:, 6].std()))
        assert statistics.std["qpos"][6] == pytest.approx(least, rel=1e-3)
        policy, _ = practice.short_run(
            seven, statistics, steps=10, chunk_size=5, width=32
        )
        found[floor] = practice.error_when_moved(policy, seven, [0.0, 0.02], frames=32)
    # 0.02 rad are two deviations with the floor, and 200 without.
    assert abs(found[0.01][1] - found[0.01][0]) < abs(found[1e-8][1] - found[1e-8][0])


def test_joints_are_told(demos):
    line = practice.joint_lines(demos)[1]
    assert f"mean {demos.action[:, 1].mean():6.2f}" in line
    assert line.startswith("shoulder lift")


# ---------------------------------------------------------------- a run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    patch = pytest.MonkeyPatch()
    patch.setenv("ACT_MINIMAL_COURSE", str(tmp_path_factory.mktemp("course")))
    settings = {"chunk_size": 5, "steps": 30, "batch_size": 8, "val_fraction": 0.4}
    settings |= {"val_every": 10, "save_every": 10, "val_frames": 16}
    data = ROOT / "data/samples/state"
    first = practice.train_live(data, **settings)
    again = practice.train_live(data, **settings)
    patch.undo()
    assert again.folder == first.folder
    assert again.losses == first.losses  # with their times: found, not made again
    return first


def test_all_checkpoints_are_kept(run):
    assert list(practice.checkpoints(run)) == [10, 20, 30]


def evaluation(successes, n=20):
    return Evaluation(
        successes, n, successes / n, wilson(successes, n), None, 0, 0, 0, 0, 0
    )


@pytest.fixture
def rolled():
    return {10: evaluation(0), 20: evaluation(9), 30: evaluation(20)}


def test_the_run_explorer_goes_to_both_ends(run, rolled):
    explorer = practice.run_explorer(run, rolled)
    losses = [r["l1"] for r in run.losses if "l1" in r]
    shown = set()
    for window in (1, 200):
        for checkpoint, e in rolled.items():
            explorer.set(window=window, checkpoint=checkpoint)
            shown.add(explorer.figure_html)
            assert f"success {100 * e.rate:.0f} % (n = 20" in explorer.says
            said = float(re.search(r"training L1 ([\d.]+)", explorer.says)[1])
            right = np.mean(losses[max(0, checkpoint - window) : checkpoint])
            assert said == pytest.approx(right, abs=6e-4)
    assert explorer.errors == []
    assert len(shown) == 6


def test_figures_are_drawn(run):
    assert practice.loss_figure(run).axes
    assert practice.rate_figure({0.1: np.ones(9), 1.0: np.full(9, np.nan)}).axes
    assert practice.moved_figure([0, 1], {"floor": [1, 2]}).axes


def test_the_live_curve_shows_pictures_with_descriptions(monkeypatch):
    shown = []
    handle = SimpleNamespace(update=shown.append)

    def display(picture, display_id):
        shown.append(picture)
        return handle

    monkeypatch.setattr("IPython.get_ipython", lambda: object())
    monkeypatch.setattr("IPython.display.display", display)
    curve = practice.LiveCurve(every=0.0)
    curve({"step": 10, "l1": 0.5})
    curve({"step": 20, "val_l1": 0.4})
    assert len(shown) == 2
    assert "Loss of the run" in shown[1].html()
    slow = practice.LiveCurve(every=1000.0)
    slow({"step": 10, "l1": 0.5})
    slow({"step": 20, "l1": 0.5})
    assert len(shown) == 3


def test_outside_a_notebook_nothing_is_shown(monkeypatch, capsys):
    monkeypatch.setattr("IPython.get_ipython", lambda: None)
    practice.LiveCurve(every=0.0)({"step": 10, "l1": 0.5})
    assert capsys.readouterr().out == ""
