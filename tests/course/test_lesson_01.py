"""Lesson 01: its checks, its toys, its experts with feedback, its widgets."""

import re

import numpy as np
import pytest
import torch

from act_minimal.dataset import Demonstrations
from act_minimal.evaluation import Rollout
from act_minimal.sim.recording import scene_seed
from act_minimal.sim.so100.arm import gripper_to_jaw
from act_minimal.sim.world import World, start
from act_minimal.support.errors import UserError
from course.figures import lesson_01_corrections as corrections
from course.figures import lesson_01_dagger as arm
from course.figures import lesson_01_drift as drift
from course.toolkit.paths import ROOT
from course.toolkit.questions import QUESTIONS
from course.toolkit.results import look_up

from .helpers import answers, check_readable, evaluation, spoils


def walked(policy, expert, step, start, T, *, policy_sees="x", expert_sees="e"):
    """Signed distances of two walkers: x follows the policy, e the expert."""
    x = e = start
    found = [0.0]
    for _ in range(T):
        seen = {"x": x, "e": e}
        x = step(x, policy(seen[policy_sees]))
        e = step(e, expert(seen[expert_sees]))
        found.append(x - e)
    return np.array(found)


def distances(*given, **sees):
    return np.abs(walked(*given, **sees))


def one_step(policy, expert, step, start, T, *, walker):
    """Distances after a step from the same state, along one walker's way."""
    state, found = start, [0.0]
    for _ in range(T):
        both = step(state, policy(state)), step(state, expert(state))
        found.append(abs(both[0] - both[1]))
        state = both[walker]
    return np.array(found)


def stepless(policy, expert, step, start, T):
    return distances(policy, expert, lambda x, action: action, start, T)


test_two_walkers = answers(
    "01.drift",
    right=[(distances, "closed loop")],
    wrong=[
        (lambda *a: one_step(*a, walker=0), "starts from one place"),
        (stepless, "an action is not the next state"),
        (lambda *a: one_step(*a, walker=1), "open loop"),
        (lambda *a: distances(*a, policy_sees="e"), "asked about the expert's"),
        (lambda *a: distances(*a, expert_sees="x"), "walk its own way"),
        (walked, "no sign"),
        (lambda *a: distances(*a)[1:], "start is missing"),
        (lambda *a: distances(*a)[:-1], "last state is missing"),
        (lambda *a: distances(*a) ** 2, "squared"),
        (lambda *a: np.cumsum(distances(*a)), "summed up"),
        (lambda *a: 2 * distances(*a), "after one step"),
        (lambda *a: distances(*a)[::-1], "after one step"),
        (lambda *a: distances(*a).mean(), "expected T + 1 = 6 distances"),
        (lambda *a: np.outer(distances(*a), [1, 1]), "expected T + 1 = 6 distances"),
        (lambda *a: "far", "numbers are wanted"),
        (lambda *a: {"distances": distances(*a)}, "numbers are wanted"),
        (lambda *a: [[0.0], [1.0, 2.0]], "numbers are wanted"),
        (lambda *a: distances(*a) * np.nan, "after one step"),
        (lambda *a: 1 / 0, "ZeroDivisionError"),
        (lambda p, e, s, x, T: distances(p, e, s, x, 5), "take the number of steps"),
        (lambda p, e, s, x, T: distances(p, e, s, 0.4, T), "the start from the arg"),
    ],
)


def cost(T, eps):
    return sum(1 - (1 - eps) ** t for t in range(1, T + 1))


test_the_price_of_no_way_back = answers(
    "01.cost",
    right=[
        (
            lambda T, eps: (
                1 - (1 - torch.tensor(eps)) ** torch.arange(1, T + 1)
            ).sum(),
            "",
        ),
        (cost, "straight line"),
    ],
    wrong=[
        (lambda T, eps: sum(1 - (1 - eps) ** t for t in range(T)), "1 to T"),
        (lambda T, eps: sum((1 - eps) ** t for t in range(1, T + 1)), "steps on"),
        (lambda T, eps: sum(1 - eps**t for t in range(1, T + 1)), "adds up 1 - eps^t"),
        (lambda T, eps: sum(1 - (1 - eps) ** t for t in range(1, T + 2)), "to T + 1"),
        (lambda T, eps: cost(T, eps) / T, "the mean over the steps"),
        (lambda T, eps: eps * T**2 / 2, "eps T² / 2 is what"),
        (lambda T, eps: -cost(T, eps), "should be"),
        (lambda T, eps: [cost(T, eps)], "one number is wanted"),
        (lambda T, eps: {"cost": cost(T, eps)}, "numbers are wanted"),
        (lambda T, eps: eps * T, "put back"),
        (lambda T, eps: eps * T * (T + 1) / 2, "while eps T is small"),
        (lambda T, eps: 1 - (1 - eps) ** T, "every step after the fall"),
        (lambda T, eps: eps * T**2, "bound"),
        (lambda T, eps: np.full(T, eps), "one number"),
        (lambda T, eps: 3.0, "should be"),
        (lambda T, eps: cost(40, eps), "right for T = 40 and eps = 0.03, wrong for"),
        (lambda T, eps: cost(T, 0.03), "take both, T and eps"),
    ],
)


def z_scored(x):
    return (x - x.mean(0)) / x.std(0)


def nearest(v, d, std=None, of=np.min, axis=1):
    std = d.std(0) if std is None else std
    table = np.linalg.norm((v[:, None] - d[None]) / std, axis=2)
    return of(table, axis)


test_the_nearest_demonstration = answers(
    "01.nearest",
    right=[
        (lambda v, d: nearest(v, d, d.std(0) + 1e-6), ""),
        (lambda v, d: nearest(v.astype("f4"), d.astype("f4")), ""),
        (nearest, "nearest one counts"),
        (lambda v, d: nearest(v, d, d.std(0, ddof=1)), "nearest one counts"),
    ],
    wrong=[
        (
            spoils(nearest, lambda v, d: np.divide(v, 2, out=v)),
            "changed its argument `v`",
        ),
        (lambda v, d: nearest(v, d, np.ones(3)), "different units"),
        (lambda v, d: nearest(z_scored(v), z_scored(d), 1), "z-scored alone"),
        (lambda v, d: nearest(v, d, d.var(0)), "the variance"),
        (lambda v, d: nearest(v, d, 1 / d.std(0)), "multiplies"),
        (lambda v, d: nearest(v, d) / np.sqrt(3), "the root of their sum"),
        (lambda v, d: nearest(v, d)[::-1], "visited state number 0"),
        (lambda v, d: {"near": nearest(v, d)}, "numbers are wanted"),
        (lambda v, d: nearest(v, d, v.std(0)), "its own ruler"),
        (lambda v, d: nearest(v, d, of=np.mean), "mean distance"),
        (lambda v, d: nearest(v, d, of=np.max), "farthest"),
        (lambda v, d: nearest(v, d) ** 2, "squared"),
        (lambda v, d: nearest(v, d, axis=0), "over the visited"),
        (lambda v, d: nearest(v, d, of=np.argmin), "argmin"),
        (lambda v, d: nearest(v, d, d.std()), "std(0), one for each"),
        (
            lambda v, d: (np.abs(v[:, None] - d) / d.std(0)).sum(2).min(1),
            "absolute differences",
        ),
        (lambda v, d: nearest(v, d).sum(), "one a visited state"),
        (lambda v, d: 0 * nearest(v, d), "visited state number 0"),
        (lambda v, d: nearest(v[:4], d), "take all sizes from the arrays"),
        (lambda v, d: nearest(v, d[:11], d.std(0)), "take all sizes from the arrays"),
        (lambda v, d: nearest(v[:, :3], d[:, :3]), "take all sizes from the arrays"),
        (
            lambda v, d: 3**0.5 * nearest(v, d) / d.shape[1] ** 0.5,  # S = 3
            "take all sizes from the arrays",
        ),
    ],
)


def disturbed(expert, step, start, noise, *, label=0.0, done=1.0, seen=0.0, after=0):
    """DART's loop, with a knob for each way to get it wrong."""
    states, labels, state = [], [], start
    for push in noise:
        right = expert(state + seen * push)
        states.append(state)
        labels.append(right + label * push)
        state = step(state, right + done * push)
        if after:
            states[-1] = state
    return np.array(states), np.array(labels)


def shaken(expert, step, start, noise):
    states, labels = disturbed(expert, step, start, 0 * noise)
    return states + noise, labels


def labelled_late(expert, step, start, noise):
    states, labels = disturbed(expert, step, start, noise)
    end = step(states[-1], labels[-1] + noise[-1])
    return states, expert(np.array([*states[1:], end]))


test_a_disturbed_demonstration = answers(
    "01.disturb",
    right=[(disturbed, "how to come back")],
    wrong=[
        (
            spoils(disturbed, lambda e, step, x, noise: noise.fill(0)),
            "changed its argument `noise`",
        ),
        (lambda *a: disturbed(*a, label=1.0), "noise is in the labels"),
        (lambda *a: disturbed(*a, label=-1.0), "minus the noise"),
        (lambda *a: disturbed(*a, done=-1.0), "here it is minus"),
        (lambda *a: disturbed(*a, done=2.0), "second state"),
        (labelled_late, "ask the expert before"),
        (lambda *a: ("states", "labels"), "numbers are wanted"),
        (lambda *a: [x.T for x in disturbed(*a)], "shape (4, 2)"),
        (lambda *a: disturbed(*a, done=0.0), "never done"),
        (lambda *a: disturbed(*a, done=0.0, label=1.0), "wrong way round"),
        (lambda *a: disturbed(*a, seen=1.0), "where the arm really is"),
        (lambda *a: disturbed(*a, after=1), "the state after it"),
        (lambda *a: disturbed(*a)[::-1], "first the states"),
        (shaken, "moves the arm"),
        (lambda *a: disturbed(*a)[0], "two things"),
        (lambda *a: tuple(x[1:] for x in disturbed(*a)), "shape (4, 2)"),
        (lambda *a: tuple(2 * x for x in disturbed(*a)), "second state"),
        (lambda e, s, x, n: disturbed(e, s, x, n[:4]), "the number of steps from"),
        (
            lambda e, s, x, n: disturbed(e, s, np.array([0.2, -0.1]), n),
            "right for 4 steps of 2 joints",
        ),
        (
            lambda e, s, x, n: disturbed(e, s, np.resize([0.2, -0.1], len(x)), n),
            "the first state from `start`",
        ),
    ],
)


def dagger(pairs, rounds, retrain, drive, expert, *, keep=1, between=1, last=1):
    """DAgger, with a switch for each step that can be left out."""
    pairs, policy = list(pairs), retrain(pairs)
    for i in range(rounds):
        new = [(states, expert(states)) for states in drive(policy)]
        pairs = [*pairs, *new] if keep else new
        if between and (last or i < rounds - 1):
            policy = retrain(pairs)
    return (policy if between or not last else retrain(pairs)), pairs


def forgetful(pairs, *given):
    """Adds to the list that it was given."""
    policy, pairs[:] = dagger(pairs, *given)
    return policy, pairs


def asked_at_once(pairs, rounds, retrain, drive, expert):
    """All states of a round under one pair."""
    pairs, policy = list(pairs), retrain(pairs)
    for _ in range(rounds):
        states = np.concatenate(drive(policy))
        pairs, policy = [*pairs, (states, expert(states))], None
        policy = retrain(pairs)
    return policy, pairs


def of_itself(pairs, rounds, retrain, drive, expert):
    pairs, policy = list(pairs), retrain(pairs)
    for _ in range(rounds):
        pairs += [(states, policy * states) for states in drive(policy)]
        policy = retrain(pairs)
    return policy, pairs


def turned_round(pairs, rounds, retrain, drive, expert):
    pairs, policy = list(pairs), retrain(pairs)
    for _ in range(rounds):
        pairs += [(expert(states), states) for states in drive(policy)]
        policy = retrain(pairs)
    return policy, pairs


test_dagger = answers(
    "01.dagger",
    right=[(dagger, "the expert their labels"), (asked_at_once, "all is kept")],
    wrong=[
        (of_itself, "the policy's own actions"),
        (lambda *a: dagger(*a, keep=0), "earlier pairs are dropped"),
        (lambda *a: dagger(*a, between=0), "not trained anew"),
        (lambda *a: dagger(*a, between=0, last=0), "never trained on the pairs"),
        (lambda *a: dagger(*a, last=0), "pairs of the last round"),
        (lambda p, n, *a: dagger(p, n - 1, *a), "one round is missing"),
        (lambda p, n, *a: dagger(p, n + 1, *a), "one round too many"),
        (lambda p, n, *a: dagger(p, 0, *a), "nothing was added"),
        (turned_round, "a pair is (states, labels)"),
        (forgetful, "changed its argument `pairs`"),
        (lambda *a: dagger(*a)[::-1], "first the policy"),
        (lambda *a: dagger(*a)[0], "two things"),
        (lambda *a: (dagger(*a)[0], np.zeros(3)), "the pairs are a list"),
        (lambda *a: (dagger(*a)[0], [1, 2]), "two arrays each"),
        (lambda *a: (dagger(*a)[0], [("a", "b")]), "numbers are wanted"),
        (lambda *a: (dagger(*a)[0], [(1.0, 2.0)]), "a pair is states (T, S)"),
        (lambda *a: ("policy", dagger(*a)[1]), "the policy that retrain gave"),
        (lambda p, n, r, d, e: dagger(p, n, r, d, lambda x: -e(x)), "there should be"),
        (lambda p, n, r, d, e: d(None), "raised TypeError"),
        (lambda p, n, *a: dagger(p, 2, *a), "the number of rounds from the argument"),
        (lambda p, n, *a: dagger(p, len(p), *a), "the number of rounds from the arg"),
        (lambda p, n, *a: dagger(p[:2], n, *a), "go through all that `pairs`"),
        (
            lambda p, n, r, drive, e: dagger(p, n, r, lambda x: drive(x)[:2], e),
            "go through all that `pairs`",
        ),
    ],
)


@pytest.mark.quick
def test_the_ridge_costs_what_the_formula_says():
    for eps, ticks in ((0.01, 60), (0.1, 20)):
        walked = drift.cliff(ticks, eps, n=20_000).sum(1)
        error = walked.std() / np.sqrt(len(walked))
        assert abs(walked.mean() - cost(ticks, eps)) < 4 * error
    # With a sure way back a mistake costs one step: eps / (1 + eps) of the time.
    back = drift.cliff(400, 0.1, back=1.0, n=5000)[:, 50:].mean()
    assert back == pytest.approx(0.1 / 1.1, rel=0.03)
    assert drift.ridge_figure(n=50).axes


@pytest.mark.quick
def test_tracking_agrees_with_a_simulation():
    noise = np.random.default_rng(0).normal(size=(20_000, 40))
    for correction in (0.0, 0.1, 0.5):
        e = np.zeros(len(noise))
        one_way, t = 0.0, []
        for kick in noise.T:
            e = (1 - correction) * e + 0.03 * kick
            one_way = (1 - correction) * one_way + 0.03
            t.append(np.abs(e).mean())
        either_way = drift.tracking(40, 0.03, correction, False)
        np.testing.assert_allclose(either_way, t, rtol=0.03)
        assert drift.tracking(40, 0.03, correction, True)[-1] == pytest.approx(one_way)


@pytest.mark.quick
def test_every_slider_of_the_toy_goes_to_both_ends():
    explorer = drift.tracking_explorer(ticks=100)
    check_readable(explorer)
    shown = {explorer.figure_html}
    for kind in ("all one way", "either way"):
        for name in ("mistake", "correction"):
            control = explorer.controls[name]
            for end in (control.min, control.max):
                explorer.set(kind=kind, **{name: end})
                shown.add(explorer.figure_html)
    assert explorer.errors == []
    assert len(shown) >= 7
    explorer.set(kind="all one way", mistake=0.01, correction=0.0)
    assert "100 steps 1.000 away" in explorer.says
    # T (T + 1) / 2 against half of that horizon.
    power = np.log2(100 * 101 / (50 * 51))
    assert f"T^{power:.2f}" in explorer.says
    explorer.set(correction=0.5)
    assert "100 steps 0.020 away" in explorer.says
    power = float(re.search(r"T\^([\d.]+)", explorer.says)[1])
    assert power == pytest.approx(1.0, abs=0.03)


@pytest.fixture(scope="module")
def corrector():
    return corrections.Corrector()


@pytest.fixture(scope="module")
def feedback(tmp_path_factory):
    return corrections.record(tmp_path_factory.mktemp("feedback"), 2, "feedback")


def test_the_expert_with_feedback_does_the_task(corrector):
    world = World(corrections.make_task(corrections.TASK))
    for scene in (scene_seed(3, 0), scene_seed(3, 1), 11):
        world.reset([scene])
        episode = corrections.play(world, scene, lambda tick, qpos: corrector(qpos))
        assert episode.attributes["success"]
        assert len(episode) < 200


def test_the_expert_with_feedback_comes_back(corrector):
    """Pushed off its way, and with the cube let go in mid-air, it starts over."""
    world, scene = World(corrections.make_task(corrections.TASK)), scene_seed(3, 2)
    world.reset([scene])
    noise = corrections.slow_noise(500, 0.1, 30, np.random.default_rng(0))

    def clumsy(tick, qpos):
        action = corrector(qpos)
        if 55 <= tick < 75:
            action[5] = 0.9  # whatever is held falls
        return action

    def right(tick, qpos):
        return corrector(qpos)

    corrections.play(world, scene, right, drive=clumsy, ticks=75)
    assert not world.success[0]
    corrections.play(world, scene, right, noise=0.2 * noise)
    assert world.success[0]


def test_the_same_state_gets_the_same_action(corrector):
    qpos = start(corrections.make_task(corrections.TASK), 5)
    other = corrections.Corrector()
    other(start(corrections.make_task(corrections.TASK), 6))
    np.testing.assert_allclose(corrector(qpos), other(qpos), atol=1e-6)


def test_stages_follow_where_the_cube_is(corrector):
    task = corrections.make_task(corrections.TASK)
    qpos = start(task, 0)
    assert corrector.stage(qpos) == "approach"
    in_bin = qpos.copy()
    in_bin[6:9] = [*corrections.BIN_CENTRE, 0.0125]
    assert corrector.stage(in_bin) == "leave"
    assert corrector(in_bin)[5] > 0.3  # the jaw opens
    held = qpos.copy()
    held[5] = gripper_to_jaw(0.11)
    held[6:9] = corrector.fingers(held)
    assert corrector.stage(held) in ("carry", "lift")
    assert corrector(held)[5] < 0.11  # it keeps squeezing


def test_disturbed_demonstrations_have_clean_labels():
    """Scripted plans are a function of the scene: the labels must be that plan."""
    world = World(corrections.make_task(corrections.TASK))
    expert = corrections.make_expert("scripted")
    scene = scene_seed(1, 0)
    calm = None
    for scale in (0.0, 0.05):
        world.reset([scene])
        act = expert(np.array(world.qpos[0]), scene)
        noise = corrections.slow_noise(500, scale, 30, np.random.default_rng(1))
        episode = corrections.play(world, scene, act, noise=noise, ticks=60)
        if calm is None:
            calm = episode
    np.testing.assert_array_equal(episode.action, calm.action)
    apart = np.abs(episode.qpos - calm.qpos)[:, :5].max()
    assert 0.01 < apart < 0.3


@pytest.mark.quick
def test_slow_noise_has_its_deviation_and_spares_the_jaw():
    noise = corrections.slow_noise(20_000, 0.04, 30, np.random.default_rng(0))
    assert noise[1000:, :5].std() == pytest.approx(0.04, rel=0.1)
    assert not noise[:, 5].any()
    x = noise[1000:, 0]
    one_later = np.corrcoef(x[:-1], x[1:])[0, 1]
    assert one_later == pytest.approx(np.exp(-1 / (0.15 * 30)), abs=0.02)


@pytest.mark.quick
def test_pauses_are_in_the_plans():
    task = corrections.make_task(corrections.TASK)
    qpos = start(task, scene_seed(0, 0))
    plain = corrections.make_expert("scripted")(qpos, 1)
    lengths = {}
    for kind, expected in (("paused", 6 * 15), ("hesitant", None)):
        planner = corrections.Paused(corrections.PAUSES[kind])
        lengths[kind] = len(planner.plan(qpos, 1))
        base = len(corrections.Paused((0.0, 0.0)).plan(qpos, 1))
        more = lengths[kind] - base
        assert more == expected if expected else 0 < more < 6 * 30
    assert plain(0, qpos) is not None
    assert plain(5000, qpos) is None


def test_recorded_demonstrations_are_found_again(feedback):
    demos = Demonstrations.load(feedback)
    assert len(demos) == 2
    before = [p.stat().st_mtime_ns for p in sorted(feedback.glob("*.hdf5"))]
    assert corrections.record(feedback, 2, "feedback") == feedback
    assert before == [p.stat().st_mtime_ns for p in sorted(feedback.glob("*.hdf5"))]
    ahead = np.abs(demos.action - demos.qpos)[:, :5].max()
    assert ahead == pytest.approx(corrections.LEAD, rel=0.01)


@pytest.mark.quick
def test_the_distance_to_the_data(feedback):
    known, demos = drift.Known(feedback), Demonstrations.load(feedback)
    states = np.concatenate([demos.qpos, demos.env_state], 1)
    assert known.distance(states[::7]).max() < 1e-4
    moved = states[:5].copy()
    moved[:, 0] += 0.5
    std = np.maximum(states.std(0), 0.01)
    brute = [np.sqrt((((states - m) / std) ** 2).sum(1)).min() for m in moved]
    np.testing.assert_allclose(known.distance(moved), brute, rtol=1e-3)


@pytest.mark.quick
def test_errors_of_made_up_paths():
    path = drift.Path13(np.zeros((4, 13)), np.zeros((4, 6)))
    state = np.zeros((6, 13))
    state[:, 1], state[:, 5] = 0.1 * np.arange(6), 9.0  # the jaw does not count
    (error,) = drift.path_errors([state], [path])
    np.testing.assert_allclose(error, 0.1 * np.arange(4))
    table = drift.padded([np.ones(2), np.ones(5)], 4)
    np.testing.assert_array_equal(np.isnan(table).sum(1), [2, 0])
    t = np.arange(1, 201.0)
    assert drift.horizon_power(np.cumsum(t)) == pytest.approx(1.96, abs=0.02)
    assert drift.horizon_power(np.cumsum(np.ones(200))) == pytest.approx(1.0)


def test_the_experts_path_is_its_own():
    (path,) = drift.expert_paths([3])
    assert path.qpos.shape == (len(path.action), 13)
    first = start(drift.TASK, 3)
    np.testing.assert_allclose(path.qpos[0, :5], first[:5], atol=1e-6)
    assert 0 <= path.qpos[0, 5] <= 1


@pytest.mark.quick
def test_the_expert_labels_what_it_would_do(corrector):
    """From a policy's states, whose gripper is an opening and not an angle."""
    task = corrections.make_task(corrections.TASK)
    qpos = np.stack([start(task, scene) for scene in (1, 2)])
    qpos[1, 1] += 0.1
    states = np.concatenate([task.state(qpos), qpos[:, 6:]], 1)
    labels = arm.Expert()(states)
    wanted = np.stack([corrector(row) for row in qpos])
    np.testing.assert_allclose(labels, wanted, atol=1e-5)


def test_dagger_runs_on_the_arm(home, monkeypatch):
    """Two rounds by the learner's loop, tiny; a wrong one is stood in for."""
    monkeypatch.setattr(arm, "STEPS", 2)
    monkeypatch.setattr(arm, "EACH", 1)
    monkeypatch.setattr(arm, "ROUNDS", 2)
    states = np.concatenate([np.zeros((9, 6)), np.full((9, 7), 0.1)], 1)
    states[:, 8], states[:, 9] = 0.0125, 1.0
    pairs = [(states.astype(np.float32), np.zeros((9, 6), np.float32))] * 2
    monkeypatch.setattr(arm, "given", lambda: list(pairs))
    seen = []

    def mine(*given):
        seen.append(given[0])
        return dagger(*given)

    whose, found = arm.learn(mine)
    assert whose == "your DAgger"
    assert arm.retrain(found, 3).chunk_size == 1
    assert seen[-1] == pairs  # after the check's own
    assert len(found) == 2 + 2
    for states, labels in found[2:]:
        assert states.shape == (arm.TICKS, 13)
        assert labels.shape == (arm.TICKS, 6)
        again = arm.Expert()(states[-1:])[0]
        np.testing.assert_allclose(labels[-1], again, atol=1e-3)
    assert not np.array_equal(found[2][0], found[3][0])  # another scene each
    whose, same = arm.learn(lambda *given: None)
    assert "the course's" in whose
    np.testing.assert_array_equal(same[-1][0], found[-1][0])


class Says:
    """A policy that wants the arm where it is, plus 0.1 rad in one joint."""

    def predict_chunk(self, seen):
        said = seen["qpos"].copy()
        said[:, 2] += 0.1
        return said[:, None]


@pytest.mark.quick
def test_open_loop_errors():
    qpos = np.random.default_rng(0).normal(size=(7, 13))
    path = drift.Path13(qpos, qpos[:, :6].copy())
    (error,) = drift.action_errors(Says(), [path])
    np.testing.assert_allclose(error, 0.1)


def made_up(n=3, ticks=40):
    """Rollouts that move away from scene 0 at different speeds."""
    rolls = []
    for i in range(n):
        qpos = np.repeat(start(drift.TASK, 0)[None], ticks, 0)
        qpos[:, 1] += 0.02 * (i + 1) * np.arange(ticks)
        rolls.append(Rollout(i, i == 0, ticks, 0.0, 0.0, qpos.astype(np.float32)))
    return evaluation(1, n, rolls)


@pytest.mark.quick
def test_the_pictures_draw(feedback):
    found, known = made_up(), drift.Known(feedback)
    states = drift.visited(found)
    rows = {"a": [known.distance(s) for s in states], "b": [np.ones(30)] * 2}
    assert drift.over_time(rows, "distance").axes
    long = {"a": [np.linspace(0, 1, 200)] * 3}
    assert drift.horizon_figure(long).axes
    with pytest.raises(UserError, match="no demonstrator"):
        corrections.make_expert("nobody")


@pytest.mark.parametrize("target", ["absolute", "delta"])
def test_a_rollout_sees_what_the_demonstrations_showed(tmp_path, target):
    """Doing a demonstration's actions gives the inputs that training had."""
    from act_minimal.episodes import list_episodes, load_episode
    from benchmarks.claims import trial as t

    sees = {"history": 3, "last_action": True}
    trial = t.Trial("x", 0, {}, settings={"action_target": target}, **sees)
    data = corrections.record(tmp_path / "data", 1, "scripted")
    wide = load_episode(list_episodes(t.widen(trial, data, tmp_path / "wide"))[0])
    plain = load_episode(list_episodes(data)[0])
    scene = int(plain.attributes["scene"])
    robot = t.Remembering([scene], trial, 0.0, 0)
    robot.connect()
    for tick in range(40):
        seen = robot.observe()["env_state"][0]
        np.testing.assert_allclose(seen, wide.env_state[tick], atol=1e-4)
        robot.act(plain.action[tick][None])
    # Two steps back, from the definition: positions then minus positions now.
    row = wide.env_state[20]
    np.testing.assert_allclose(row[:7], plain.env_state[20])
    back = plain.qpos[18] - plain.qpos[20]
    np.testing.assert_allclose(row[7 + 13 : 7 + 19], back, atol=1e-6)
    last = plain.action[19] - (plain.qpos[20] if target == "delta" else 0.0)
    np.testing.assert_allclose(row[-6:], last, atol=1e-6)


@pytest.mark.quick
def test_single_steps_are_in_the_table_of_recipes():
    """Every rate at k = 1 that a question of lessons 00 to 02 quotes."""
    source = (ROOT / "notebooks/src/01_compounding_error.py").read_text("utf-8")
    table = source.partition("## Single steps, by recipe")[2].partition("## Where")[0]
    listed = {" ".join(x.split()) for x in re.findall(r"\{\{(.+?)\}\}", table)}
    quoted = set()
    for key in ("01.clean", "01.rescue", "02.best"):
        for said in re.findall(r"\{\{(.+?)\}\}", QUESTIONS[key].answer):
            row = " ".join(said.partition("->")[0].split())
            if not re.search(r" k=(?!1\b)", row):
                quoted.add(row)
    question = QUESTIONS["00.single_step"]
    labels = " ".join(f"{key}={value}" for key, value in question.labels.items())
    quoted.add(f"{question.result} {question.path} {labels}")
    assert len(quoted) == 9
    assert quoted <= listed
    for row in listed:
        assert "%" in look_up(row) or "steps" in row


@pytest.mark.quick
def test_every_claim_asks_for_equal_budgets():
    from benchmarks.claims import drift, last_action, pauses
    from benchmarks.claims.trial import SIZES

    for module in (drift, pauses, last_action):
        found = module.trials(SIZES)
        assert len({trial.name for trial in found}) == len(found)
        assert len({(x.demonstrations, x.steps, x.n) for x in found}) == 1
        for trial in found:
            assert trial.labels
            # Labels are looked up from prose, where a space ends a word.
            assert not any(" " in str(x) for x in trial.labels.values())
