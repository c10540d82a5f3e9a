"""Lesson 06: its checks, its runs, its numbers, its widget."""

import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from act_minimal.dataset import Demonstrations, Statistics, Windows
from act_minimal.evaluation import Rollout
from course import capstone
from course.figures import lesson_06 as training
from course.toolkit.paths import ROOT
from course.toolkit.training_plot import LiveCurve

from .helpers import answers, check_readable, evaluation, spoils, sweep

pytestmark = pytest.mark.quick


def counted(epochs, episodes, frames, batch, share):
    return epochs * int(np.ceil(round(episodes * share) / batch))


test_counting_updates = answers(
    "06.updates",
    right=[(counted, "They are the same")],
    wrong=[
        (lambda e, n, f, b, s: e * -(-int(n * s) // b), "28.999"),
        (
            lambda e, n, f, b, s: e * int(np.ceil(round(n * s) * f / b)),
            "every frame is a window here",
        ),
        (lambda e, n, f, b, s: e * (round(n * s) // b), "rounded down"),
        (lambda e, n, f, b, s: e * n * s / b, "no rounding"),
        (lambda e, n, f, b, s: e * int(np.ceil(n / b)), "held out"),
        (lambda e, n, f, b, s: e * round(n * s), "these are windows"),
        (lambda e, n, f, b, s: counted(1, n, f, b, s), "of one epoch"),
        (lambda e, n, f, b, s: int(np.ceil(e * round(n * s) / b)), "in each epoch"),
        (lambda e, n, f, b, s: e * round(n * s * f) // b, "every frame is a window"),
        (
            lambda e, n, f, b, s: e * int(np.ceil(n * f / b)),
            "one window an episode and epoch; the episodes held out for validation",
        ),
        (lambda e, n, f, b, s: e * n, "held out for validation are trained on here"),
        (lambda e, n, f, b, s: e * n * f, "every frame is a window"),
        (lambda e, n, f, b, s: n * f / b, "the updates of one epoch"),
        (lambda e, n, f, b, s: e, "expected 120, found 30"),
        (lambda e, n, f, b, s: 17, "expected 120"),
        (lambda e, n, f, b, s: "many", "a number is wanted"),
        (lambda e, n, f, b, s: e * int(np.ceil(n * s / b)), "no part of an episode"),
        (lambda e, n, f, b, s: counted(30, n, f, b, s), "take each from its argument"),
        (lambda e, n, f, b, s: counted(e, 50, f, b, s), "take each from its argument"),
        (lambda e, n, f, b, s: counted(e, n, f, 12, s), "take each from its argument"),
        (lambda e, n, f, b, s: counted(e, n, f, b, 0.9), "take each from its argument"),
    ],
)


def test_the_original_s_epochs():
    assert counted(2000, 50, 400, 8, 0.8) == 10_000


def floored(x, floor):
    return x.mean(0), np.maximum(x.std(0), floor)


def of_float32(x, floor):
    x = torch.tensor(x, dtype=torch.float32)
    return torch.stack([x.mean(0), x.std(0).clamp(min=floor)])


test_normalising = answers(
    "06.scale",
    right=[
        (lambda x, f: np.array([x.mean(0), np.maximum(x.std(0), f)]), ""),
        (lambda x, f: of_float32(x, f), ""),
        (lambda x, f: (x.mean(0), np.maximum(x.std(0), f)), "noise stays small"),
        (lambda x, f: (x.mean(0), np.maximum(x.std(0, ddof=1), f)), ""),
    ],
    stubs=[(lambda x, f: (None, None), "")],
    wrong=[
        (spoils(floored, lambda x, f: x.fill(0)), "changed its argument `x`"),
        (lambda x, f: (x.mean(0), x.std(0)), "there is no floor"),
        (lambda x, f: (x.mean(0), np.maximum(x.std(0), 0.01)), "the deviations are"),
        (lambda x, f: (x.mean(0), x.std(0) + f), "added to every"),
        (lambda x, f: (x.mean(0), np.minimum(x.std(0), f)), "holds from below"),
        (lambda x, f: (x.mean(0), np.maximum(x.var(0), f)), "the variance"),
        (lambda x, f: (x.mean(0), np.sqrt(x.var(0) + f)), "square root"),
        (lambda x, f: (x.mean(0), np.maximum(np.ptp(x, 0), f)), "range"),
        (lambda x, f: (x.mean(1), x.std(1)), "Over which axis"),
        (lambda x, f: (x.mean(), x.std()), "Over which axis"),
        (lambda x, f: (np.median(x, 0), x.std(0)), "the means are"),
        (lambda x, f: x.mean(0), "two arrays"),
        (lambda x, f: (x.mean(0), 0 * x.std(0)), "the deviations are"),
        (
            lambda x, f: (x.mean(0), np.where(x.std(0) < f, 1, x.std(0))),
            "becomes 1 here",
        ),
        (lambda x, f: (x.mean(0), np.sqrt(np.maximum(x.var(0), f))), "on the variance"),
        (
            lambda x, f: (x.mean(0), np.maximum(abs(x - x.mean(0)).mean(0), f)),
            "mean absolute deviation",
        ),
        (lambda x, f: (np.maximum(x.std(0), f), x.mean(0)), "the means are"),
        (lambda x, f: ("mean", "deviation"), "numbers are wanted"),
        (lambda x, f: (x.mean(0), np.maximum(x.std(1), f)), "Over which axis"),
        (lambda x, f: (x.mean(0), np.maximum(x.std(0), 0.02)), "take the floor from"),
        (lambda x, f: (x[:200].mean(0), np.maximum(x.std(0), f)), "all sizes from x"),
        (lambda x, f: (x.mean(0)[:3], np.maximum(x.std(0), f)), "all sizes from x"),
    ],
)


def ranks(x):
    return x.argsort().argsort()


def correlation(a, b):
    return np.corrcoef(a, b)[0, 1]


def spearman(a, b):
    return correlation(ranks(a), ranks(b))


def in_torch(a, b):
    both = torch.tensor(np.array([ranks(a), ranks(b)]), dtype=torch.float32)
    return torch.corrcoef(both)[0, 1]


test_rank_correlation = answers(
    "06.ranks",
    right=[
        (in_torch, ""),
        (lambda a, b: correlation(ranks(a), ranks(b)), "Only the order"),
    ],
    wrong=[
        (spoils(spearman, lambda a, b: b.sort()), "changed its argument `b`"),
        (lambda a, b: spearman(a, b) + 1e-4, "expected -0.2571, found -0.2570"),
        (correlation, "of the values themselves"),
        (
            lambda a, b: correlation(a.argsort(), b.argsort()),
            "argsort its result again",
        ),
        (lambda a, b: correlation(ranks(a), ranks(-b)), "sign is wrong"),
        (lambda a, b: correlation(ranks(a), b), "only one of the two"),
        (lambda a, b: correlation(a, ranks(b)), "only one of the two"),
        (lambda a, b: np.cov(ranks(a), ranks(b))[0, 1], "covariance"),
        (lambda a, b: correlation(ranks(a), ranks(b)) ** 2, "square of the correl"),
        (lambda a, b: abs(correlation(ranks(a), ranks(b))), "the absolute value"),
        (
            lambda a, b: (
                np.sign(np.subtract.outer(a, a) * np.subtract.outer(b, b)).sum() / 30
            ),
            "Kendall",
        ),
        (lambda a, b: np.corrcoef(ranks(a), ranks(b)), "a number is wanted"),
        (lambda a, b: 0.5, "expected"),
        (lambda a, b: ranks(a), "a number is wanted"),
        (lambda a, b: 1 - 6 * ((ranks(a) - ranks(b)) ** 2).sum() / 210, "take n from"),
        (lambda a, b: correlation(ranks(a[:6]), ranks(b[:6])), "take n from the arr"),
    ],
)


def test_the_course_s_rank_correlation_shares_ranks():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 9))
    gaps = ranks(a) - ranks(b)
    right = 1 - 6 * (gaps**2).sum() / (9 * 80)
    assert training.rank_correlation(a, b) == pytest.approx(right)
    assert training.rank_correlation(a, np.exp(a)) == pytest.approx(1)
    # Ties: ranks 0, 1.5, 1.5, 3 against 0, 1, 2, 3.
    tied = training.rank_correlation([1, 2, 2, 5], [1, 2, 3, 4])
    assert tied == pytest.approx(correlation([0, 1.5, 1.5, 3], [0, 1, 2, 3]))
    assert np.isnan(training.rank_correlation([1, 1], [1, 2]))


def test_smoothing_is_a_running_mean():
    values = np.array([4.0, 2, 9, 1, 5])
    right = [np.mean(values[max(0, i - 2) : i + 1]) for i in range(5)]
    np.testing.assert_allclose(training.smooth(values, 3), right)
    np.testing.assert_allclose(training.smooth(values, 1), values)
    assert training.smooth(values, 99)[-1] == pytest.approx(values.mean())


def loop(
    average=lambda error, pad: error[~pad].mean(),
    reduce=lambda kl: kl.sum(-1).mean(),
    loss=lambda l1, kl, beta: l1 + beta * kl,
    order=("backward", "step", "zero"),
    keep=lambda l1, total: l1.item(),
    absolute=torch.abs,
    stop=None,
):
    """A training loop as learners write it, with a mistake or without."""

    def train(model, batches, optimizer, beta):
        history = []
        for batch, eps in list(batches)[:stop]:
            actions, mean, logvar = model(batch, eps)
            l1 = average(absolute(actions - batch["action"]), batch["is_pad"])
            kl = reduce(0.5 * (mean**2 + logvar.exp() - 1 - logvar))
            total = loss(l1, kl, beta)
            steps = {"backward": total.backward, "step": optimizer.step}
            for name in order:
                (steps | {"zero": optimizer.zero_grad})[name]()
            history.append(keep(l1, total))
        return history

    return train


def last_batch(model, batches, optimizer, beta):
    *_, last = batches
    return loop()(model, [last], optimizer, beta)


def first_four(model, batches, optimizer, beta):
    """A loop of which a line for trying things was left in."""
    return loop(stop=4)(model, batches, optimizer, beta)


test_the_training_loop = answers(
    "06.train",
    right=[
        (loop(), "the same five"),
        (loop(order=("zero", "backward", "step")), ""),
        (loop(keep=lambda l1, total: l1.detach()), ""),
        (capstone.train, ""),
    ],
    stubs=[],
    wrong=[
        (first_four, "right for beta = 0.4 and Z = 3, wrong for beta = 1.5"),
        (loop(average=lambda error, pad: error.mean()), "padded actions count"),
        (loop(average=lambda e, pad: (e * ~pad[..., None]).mean()), "set to 0"),
        (loop(average=lambda e, pad: e[pad].mean()), "upside down"),
        (loop(average=lambda e, pad: e[~pad].sum()), "not averaged"),
        (loop(absolute=torch.square), "squared error"),
        (loop(reduce=lambda kl: kl.mean()), "averaged over the Z"),
        (loop(reduce=lambda kl: kl.sum()), "over the batch"),
        (loop(reduce=lambda kl: 2 * kl.sum(-1).mean()), "factor 1 / 2"),
        (loop(reduce=lambda kl: kl.sum(-1).mean().detach()), "no part in the loss"),
        (loop(loss=lambda l1, kl, beta: l1), "no part in the loss"),
        (loop(loss=lambda l1, kl, beta: l1 - beta * kl), "wrong sign"),
        (loop(loss=lambda l1, kl, beta: l1 + kl), "beta is not used"),
        (loop(loss=lambda l1, kl, beta: beta * kl), "only the KL"),
        (loop(loss=lambda l1, kl, beta: -(l1 + beta * kl)), "climbed"),
        (loop(order=("backward", "step")), "zero_grad() is missing"),
        (loop(order=("backward",)), "weights are as before"),
        (loop(order=("step",)), "weights are as before"),
        (loop(order=("backward", "zero", "step")), "weights are as before"),
        (loop(stop=1), "only the first batch"),
        (last_batch, "only the last batch"),
        (loop(keep=lambda l1, total: l1), "with their graphs"),
        (loop(keep=lambda l1, total: total.item()), "L1 alone"),
        (loop(keep=lambda l1, total: 0.0), "the history is not"),
        (loop(keep=lambda l1, total: "l1"), "numbers are wanted"),
        (lambda *a: loop()(*a)[-1], "a list of L1 is wanted"),
        (lambda *a: loop()(*a)[:2], "one number a step"),
        (lambda *a: loop()(*a)[:0], "one number a step"),
        (
            lambda m, batches, o, b: [m(batch) for batch, _ in batches],
            "noise is missing",
        ),
        (lambda model, batches, optimizer, beta: [model], "weights are as before"),
        (loop(loss=lambda l1, kl, beta: l1 + 0.4 * kl), "take beta from the argument"),
        (loop(stop=3), "right for beta = 0.4 and Z = 3, wrong for beta = 1.5"),
        (loop(reduce=lambda kl: 3 * kl.mean()), "all sizes from the tensors"),
        (loop(reduce=lambda kl: kl.sum() / 5), "all sizes from the tensors"),
        (loop(average=lambda e, pad: e[~pad].sum() / (2 * (~pad).sum())), "all sizes"),
    ],
)


@pytest.fixture(scope="module")
def demos():
    return Demonstrations.load(ROOT / "data/samples/state")


def test_a_short_run_learns_and_repeats(demos):
    small = {"chunk_size": 5, "width": 32, "feedforward": 32}
    policy, losses = training.train_short(demos, steps=25, **small)
    _, again = training.train_short(demos, steps=25, **small)
    np.testing.assert_array_equal(losses, again)
    assert losses[-5:].mean() < 0.8 * losses[:5].mean()
    drawn, zero = training.both_losses(policy, demos, frames=32)
    assert 0 < drawn < 2
    assert 0 < zero < 2


def test_a_short_run_is_found_again(demos, tmp_path, monkeypatch):
    monkeypatch.setenv("ACT_MINIMAL_COURSE", str(tmp_path))
    statistics = Windows(demos, [0], 5).statistics()
    small = {"steps": 3, "chunk_size": 5, "width": 32, "feedforward": 32}
    expected = training.train_short(demos, statistics, **small)
    first = training.short_run(demos, statistics, **small)
    others = [(demos, None, {}), (demos, statistics, {"lr": 1e-3})]
    others += [(training.still_joint(demos), None, {})]
    for data, table, change in others:
        other = training.short_run(data, table, **small | change)
        assert not np.array_equal(other[1], first[1])
    monkeypatch.setattr(training, "train_short", None)
    for policy, losses in (first, training.short_run(demos, statistics, **small)):
        np.testing.assert_array_equal(losses, expected[1])
        weights = policy.module.state_dict()
        for name, wanted in expected[0].module.state_dict().items():
            assert torch.equal(weights[name], wanted)
        assert not policy.training


def test_a_short_run_that_comes_apart_ends_in_nan(demos, tmp_path, monkeypatch):
    monkeypatch.setenv("ACT_MINIMAL_COURSE", str(tmp_path))
    plain = Windows(demos, [0], 5).statistics()
    mean = {**plain.mean, "qpos": plain.mean["qpos"] * np.nan}
    statistics = Statistics(mean, plain.std)
    for run in (training.train_short, training.short_run):
        _, losses = run(demos, statistics, steps=3, chunk_size=5, width=32)
        assert np.isnan(losses).all()
        assert len(losses) == 3


def test_the_still_joint(demos):
    seven = training.still_joint(demos, tremor=1e-4)
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
        small = {"steps": 10, "chunk_size": 5, "width": 32}
        policy, _ = training.train_short(seven, statistics, **small)
        found[floor] = training.error_when_moved(policy, seven, [0.0, 0.02], frames=32)
    # 0.02 rad are two deviations with the floor, and 200 without.
    assert abs(found[0.01][1] - found[0.01][0]) < abs(found[1e-8][1] - found[1e-8][0])


def test_joints_are_told(demos):
    line = training.joint_lines(demos)[1]
    assert f"mean {demos.action[:, 1].mean():6.2f}" in line
    assert line.startswith("shoulder lift")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    patch = pytest.MonkeyPatch()
    patch.setenv("ACT_MINIMAL_COURSE", str(tmp_path_factory.mktemp("course")))
    settings = {"chunk_size": 5, "steps": 30, "batch_size": 8, "val_fraction": 0.4}
    settings |= {"val_every": 10, "save_every": 10, "val_frames": 16}
    data = ROOT / "data/samples/state"
    first = training.train_live(data, **settings)
    again = training.train_live(data, **settings)
    patch.undo()
    assert again.folder == first.folder
    assert again.losses == first.losses  # with their times: found, not made again
    return first


def test_all_checkpoints_are_kept(run):
    assert list(training.checkpoints(run)) == [10, 20, 30]


@pytest.fixture
def rolled():
    return {step: evaluation(s, 20) for step, s in ((10, 0), (20, 9), (30, 20))}


def test_the_run_explorer_goes_to_both_ends(run, rolled):
    explorer = training.run_explorer(run, rolled)
    check_readable(explorer)
    assert explorer.controls["checkpoint"].value == 30  # where success rises most
    losses = [r["l1"] for r in run.losses if "l1" in r]
    for window, checkpoint in sweep(explorer, 6, window=(1, 200), checkpoint=rolled):
        assert f"success {rolled[checkpoint]}." in explorer.says
        said = float(re.search(r"training L1 ([\d.]+)", explorer.says)[1])
        right = np.mean(losses[max(0, checkpoint - window) : checkpoint])
        assert said == pytest.approx(right, abs=6e-4)


def test_figures_are_drawn():
    assert training.own_figure([0.5, 0.4, 0.3]).axes
    assert training.rate_figure({0.1: np.ones(9), 1.0: np.full(9, np.nan)}).axes
    assert training.moved_figure([0, 1], {"floor": [1, 2]}).axes


def test_the_film_shows_a_scene_where_two_policies_differ(monkeypatch, tmp_path):
    monkeypatch.setattr("act_minimal.sim.film.film", lambda task, takes, *a, **k: takes)

    def rolled(*successes):
        rows = [
            Rollout(scene, success, 9, 0.0, 0.0, np.zeros((9, 13)))
            for scene, success in enumerate(successes)
        ]
        return evaluation(sum(successes), len(rows), rows)

    ours, theirs = rolled(True, True, False), rolled(True, False, False)
    mine, other = object(), object()
    takes = training.compared_film((ours, mine), (theirs, other), tmp_path / "two.mp4")
    assert [take.title for take in takes] == ["own, scene 1", "package, scene 1"]
    assert [take.success for take in takes] == [True, False]
    assert [take.policy for take in takes] == [mine, other]
    same = training.compared_film((ours, mine), (ours, mine), tmp_path / "two.mp4")
    assert same[0].title == "own, scene 0"


def test_the_live_curve_shows_pictures_with_descriptions(monkeypatch):
    shown = []
    handle = SimpleNamespace(update=shown.append)

    def display(picture, display_id):
        shown.append(picture)
        return handle

    monkeypatch.setattr("IPython.get_ipython", lambda: object())
    monkeypatch.setattr("IPython.display.display", display)
    curve = LiveCurve(every=0.0)
    curve({"step": 10, "l1": 0.5})
    curve({"step": 20, "val_l1": 0.4})
    assert len(shown) == 2
    assert "Loss of the run" in shown[1].html()
    slow = LiveCurve(every=1000.0)
    slow({"step": 10, "l1": 0.5})
    slow({"step": 20, "l1": 0.5})
    assert len(shown) == 3


def test_outside_a_notebook_nothing_is_shown(monkeypatch, capsys):
    monkeypatch.setattr("IPython.get_ipython", lambda: None)
    LiveCurve(every=0.0)({"step": 10, "l1": 0.5})
    assert capsys.readouterr().out == ""
