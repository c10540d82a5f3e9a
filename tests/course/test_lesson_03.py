"""Lesson 03: its checks, the two ways, ACT's posterior, its widgets."""

import math
import re

import numpy as np
import pytest
import torch

from act_minimal.dataset import Windows
from act_minimal.evaluation import fingerprint
from act_minimal.policy import make_policy
from course.figures import lesson_03 as latent

from .helpers import answers, sweep


def sample(mu, logvar, eps):
    return mu + (0.5 * logvar).exp() * eps


test_the_reparametrisation = answers(
    "03.sample",
    right=[(sample, "gradients"), (latent.sample, "")],
    wrong=[
        (lambda m, v, e: m + v.exp() * e, "is the variance"),
        (lambda m, v, e: m + v * e, "as if it were sigma"),
        (lambda m, v, e: m + 0.5 * v * e, "take exp"),
        (lambda m, v, e: m + (-0.5 * v).exp() * e, "sign of logvar"),
        (lambda m, v, e: m, "eps is not used"),
        (lambda m, v, e: (0.5 * v).exp() * e, "mu is missing"),
        (lambda m, v, e: m + e, "deviation 1"),
        (lambda m, v, e: (0.5 * v).exp() * (m + e), "mu is scaled"),
        (lambda m, v, e: sample(m, v, e).detach(), "no gradient"),
        (lambda m, v, e: sample(m, v, torch.randn_like(e)), "two calls"),
        (lambda m, v, e: sample(m, v, e).sum(), "shape (4, 2)"),
        (lambda m, v, e: sample(m, v, e) + 1, "expected"),
        (lambda m, v, e: "z", "numbers are wanted"),
    ],
)


def each(mu, v):
    return 0.5 * (mu**2 + v.exp() - 1 - v)


test_the_kl = answers(
    "03.kl",
    right=[(lambda m, v: each(m, v).sum(-1).mean(), "nats"), (latent.kl, "")],
    wrong=[
        (lambda m, v: -each(m, v).sum(-1).mean(), "sign is reversed"),
        (lambda m, v: each(m, v).mean(), "Z times smaller"),
        (lambda m, v: each(m, v).sum(), "sums over the batch"),
        (lambda m, v: 2 * each(m, v).sum(-1).mean(), "1/2 is missing"),
        (lambda m, v: 0.5 * (m**2 + v - 1 - v.exp()).sum(-1).mean(), "changed places"),
        (
            lambda m, v: 0.5 * (m**2 + (0.5 * v).exp() - 1 - v).sum(-1).mean(),
            "deviation sigma",
        ),
        (lambda m, v: 0.5 * (m + v.exp() - 1 - v).sum(-1).mean(), "not squared"),
        (
            lambda m, v: 0.5 * (m**2 + v.exp() - v).sum(-1).mean(),
            "prior and prior is 0",
        ),
        (lambda m, v: 0.5 * (m**2 + v.exp() - 1).sum(-1).mean(), "would be free"),
        (lambda m, v: each(m, v).sum(-1), "one number is wanted"),
        (lambda m, v: torch.tensor(7.0), "found 7.0000"),
    ],
)


test_the_beta_of_the_bound = answers(
    "03.beta",
    right=[(lambda b, k, a: b / (k * a), "average over many")],
    wrong=[
        (lambda b, k, a: k * a / b, "upside down"),
        (lambda b, k, a: b / k, "joints is missing"),
        (lambda b, k, a: b / a, "chunk size is missing"),
        (lambda b, k, a: 1 / (k * a), "b is missing"),
        (lambda b, k, a: b * k * a, "multiplied"),
        (lambda b, k, a: 1 / (k * a * b), "divided by b"),
        (lambda b, k, a: 10.0, "0.00033"),
    ],
)


@pytest.mark.quick
def test_two_ways_are_two_and_all_pass():
    paths = latent.two_ways(200, left=0.6)
    assert paths.shape == (200, latent.TICKS)
    assert latent.passes(paths).all()
    assert (paths[:, 10] > 0).sum() == 120
    assert not latent.passes(paths.mean(0, keepdim=True))[0]
    torch.testing.assert_close(latent.two_ways(200, 0.6), paths)


def test_l1_learns_the_median_and_l2_the_mean():
    paths = latent.two_ways(100, left=0.6)
    mean, median = paths.mean(0), paths.median(0).values
    l2, l1 = (latent.fit_one_path(paths, loss) for loss in ("l2", "l1"))
    assert (l2 - mean).abs().max() < 0.15  # Adam's last steps are noisy
    assert abs(l1[10] - median[10]) < 0.1
    assert latent.passes(l1[None])[0]
    assert not latent.passes(l2[None])[0]


@pytest.fixture(scope="module")
def toys():
    paths = latent.two_ways(100)
    return paths, {beta: latent.fit_toy(paths, beta, 500) for beta in (1.0, 300.0)}


def test_a_cheap_nat_tells_the_ways_apart_and_a_dear_one_does_not(toys):
    _, fitted = toys
    assert fitted[1.0].kl > math.log(2)
    assert fitted[300.0].kl < 0.05
    ends = [fitted[1.0].path(z)[None] for z in (-1.5, 1.5)]
    assert all(latent.passes(path)[0] for path in ends)
    assert ends[0][0, 10] * ends[1][0, 10] < 0  # one on each side
    assert fitted[1.0].passing() > 0.7


@pytest.mark.quick
def test_all_posteriors_together_have_mass_one():
    grid = np.linspace(-8, 8, 4001)
    mu, sigma = np.array([-1.0, 2.0]), np.array([0.5, 1.0])
    toy = latent.Toy(torch.nn.Identity(), mu, sigma, 0.0)
    density = latent._mixture(toy, grid)
    assert density.sum() * (grid[1] - grid[0]) == pytest.approx(1, abs=1e-3)


def test_every_control_of_the_toy_goes_to_both_ends(toys):
    paths, fitted = toys
    explorer = latent.toy_explorer(fitted, paths)
    for beta, z in sweep(explorer, 6, beta=fitted, z=(-3.0, 0.0, 3.0)):
        middle = float(fitted[beta].path(z)[latent.TICKS // 2])
        assert f"goes {middle:+.2f} m" in explorer.says
        assert f"KL {fitted[beta].kl:.2f} nats" in explorer.says


@pytest.mark.quick
def test_the_picture_says_its_n(toys):
    paths, fitted = toys
    fig = latent.ways_figure(paths, {"z = 0": fitted[1.0].path(0.0)})
    assert "n = 100 demonstrations" in fig.axes[0].get_title(loc="left")


def untrained(demos, seed, **settings):
    """An ACT with weights that are random everywhere, so that z matters."""
    torch.manual_seed(seed)
    statistics = Windows(demos, range(3), 10).statistics()
    shape = {"state_dim": 6, "action_dim": 6, "env_state_dim": 7, "chunk_size": 10}
    return make_policy("act", statistics, **shape, **settings).eval()


@pytest.fixture(scope="module")
def policies(demos):
    return {beta: untrained(demos, i) for i, beta in enumerate((1.0, 0.001))}


def test_the_posterior_is_the_encoders(demos, policies):
    policy = policies[1.0]
    found = latent.posterior(policy, demos, n=64)
    windows = Windows(demos, range(3), 10)
    rows = np.random.default_rng(0).choice(len(windows), 64, replace=False)
    batch = windows.batch(rows)
    with torch.no_grad():
        _, parts = policy.loss(batch, eps=torch.zeros(64, 16))
    assert found.mu.shape == found.logvar.shape == (64, 16)
    assert found.nats == pytest.approx(float(parts["kl"]), rel=1e-4)
    assert found.l1 == pytest.approx(float(parts["l1"]), rel=1e-4)
    assert found.l1_prior == pytest.approx(float(policy.validation_loss(batch)[0]))
    assert f"KL {found.nats:.2g} nats" in str(found)


def test_decoding_z_0_is_what_the_policy_predicts(policies):
    policy, seen = policies[1.0], latent.first_sight(scene=2)
    same = latent.decode(policy, seen, torch.zeros(1, 16))
    np.testing.assert_allclose(same.numpy(), policy.predict_chunk(seen), atol=1e-5)
    other = latent.decode(policy, seen, torch.ones(1, 16))
    assert (other - same).abs().max() > 1e-3


def test_a_policy_that_draws_z(policies):
    policy, seen = policies[1.0], latent.first_sight(scene=2)
    drawn = latent.sampled(policy, seed=3)
    z = torch.randn(1, 16, generator=torch.Generator().manual_seed(3))
    wanted = latent.decode(policy, seen, z)
    np.testing.assert_allclose(drawn.predict_chunk(seen), wanted.numpy(), atol=1e-5)
    assert np.abs(drawn.predict_chunk(seen) - wanted.numpy()).max() > 1e-4  # drawn anew
    none = latent.sampled(policy, scale=0.0).predict_chunk(seen)
    np.testing.assert_allclose(none, policy.predict_chunk(seen), atol=1e-5)
    # The cache of rollouts knows policies by their weights.
    prints = {fingerprint(p) for p in (policy, drawn, latent.sampled(policy, seed=4))}
    assert len(prints) == 3
    assert drawn.chunk_size == 10
    assert type(policy.module).__name__ == "ACT"  # the policy itself is as it was


def test_a_single_step_policy_has_no_z(demos):
    statistics = Windows(demos, range(3), 1).statistics()
    mlp = make_policy("bc_mlp", statistics, state_dim=6, action_dim=6, env_state_dim=7)
    with pytest.raises(TypeError, match="not bc_mlp"):
        latent.sampled(mlp)


def test_every_control_of_the_latent_goes_to_both_ends(demos, policies):
    found = {beta: latent.posterior(p, demos, n=64) for beta, p in policies.items()}
    seen, shown = latent.first_sight(scene=2), set()
    explorer = latent.latent_explorer(policies, found, seen)
    for beta in policies:
        for first, second in ((-3.0, 3.0), (0.0, 0.0), (3.0, -3.0), (3.0, 3.0)):
            explorer.set(kl_weight=beta, first=first, second=second)
            assert f"KL {found[beta].nats:.2g} nats" in explorer.says
            apart = float(re.search(r"up to (\S+) rad", explorer.says)[1])
            assert (apart == 0) == (first == second == 0)
            shown.add(explorer.figure_html)
    assert explorer.errors == []
    assert len(shown) == 8


def test_the_explorers_distance_is_that_of_the_decoder(demos, policies):
    policy, seen = policies[1.0], latent.first_sight(scene=2)
    one = latent.posterior(policy, demos, n=64)
    explorer = latent.latent_explorer({1.0: policy}, {1.0: one}, seen)
    explorer.set(first=2.0, second=0.0)
    centred = one.mu - one.mu.mean(0)
    # The widest direction, as the eigenvector of the covariance; its sign is free.
    axis = torch.linalg.eigh(centred.T @ centred).eigenvectors[:, -1]
    axis = axis * torch.sign(axis.sum())
    chunks = latent.decode(policy, seen, torch.stack([0 * axis, 2 * axis]))
    apart = (chunks[1] - chunks[0])[:, :5].abs().max()
    said = float(re.search(r"up to (\S+) rad", explorer.says)[1])
    assert said == pytest.approx(float(apart), rel=0.06)
