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
from course.toolkit.results import load_result

from .helpers import answers, check_readable, sweep


def sample(mu, logvar, eps):
    return mu + (0.5 * logvar).exp() * eps


def sigma(v):
    return (0.5 * v).exp()


def numpy_sigma(v):
    return torch.from_numpy(np.exp(0.5 * v.detach().numpy()))


def half_detached(m, v, e):
    """Right values, but only one of two factors of sigma lets the gradient through."""
    return m + (0.25 * v).exp() * (0.25 * v).exp().detach() * e


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
        (lambda m, v, e: sample(m, v, e).detach(), "Tensor without a gradient"),
        (lambda m, v, e: sample(m, v, e).detach().numpy(), "ndarray without a gradi"),
        (lambda m, v, e: sample(m, v.detach(), e), "no gradient reaches logvar"),
        (lambda m, v, e: sample(m.detach(), v, e), "no gradient reaches mu"),
        (lambda m, v, e: m + numpy_sigma(v) * e, "no gradient reaches logvar"),
        (lambda m, v, e: m + np.exp(0.5 * v) * e, "raised"),  # of what needs a gradient
        (half_detached, "with respect to logvar is not"),
        (lambda m, v, e: sample(m, v, e)[0], "shape (4, 2)"),
        (lambda m, v, e: sample(m, v, e).T, "shape (4, 2)"),
        (lambda m, v, e: m - (0.5 * v).exp() * e, "expected"),
        (lambda m, v, e: m + (2 * v).exp() * e, "expected"),
        (lambda m, v, e: e + (0.5 * v).exp() * m, "expected"),
        (lambda m, v, e: m + sigma(v) * float("nan"), "found nan"),
        (lambda m, v, e: {"z": m}, "numbers are wanted"),
        (lambda m, v, e: sample(m, v, torch.randn_like(e)), "two calls"),
        (lambda m, v, e: sample(m, v, e).sum(), "shape (4, 2)"),
        (lambda m, v, e: sample(m, v, e) + 1, "expected"),
        (lambda m, v, e: "z", "numbers are wanted"),
        (lambda m, v, e: sample(m, v, e)[:4], "take B and Z from the tensors"),
        (lambda m, v, e: sample(m, v, e)[:, :2], "take B and Z from the tensors"),
    ],
)


def each(mu, v):
    return 0.5 * (mu**2 + v.exp() - 1 - v)


def right_kl(m, v):
    return each(m, v).sum(-1).mean()


test_the_kl = answers(
    "03.kl",
    right=[(right_kl, "nats"), (latent.kl, "")],
    wrong=[
        (lambda m, v: float(right_kl(m, v)), "float without a gradient"),
        (lambda m, v: right_kl(m, v).item(), "float without a gradient"),
        (lambda m, v: right_kl(m, v).detach(), "Tensor without a gradient"),
        (lambda m, v: torch.tensor(float(right_kl(m, v))), "without a gradient"),
        (lambda m, v: right_kl(m, v).detach().numpy(), "without a gradient"),
        (lambda m, v: right_kl(m.detach(), v), "no gradient reaches mu"),
        (lambda m, v: right_kl(m, v.detach()), "no gradient reaches logvar"),
        (
            lambda m, v: 0.5 * (m**2 + v.exp().detach() - 1 - v).sum(-1).mean(),
            "with respect to logvar is not",
        ),
        (
            lambda m, v: 0.5 * (m * m.detach() + v.exp() - 1 - v).sum(-1).mean(),
            "with respect to mu is not",
        ),
        (lambda m, v: each(m, v).sum(0).mean(), "axes have changed places"),
        (lambda m, v: 0.5 * (m**2 + v.exp() + 1 - v).sum(-1).mean(), "expected"),
        (lambda m, v: 0.5 * (m**2 + v.exp() - 1 + v).sum(-1).mean(), "expected"),
        (lambda m, v: each(m, v)[0].sum(), "expected"),
        (lambda m, v: each(m, v).sum(-1).max(), "expected"),
        (lambda m, v: right_kl(m, v) / 0.693147, "expected"),  # bits
        (lambda m, v: each(m, v.log()).sum(-1).mean(), "found nan"),
        (lambda m, v: [0.5, 0.5], "shape (2,)"),
        (lambda m, v: "half a nat", "numbers are wanted"),
        (lambda m, v: {"kl": 1}, "numbers are wanted"),
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
        (lambda m, v: 3 * each(m, v).mean(), "right for B, Z = 5, 3, wrong for B, Z ="),
        (lambda m, v: each(m, v).sum() / 5, "take B and Z from the tensors"),
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
        (lambda b, k, a: b / (k + a), "expected"),
        (lambda b, k, a: b / (k * (a + 1)), "expected"),
        (lambda b, k, a: -b / (k * a), "expected"),
        (lambda b, k, a: b // (k * a), "expected"),
        (lambda b, k, a: np.full(2, b / (k * a)), "one number is wanted"),
        (lambda b, k, a: [], "one number is wanted"),
        (lambda b, k, a: {"beta": b}, "numbers are wanted"),
        (lambda b, k, a: 1 / 0, "ZeroDivisionError"),
        (lambda b, k: b / k, "raised TypeError"),
        (lambda b, k, a: 0.1 / (k * a), "take all three from the arguments"),
        (lambda b, k, a: b / (50 * a), "take all three from the arguments"),
        (lambda b, k, a: b / (k * 6), "take all three from the arguments"),
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
    check_readable(explorer)
    for beta, z in sweep(explorer, 6, beta=fitted, z=(-3.0, 0.0, 3.0)):
        middle = float(fitted[beta].path(z)[latent.TICKS // 2])
        assert f"goes {middle:+.2f} m" in explorer.says
        assert f"KL {fitted[beta].kl:.2f} nats" in explorer.says


def test_the_toys_explorer_opens_where_z_0_fails_and_most_others_do_not(toys):
    paths, fitted = toys
    explorer = latent.toy_explorer({0.0: fitted[300.0], **fitted}, paths)
    assert explorer.says.startswith("beta = 1:")
    assert "hits the post" in explorer.says
    assert f"{100 * fitted[1.0].passing():.0f} % of paths miss it" in explorer.says


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
    check_readable(explorer)
    for beta in policies:
        for first, second in ((-3.0, 3.0), (0.0, 0.0), (3.0, -3.0), (3.0, 3.0)):
            explorer.set(kl_weight=beta, first=first, second=second)
            assert f"KL {found[beta].nats:.2g} nats" in explorer.says
            apart = float(re.search(r"up to (\S+) rad", explorer.says)[1])
            assert (apart == 0) == (first == second == 0)
            shown.add(explorer.figure_html)
    assert explorer.errors == []
    assert len(shown) == 8


def test_the_latent_opens_where_it_does_most(demos, policies):
    found = {beta: latent.posterior(p, demos, n=64) for beta, p in policies.items()}
    explorer = latent.latent_explorer(policies, found, latent.first_sight(scene=2))
    assert explorer.says.startswith("kl_weight 0.001:")
    assert "up to 0 rad" not in explorer.says


@pytest.mark.quick
@pytest.mark.parametrize("task", ["pick and place", "post"])
def test_the_table_by_weight_is_what_the_files_say(task):
    if task == "post":
        rows = [
            row
            for row in load_result("claims/C15")["summary"]
            if row["left"] == 0.5 and row["execute"] == 20 and row["variant"] != "l2"
        ]
    else:
        rows = (
            load_result("claims/C07")["summary"] + load_result("claims/C06")["summary"]
        )
        rows = [row for row in rows if row["reduction"] in ("sum", "none")]
    head, *lines = latent.by_weight(task).splitlines()
    assert head.startswith(task)
    assert "(n = 300)" in head
    weights = [row["kl_weight"] for row in rows]
    numbers = sorted({w for w in weights if w not in (None, "none")})
    names = ["no CVAE", *(f"kl_weight {w:g}" for w in numbers)]
    assert [line.split("  ")[0].strip() for line in lines] == names
    for row in rows:
        bare = row["kl_weight"] in (None, "none")
        [line] = [
            x
            for x in lines
            if x.startswith("no CVAE" if bare else f"kl_weight {row['kl_weight']:g} ")
        ]
        rates = re.findall(r"(\d+) % \((\d+)-(\d+) %\)", line)
        wanted = (row["success"], *row["interval"])
        place = ("zero", "drawn").index(row["z"])
        assert rates[place] == tuple(f"{100 * x:.0f}" for x in wanted)
        assert bare or f" {row['kl']:.2g} " in line


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
