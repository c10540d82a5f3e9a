"""Lesson F2: its checks, its walks and figures, its widget."""

import math
import re
from itertools import pairwise

import numpy as np
import pytest
import torch

from act_minimal.heads import Flow, Mdn, Mip
from course.figures import lesson_f2 as ways

from .helpers import answers, check_readable, spoils, sweep


def on_line(a, z, t):
    return (1 - t) * z + t * a


def flow(x=on_line, v=lambda a, z, t, x: a - z):
    """An answer that takes x and the velocity from these; t is (B, 1, 1)."""

    def write(action, noise, t):
        way = t[:, None, None]
        place = x(action, noise, way)
        return place, v(action, noise, way, place)

    return write


velocity = flow()

test_velocity = answers(
    "F2.velocity",
    right=[
        (velocity, "A straight line"),
        (flow(v=lambda a, z, t, x: (a - x) / (1 - t)), "A straight line"),
        (flow(v=lambda a, z, t, x: (x - z) / t), "A straight line"),
        (lambda a, z, t: [part.tolist() for part in velocity(a, z, t)], ""),
        (lambda *given: velocity(*map(torch.from_numpy, given)), ""),
    ],
    wrong=[
        (lambda a, z, t: velocity(z, a, t), "t = 0 is the noise"),
        (flow(x=lambda a, z, t: z), "x is the noise wherever"),
        (flow(x=lambda a, z, t: a), "x is the demonstration wherever"),
        (flow(x=lambda a, z, t: a + (1 - t) * z), "have to sum to 1"),
        (flow(x=lambda a, z, t: z + t * a), "have to sum to 1"),
        (flow(x=lambda a, z, t: a + z), "have to sum to 1"),
        (
            flow(x=lambda a, z, t: np.sqrt(1 - t) * z + np.sqrt(t) * a),
            "whose squares sum to 1",
        ),
        (flow(x=lambda a, z, t: on_line(a, z, t[0])), "a t of its own"),
        (flow(x=lambda a, z, t: on_line(a, z, t[-1])), "a t of its own"),
        (flow(x=lambda a, z, t: on_line(a, z, t.mean())), "a t of its own"),
        (flow(x=lambda a, z, t: (a + z) / 2), "not at t on the line"),
        (lambda *given: velocity(*given)[::-1], "x comes first"),
        (flow(v=lambda a, z, t, x: z - a), "sign"),
        (flow(v=lambda a, z, t, x: a), "not how fast"),
        (flow(v=lambda a, z, t, x: a - x), "the time that is left"),
        (flow(v=lambda a, z, t, x: x - z), "which took the time t"),
        (flow(v=lambda a, z, t, x: t * (a - z)), "the same everywhere"),
        (flow(v=lambda a, z, t, x: x), "how x changes with t"),
        (flow(x=lambda a, z, t: on_line(a, z, t)[0]), "x should have the shape"),
        (flow(v=lambda a, z, t, x: (a - z)[0]), "the velocity should have the shape"),
        (flow(v=lambda a, z, t, x: (a - z).mean()), "yours has ()"),
        (lambda a, z, t: on_line(a, z, t[:, None, None]), "x and the velocity"),
        (lambda a, z, t: (velocity(a, z, t)[0], None), "still missing"),
        (lambda a, z, t: (on_line(a, z, t), a - z), "raised ValueError"),
        (
            lambda a, z, t: (on_line(a, z, t.reshape(3, 1, 1)), a - z),
            "take the sizes from `action`",
        ),
        (lambda a, z, t: ("x", "v"), "numbers are wanted"),
        (lambda a, z, t: "x and v", "x and the velocity"),
        (
            spoils(velocity, lambda a, z, t: a.__isub__(z)),
            "changed its argument `action`",
        ),
    ],
)


def euler(velocity, x, t, n):
    return x + velocity(x, t) / n


def all_steps(velocity, x, t, n):
    for i in range(n):
        x = x + velocity(x, i / n) / n
    return x


def midpoint(v, x, t, n):
    return x + v(x + v(x, t) / (2 * n), t + 1 / (2 * n)) / n


def euler_in_place(velocity, x, t, n):
    x += velocity(x, t) / n
    return x


test_euler = answers(
    "F2.euler",
    right=[
        (euler, "n of them lead"),
        (lambda v, x, t, n: x + 1 / n * v(x=x, t=t), "n of them lead"),
        (lambda v, x, t, n: euler(v, x, t, n).tolist(), ""),
    ],
    wrong=[
        (lambda v, x, t, n: x + v(x, t), "a whole step"),
        (lambda v, x, t, n: x - v(x, t) / n, "the sign"),
        (lambda v, x, t, n: v(x, t) / n, "this is the step"),
        (lambda v, x, t, n: v(x, t), "this is the velocity"),
        (lambda v, x, t, n: x + v(x, t) * t, "the velocity times t"),
        (lambda v, x, t, n: x + v(x, t) * n, "the velocity times n"),
        (lambda v, x, t, n: x + v(x, t) * (1 - t), "all the way to t = 1"),
        (lambda v, x, t, n: euler(v, x, t + 1 / n, n), "asks at its beginning"),
        (lambda v, x, t, n: euler(v, x, 0, n), "1 / n of the velocity at x and t"),
        (lambda v, x, t, n: euler(v, x, 1 - t, n), "1 / n of the velocity at x and t"),
        (lambda v, x, t, n: x + v(0 * x, t) / n, "1 / n of the velocity at x and t"),
        (lambda v, x, t, n: x + 1 // n * v(x, t), "1 / n of the velocity at x and t"),
        (all_steps, "one step asks once"),
        (midpoint, "one step asks once"),
        (lambda v, x, t, n: x, "never asked"),
        (lambda v, x, t, n: x + t / n, "never asked"),
        (lambda v, x, t, n: x + v(t, x) / n, "x is handed over first"),
        (lambda v, x, t, n: x + v(x, np.full(len(x), t)) / n, "t as one number"),
        (lambda v, x, t, n: x + v(x) / n, "raised TypeError"),
        (lambda v, x, t, n: x + v / n, "raised TypeError"),
        (lambda v, x, t, n: euler(v, x, t, 5), "the number of steps from `n`"),
        (lambda v, x, t, n: euler(v, x, 0.6, n), "the time from `t`"),
        (lambda v, x, t, n: euler(v, x, t, n).reshape(2, 3, 2), "sizes from `x`"),
        (lambda v, x, t, n: euler(v, x, t, n)[0], "keep its shape"),
        (lambda v, x, t, n: euler(v, x, t, n).mean(), "keep its shape"),
        (lambda v, x, t, n: (euler(v, x, t, n), t + 1 / n), "numbers are wanted"),
        (lambda v, x, t, n: "x", "numbers are wanted"),
        (euler_in_place, "changed its argument `x`"),
    ],
)


def near(action, noise, t):
    return action + (1 - t) * noise


def error(found, action):
    return np.abs(found - action).mean()


def passes(shown=near, told=lambda t: t, of=error, mixed=None):
    """A loss of two passes: what the second is shown and told, and each one's share."""

    def loss(ask, action, noise, t):
        first, second = ask(), ask(shown(action, noise, t), told(t))
        errors = of(first, action), of(second, action)
        if mixed is not None:
            return mixed(*errors, t)
        return errors[0] / t + errors[1] / (1 - t)

    return loss


def errors_in_place(ask, action, noise, t):
    first, second = ask(), ask(near(action, noise, t), t)
    first -= action
    second -= action
    return np.abs(first).mean() / t + np.abs(second).mean() / (1 - t)


def against_the_first(ask, action, noise, t):
    first = ask()
    second = ask(near(action, noise, t), t)
    return error(first, action) / t + error(second, first) / (1 - t)


second = passes()

test_second = answers(
    "F2.second",
    right=[
        (second, "nearly right"),
        (errors_in_place, "nearly right"),
        (
            lambda ask, a, z, t: (
                error(ask(x=near(a, z, t), t=t), a) / (1 - t) + error(ask(), a) / t
            ),
            "nearly right",
        ),
        (lambda *given: torch.tensor(second(*given)), ""),
    ],
    wrong=[
        (passes(mixed=lambda one, two, t: two / (1 - t)), "second pass alone"),
        (passes(mixed=lambda one, two, t: one / t), "first pass alone"),
        (passes(mixed=lambda one, two, t: one + two), "not divided by t and 1 - t"),
        (passes(mixed=lambda one, two, t: one * t + two * (1 - t)), "multiplied by t"),
        (passes(mixed=lambda one, two, t: one / (1 - t) + two / t), "swapped"),
        (passes(mixed=lambda one, two, t: one / t - two / (1 - t)), "expected"),
        (
            lambda ask, a, z, t: passes(shown=lambda *_: ask())(ask, a, z, t),
            "not the first answer",
        ),
        (passes(shown=lambda a, z, t: a + z), "the noise is too large"),
        (passes(shown=lambda a, z, t: a), "learns to copy"),
        (passes(shown=on_line), "on the way of a flow"),
        (passes(shown=lambda a, z, t: a + t * z), "t of the noise"),
        (passes(told=lambda t: 0), "has to be told t"),
        (passes(told=lambda t: 1), "has to be told t"),
        (passes(told=lambda t: 1 - t), "has to be told t"),
        (
            lambda ask, a, z, t: (
                error(ask(), a) / t + error(ask(near(a, z, t)), a) / (1 - t)
            ),
            "has to be told t",
        ),
        (passes(of=lambda x, a: ((x - a) ** 2).mean()), "the squared error"),
        (passes(of=lambda x, a: (x - a).mean()), "cancel"),
        (passes(of=lambda x, a: np.abs(x - a).sum()), "the sum over all numbers"),
        (passes(of=lambda x, a: np.abs(x - a)), "one number is wanted"),
        (passes(of=lambda x, a: np.abs(x - a).mean((1, 2))), "one number is wanted"),
        (passes(mixed=lambda *pair: pair[:2]), "one number is wanted"),
        (against_the_first, "expected"),
        (lambda ask, a, z, t: error(ask(near(a, z, t), t), a) / (1 - t), "once asked"),
        (lambda ask, a, z, t: error(near(a, z, t), a), "never asked"),
        (passes(told=lambda t: np.full(2, t)), "t as one number"),
        (lambda ask, a, z, t: ask() + ask(t, near(a, z, t)), "x is handed over first"),
        (lambda ask, a, z, t: second(ask, a, z, 0.9), "take t from the argument"),
        (passes(told=lambda t: 0.9), "take t from the argument"),
        (
            passes(of=lambda x, a: np.abs(x - a).sum() / 24),
            "and sizes from `action`",
        ),
        (lambda ask, a, z, t: "loss", "one number is wanted"),
        (
            spoils(second, lambda ask, a, z, t: a.__iadd__(z)),
            "changed its argument `action`",
        ),
    ],
)


def log_normal(action, mean, s):
    each = -0.5 * ((action - mean) / s) ** 2 - np.log(s)
    return each - 0.5 * np.log(2 * np.pi)  # (M, k, A)


def mixture(action, mean, s, weight):
    whole = log_normal(action, mean, s).sum((1, 2))
    return np.logaddexp.reduce(np.log(weight) + whole)


def mixed(change):
    """An answer made of each component's log likelihood (M,) and the weights."""
    return lambda a, mean, s, w: change(log_normal(a, mean, s).sum((1, 2)), w)


def more(constant):
    """An answer to which something is added for k A numbers of spread s."""
    return lambda a, mean, s, w: mixture(a, mean, s, w) + constant(a.size, s)


def each_apart(action, mean, s, weight):
    each = np.log(weight)[:, None, None] + log_normal(action, mean, s)
    return np.logaddexp.reduce(each).sum()


def actions_apart(action, mean, s, weight):
    each = np.log(weight)[:, None] + log_normal(action, mean, s).sum(2)
    return np.logaddexp.reduce(each).sum()


def not_squared(action, mean, s, weight):
    each = -0.5 * (action - mean) ** 2 / s - np.log(s) - 0.5 * np.log(2 * np.pi)
    return np.logaddexp.reduce(np.log(weight) + each.sum((1, 2)))


def three_components(action, mean, s, weight):
    whole = log_normal(action, mean, s).sum((1, 2))
    return np.log(sum(weight[i] * np.exp(whole[i]) for i in range(3)))


half = 0.5 * math.log(2 * math.pi)

test_mixture = answers(
    "F2.mixture",
    right=[
        (mixture, "so ways stay apart"),
        (mixed(lambda each, w: np.log(w @ np.exp(each))), "so ways stay apart"),
        (lambda *given: torch.tensor(mixture(*given)), ""),
    ],
    wrong=[
        (lambda *given: -mixture(*given), "this is the loss"),
        (each_apart, "a chunk belongs to one as a whole"),
        (actions_apart, "a chunk belongs to one as a whole"),
        (mixed(lambda each, w: np.logaddexp.reduce(each)), "weights are missing"),
        (mixed(lambda each, w: np.log(np.exp(each).mean())), "all components weigh"),
        (mixed(lambda each, w: np.logaddexp.reduce(w + each)), "add log weight"),
        (mixed(lambda each, w: np.logaddexp.reduce(w * each)), "add log weight"),
        (mixed(lambda each, w: w @ each), "likelihoods are added"),
        (mixed(lambda each, w: each.max()), "best component alone"),
        (mixed(lambda each, w: (np.log(w) + each).max()), "best component alone"),
        (mixed(lambda each, w: each[w.argmax()]), "expected"),
        (
            lambda a, mean, s, w: log_normal(a, np.tensordot(w, mean, 1), s).sum(),
            "between the ways",
        ),
        (mixed(lambda each, w: w @ np.exp(each)), "the logarithm is missing"),
        (more(lambda n, s: n * np.log(s)), "- log s is missing"),
        (more(lambda n, s: (n - 1) * np.log(s)), "once for each of the k A"),
        (more(lambda n, s: n * half), "- 0.5 log 2π is missing"),
        (more(lambda n, s: (n - 1) * half), "once for each of the k A"),
        (lambda a, mean, s, w: mixture(a, mean, s**0.5, w), "not a variance"),
        (not_squared, "s is squared with the distance"),
        (
            lambda a, mean, s, w: np.logaddexp.reduce(
                np.log(w) + log_normal(a, mean, s).mean((1, 2))
            ),
            "its log a sum",
        ),
        (lambda a, *given: mixture(a, *given) / a.size, "its log a sum"),
        (mixed(lambda each, w: np.log(w) + each), "one number is wanted"),
        (lambda a, mean, s, w: log_normal(a, mean, s), "one number is wanted"),
        (
            lambda a, mean, s, w: log_normal(a, mean, s).sum(0) + np.log(w),
            "raised ValueError",
        ),
        (lambda a, mean, s, w: mixture(a, mean, 0.7, w), "s from the argument"),
        (three_components, "take the sizes from `mean`"),
        (
            lambda a, mean, s, w: mixture(a, mean, s, w) / a.size * 8,
            "take the sizes from `mean`",
        ),
        (lambda a, mean, s, w: "likely", "one number is wanted"),
        (
            spoils(mixture, lambda a, mean, s, w: mean.__isub__(a)),
            "changed its argument `mean`",
        ),
    ],
)


# --- the exercises and the package ----------------------------------------------------

ACTION, NOISE, BASE = np.random.default_rng(0).normal(size=(3, 3, 4, 2))
VALID = torch.ones(3, 4, 1, dtype=torch.bool)


def decoder(x=None, t=None):
    """A decoder that can be followed by hand; t is one number or one a sample."""
    return BASE if x is None else 0.3 * x + np.reshape(t, (-1, 1, 1)) + BASE


def asks(seen):
    """The same for tensors; it keeps what it was shown."""

    def ask(*shown):
        seen.append(tuple(part.numpy() for part in shown))
        return torch.from_numpy(decoder(*seen[-1]))

    return ask


def loss(head, ask, t):
    """A head's loss of every action, (B, k, A)."""
    action, noise, t = map(torch.from_numpy, (ACTION, NOISE, np.asarray(t)))
    return head.loss(ask, action, VALID, noise, t).numpy()


@pytest.mark.quick
def test_a_flow_is_trained_with_the_exercises_place_and_velocity():
    seen, t = [], np.array([0.1, 0.5, 0.9])
    found = loss(Flow(), asks(seen), t)
    x, v = velocity(ACTION, NOISE, t)
    [(shown, told)] = seen
    np.testing.assert_allclose(shown, x)
    np.testing.assert_array_equal(told, t)
    np.testing.assert_allclose(found, (decoder(x, t) - v) ** 2)


@pytest.mark.quick
@pytest.mark.parametrize("n", [1, 4])
def test_a_flow_answers_with_the_exercises_steps(n):
    seen = []
    answer = Flow().answer(asks(seen), torch.from_numpy(NOISE), n).numpy()
    places = [*(x for x, _ in seen), answer]
    assert len(places) == n + 1
    for i, (x, after) in enumerate(pairwise(places)):
        np.testing.assert_allclose(after, euler(decoder, x, i / n, n))


@pytest.mark.quick
def test_two_passes_are_trained_with_the_exercises_loss():
    found = loss(Mip(), asks([]), np.zeros(3)).mean()
    assert found == pytest.approx(second(decoder, ACTION, NOISE, 0.9))


@pytest.mark.quick
def test_a_mixture_with_one_deviation_has_the_exercises_likelihood():
    rng, s, m = np.random.default_rng(1), 0.6, Mdn.M
    means, scores = 0.4 * rng.normal(size=(3, m, 4, 2)), rng.normal(size=(3, m))
    weights = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    out = np.zeros((3, 4, m, 2 * 2 + 1))  # mean, log deviation, log weight
    out[..., :2] = means.swapaxes(1, 2)
    out[..., 2:4] = np.log(s)
    out[..., 4] = scores[:, None]
    found = loss(Mdn(), lambda: torch.from_numpy(out).flatten(2), np.zeros(3))
    for action, mean, weight, one in zip(ACTION, means, weights, found, strict=True):
        wanted = -mixture(action, mean, s, weight) / action.size
        np.testing.assert_allclose(one, np.full((4, 2), wanted))


# --- walks, chunks and the explorer ---------------------------------------------------


def straight(x):
    """A hand that goes past the post x m beside its middle, (90, 2)."""
    return np.stack([np.full(90, x), np.linspace(-1, 1, 90)], 1)


@pytest.mark.quick
def test_walks_are_told_apart_by_where_they_pass():
    paths = np.stack([straight(x) for x in (-0.4, 0.4, -0.3, -0.1)])
    walks = ways.Walks(paths, np.array([True, True, True, False]))
    assert walks.left.tolist() == [True, False, True, False]
    assert str(walks).startswith("passes 75 % (3/4, 95 % interval")
    assert str(walks).endswith("; 67 % of these on the left")
    nobody = ways.Walks(paths, np.zeros(4, bool))
    assert str(nobody).endswith("0 % of these on the left")


class Sampling:
    """Goes straight for (x, 1), where x is the sign of its noise's first number."""

    chunk_size, config, samples = 40, None, True

    def reseed(self, seed):
        self.random = np.random.default_rng(seed)

    def predict_chunk(self, observation):
        n = len(observation["qpos"])
        side = np.sign(self.random.standard_normal(n))  # (n,)
        x = 0.4 * side[:, None] * np.ones(40)
        y = np.broadcast_to(np.linspace(-0.9, 0.5, 40), (n, 40))
        return np.stack([x, y], -1)

    def sample_chunks(self, observation, n, seed=0):
        self.reseed(seed)
        many = {key: np.repeat(x, n, axis=0) for key, x in observation.items()}
        return self.predict_chunk(many)[:, None]


@pytest.mark.quick
def test_one_place_and_many_answers():
    policy = Sampling()
    left = ways.choices(policy, 400)
    assert 0.4 < left.mean() < 0.6
    np.testing.assert_array_equal(left, ways.choices(policy, 400))
    assert (left != ways.choices(policy, 400, seed=1)).any()
    fig = ways.chunks_figure({"sampling": policy}, n=7)
    assert len(fig.axes[0].lines) == 8  # and the start
    ends = {round(float(line.get_xdata()[-1]), 1) for line in fig.axes[0].lines[:7]}
    assert ends == {-0.4, 0.4}


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    folder = tmp_path_factory.mktemp("course")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ACT_MINIMAL_COURSE", str(folder))
        patch.setitem(ways.LEARNING, "steps", 60)
        yield ways.learnt(ways.teachers(), "flow")


def test_teachers_take_both_ways_and_all_pass(policy):
    walks = ways.shown(ways.teachers())
    assert walks.paths.shape == (100, 90, 2)
    assert 0.35 < walks.left.mean() < 0.65
    nearest = np.linalg.norm(walks.paths, axis=-1).min(1)
    assert nearest.min() > 0.2
    fig = ways.walks_figure({"teachers": walks}, n=9)
    assert len(fig.axes[0].lines) == 9


def test_stages_lead_from_the_noise_to_what_the_policy_says(policy):
    noise = np.random.default_rng(0).standard_normal((3, 40, 2), np.float32)
    found = ways.stages(policy, 0.01, noise, 5)
    assert found.shape == (6, 3, 40, 2)
    scale = policy.scale("action")
    start = noise * scale.std.numpy() + scale.mean.numpy()
    np.testing.assert_allclose(found[0], start, atol=1e-5)
    seen = {k: np.repeat(v, 3, 0) for k, v in ways.at_start(0.01).items()}
    chunk = policy.predict_chunk(seen | {"noise": noise})
    np.testing.assert_allclose(found[-1], chunk, atol=1e-5)
    other = ways.with_steps(policy, 2).predict_chunk(seen | {"noise": noise})
    np.testing.assert_allclose(
        other, ways.stages(policy, 0.01, noise, 2)[-1], atol=1e-5
    )
    assert policy.config.head_steps == 5


def test_a_walk_is_repeated_with_its_seed(policy):
    first = ways.walk(policy, 5, seed=2)
    np.testing.assert_array_equal(first.paths, ways.walk(policy, 5, seed=2).paths)
    assert (first.paths != ways.walk(policy, 5, seed=3).paths).any()
    assert re.match(r"flow +passes .*at one place \d+ % go left; \d+\.\d ms a chunk",
                    ways.outcome("flow", policy, 5))  # fmt: skip


def test_every_control_of_the_explorer_goes_to_both_ends(policy):
    explorer = ways.flow_explorer(policy)
    assert explorer.says.startswith("5 steps: ")
    check_readable(explorer)
    for _ in sweep(explorer, 8, steps=(1, 20), seed=(0, 9), x=(-0.03, 0.03)):
        numbers = [int(x) for x in re.findall(r"\d+", explorer.says)]
        assert numbers[1] + numbers[3] == numbers[2] == 24
    assert max(explorer.seconds[1:]) < 5  # loose: a busy machine
