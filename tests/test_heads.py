"""Each head against its definition, written out in a few lines."""

import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from act_minimal.heads import HEADS, Bins, Diffusion, Flow, L1Flow, Mdn, Mip, uniform
from act_minimal.model import ACT
from act_minimal.policy import ObservationError
from act_minimal.settings import STEPPING, ACTConfig, NetworkConfig, TrainConfig
from act_minimal.support.errors import SettingError

pytestmark = pytest.mark.quick
B, K, A = 3, 4, 2


def numbers(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double()


ACTION, NOISE = numbers(B, K, A), numbers(B, K, A, seed=1)
T = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
VALID = torch.ones(B, K, 1, dtype=torch.bool)
BASE = numbers(B, K, A, seed=2)


def ask(x=None, t=None):
    """A decoder that can be followed by hand."""
    return BASE if x is None else 0.3 * x + t[:, None, None] + BASE


def loss_of(head):
    return head.loss(ask, ACTION, VALID, NOISE, T)


def test_two_passes_read_the_demonstration_and_then_their_own_answer():
    t = 0.9
    read = 0.3 * (ACTION + 0.1 * NOISE) + t + BASE
    wanted = (BASE - ACTION).abs() / t + (read - ACTION).abs() / (1 - t)
    torch.testing.assert_close(loss_of(Mip()), wanted)
    torch.testing.assert_close(Mip().answer(ask, NOISE, 5), 0.3 * BASE + t + BASE)


def test_a_flow_leads_from_noise_to_the_demonstration():
    wanted = torch.zeros(B, K, A, dtype=torch.float64)
    for i, t in enumerate(T.tolist()):
        x = (1 - t) * NOISE[i] + t * ACTION[i]
        wanted[i] = (0.3 * x + t + BASE[i] - (ACTION[i] - NOISE[i])) ** 2
    torch.testing.assert_close(loss_of(Flow()), wanted)
    x = NOISE
    for i in range(4):
        x = x + 0.25 * (0.3 * x + i / 4 + BASE)
    torch.testing.assert_close(Flow().answer(ask, NOISE, 4), x)


def test_a_true_velocity_arrives():
    """v = action - noise, wherever it is asked: one step or many lead to the action."""
    for steps in (1, 7):
        answer = Flow().answer(lambda x, t: ACTION - NOISE, NOISE, steps)
        torch.testing.assert_close(answer, ACTION)


def test_an_l1_flow_predicts_the_chunk_twice():
    wanted = torch.zeros(B, K, A, dtype=torch.float64)
    for i, t in enumerate(T.tolist()):
        x = (1 - t) * NOISE[i] + t * ACTION[i]
        wanted[i] = (0.3 * x + t + BASE[i] - ACTION[i]).abs()
    torch.testing.assert_close(loss_of(L1Flow()), wanted)
    middle = (NOISE + 0.3 * NOISE + BASE) / 2
    answer = L1Flow().answer(ask, NOISE, 5)
    torch.testing.assert_close(answer, 0.3 * middle + 0.5 + BASE)


def test_a_diffusion_with_the_true_v_comes_to_the_demonstration():
    head = Diffusion()
    alpha = head.alpha.double()
    assert alpha.diff().max() < 0
    assert alpha[0] > 0.999
    assert alpha[-1] < 1e-3

    def shares(t):
        level = ((1 - t) * head.LEVELS).round().long().clamp(max=head.LEVELS - 1)
        a = alpha[level][:, None, None]
        return a.sqrt(), (1 - a).sqrt()

    def wrong_by(share):
        def said(x, t):
            a, b = shares(t)
            noise = (x - a * ACTION) / b
            return (a * noise - b * ACTION) * (1 + share)

        return said

    for steps in (1, 2, 5, 10):
        answer = head.answer(wrong_by(0.0), NOISE, steps)
        torch.testing.assert_close(answer, ACTION, atol=1e-4, rtol=0)
        near = head.answer(wrong_by(0.01), NOISE, steps)
        assert float((near - ACTION).abs().max()) < 0.2
    seen = 1 - ((1 - T) * head.LEVELS).floor() / head.LEVELS
    a, b = shares(seen)
    read = 0.3 * (a * ACTION + b * NOISE) + seen[:, None, None] + BASE
    wanted = (read - (a * NOISE - b * ACTION)) ** 2
    torch.testing.assert_close(loss_of(head), wanted)


def test_a_mixtures_likelihood_is_torchs():
    head, m = Mdn(), Mdn.M
    out = numbers(B, K, head.outputs(A), seed=3)
    valid = VALID.clone()
    valid[1, 2:] = False
    found = head.loss(lambda: out, ACTION, valid, NOISE, T)
    parts = out.view(B, K, m, 2 * A + 1)
    for i in range(B):
        n = int(valid[i].sum())
        mean = parts[i, :n, :, :A].transpose(0, 1)  # (M, n, A)
        scale = parts[i, :n, :, A : 2 * A].transpose(0, 1).clamp(-4, 2).exp()
        weight = Categorical(logits=parts[i, :, :, -1].mean(0))
        mixture = MixtureSameFamily(weight, Independent(Normal(mean, scale), 2))
        wanted = -mixture.log_prob(ACTION[i, :n]) / (n * A)
        torch.testing.assert_close(found[i], wanted.expand(K, A))


def test_a_mixture_answers_with_the_mean_of_one_component():
    head, m = Mdn(), Mdn.M
    out = numbers(1, K, head.outputs(A), seed=3)
    means, _, weight = head.parts(lambda: out)
    noise = torch.randn(4000, K, A, generator=torch.Generator().manual_seed(0)).double()
    many = head.answer(lambda: out.expand(len(noise), -1, -1), noise, 1)
    which = (many[:, None] - means).abs().amax((2, 3)).argmin(1)
    assert torch.equal(many, means[0, which])
    share = torch.bincount(which, minlength=m) / len(noise)
    torch.testing.assert_close(share.double(), weight[0].exp(), atol=0.03, rtol=0)


def test_bins_are_scored_and_drawn_by_their_likelihood():
    head = Bins()
    out = numbers(B, K, head.outputs(A), seed=3)
    found = head.loss(lambda: out, ACTION, VALID, NOISE, T)
    scores = out.view(B, K, A, head.N).log_softmax(-1)
    edges = np.linspace(-head.REACH, head.REACH, head.N + 1)
    place = np.clip(np.digitize(ACTION.numpy(), edges) - 1, 0, head.N - 1)
    wanted = -np.take_along_axis(scores.numpy(), place[..., None], -1)[..., 0]
    np.testing.assert_allclose(found.numpy(), wanted)
    noise = torch.randn(4000, 1, 1, generator=torch.Generator().manual_seed(0)).double()
    one = out[:1, :1, : head.N].expand(4000, 1, -1)
    drawn = head.answer(lambda: one, noise, 1)[:, 0, 0]
    middles = (edges[1:] + edges[:-1]) / 2
    np.testing.assert_allclose(np.unique(drawn), middles[np.isin(middles, drawn)])
    mean = float((one[0, 0].softmax(-1).numpy() * middles).sum())
    assert float(drawn.mean()) == pytest.approx(mean, abs=0.15)


def test_normal_noise_becomes_uniform():
    found = uniform(torch.tensor([-50.0, 0.0, 50.0, 1.0]))
    torch.testing.assert_close(
        found, torch.tensor([0.0, 0.5, 1.0, 0.5 + math.erf(1 / math.sqrt(2)) / 2])
    )


@pytest.mark.parametrize("head", HEADS)
def test_gradients_are_those_of_differences(head):
    one = HEADS[head]()
    weight = (0.1 * numbers(A, one.outputs(A), seed=4)).requires_grad_()

    def made(weight):
        def ask(x=None, t=None):
            seen = ACTION if x is None else x + t[:, None, None]
            return seen @ weight

        return one.loss(ask, ACTION.roll(1, 0), VALID, NOISE, T).mean()

    assert torch.autograd.gradcheck(made, (weight,))


def config(**settings):
    sizes = {"state_dim": 3, "action_dim": A, "env_state_dim": 2, "chunk_size": K}
    sizes |= {"width": 16, "feedforward": 16, "heads": 2}
    return ACTConfig(**sizes | settings)


@pytest.mark.parametrize("head", HEADS)
def test_every_head_learns_one_sample(head):
    torch.manual_seed(0)
    steps = {"head_steps": 20} if head in STEPPING else {}
    model = ACT(config(head=head, decoder_layers=2, **steps))
    batch = {"qpos": torch.randn(1, 3), "env_state": torch.randn(1, 2)}
    action = torch.randn(1, K, A).clamp(-2, 2)
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    for _ in range(400):
        shown = {
            "action": action.expand(16, -1, -1),
            "is_pad": torch.zeros(16, K, dtype=torch.bool),
            "noise": torch.randn(16, K, A),
            "time": torch.rand(16),
        }
        many = {key: x.expand(16, -1) for key, x in batch.items()}
        loss, _ = model.loss(many | shown, torch.randn(16, 16))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        answer = model(batch | {"noise": torch.randn(1, K, A)}).actions
    assert float((answer - action).abs().max()) < 0.35


def test_l1_is_act_and_what_it_was():
    """Same parameters by the same names, in the same order, and the same numbers."""
    torch.manual_seed(0)
    model = ACT(config())
    assert not [name for name, _ in model.named_parameters() if "shown" in name]
    assert model.cvae is not None
    assert config().to_json().keys().isdisjoint({"head", "head_steps"})
    assert config(head="flow").to_json()["head_steps"] == 5
    assert ACT(config(head="flow")).cvae is None
    assert not config(head="flow").use_cvae


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"loss": "l2"}, r"loss is 'l2', expected 'l1': head='flow' has its own"),
        ({"head": "mip", "head_steps": 3}, "head_steps is 3, expected 5: head='mip'"),
        ({"head_steps": 0}, "head_steps is 0"),
        ({"head": "nonsense"}, r"head is 'nonsense', expected one of \['l1', 'mip'"),
    ],
)
def test_settings_that_would_mean_nothing_are_refused(settings, says):
    with pytest.raises(SettingError, match=says):
        config(**{"head": "flow"} | settings)
    assert config(head="flow", cvae_actions_per_token=3).to_json()["use_cvae"] is False


def test_compile_is_refused_with_a_head_that_it_would_pass_by(tmp_path):
    places = {"data": tmp_path / "a", "out": tmp_path / "b", "compile": True}
    with pytest.raises(SettingError, match="compile is True with head='flow', expect"):
        TrainConfig(**places, model={"head": "flow"})
    TrainConfig(**places)


@dataclass(frozen=True)
class OwnConfig(NetworkConfig):
    """A stranger's network that has a `head_steps` of its own."""

    head_steps: int = 3


def test_a_networks_own_settings_are_all_kept():
    sizes = {"state_dim": 3, "action_dim": 2, "chunk_size": 4}
    assert OwnConfig(**sizes, head_steps=9).to_json()["head_steps"] == 9


@pytest.mark.parametrize("head", HEADS)
def test_padding_counts_nothing_and_shares_of_a_batch_add_up(head):
    torch.manual_seed(0)
    model = ACT(config(head=head)).eval()
    batch = {
        "qpos": numbers(4, 3).float(),
        "env_state": numbers(4, 2).float(),
        "action": numbers(4, K, A).float(),
        "is_pad": torch.arange(K) >= torch.tensor([4, 2, 3, 1])[:, None],
        "noise": numbers(4, K, A, seed=1).float(),
        "time": torch.tensor([0.1, 0.4, 0.6, 0.9]),
    }
    eps = torch.zeros(4, 16)

    def loss(batch, eps, count=None):
        return model.loss(batch, eps, count)[0].item()

    whole = loss(batch, eps)
    if head != "l1":  # whose CVAE reads the padding
        other = batch["action"] + 9.0 * batch["is_pad"][..., None]
        shown = batch["noise"] + 9.0 * batch["is_pad"][..., None]
        if model.head.noisy:  # the decoder sees it; the loss of it is what counts not
            shown, other = batch["noise"], batch["action"]
        assert loss(batch | {"action": other, "noise": shown}, eps) == pytest.approx(
            whole, rel=1e-5
        )
    count = float((~batch["is_pad"]).sum()) / 2  # as if two processes had half each
    halves = [
        loss({k: x[part] for k, x in batch.items()}, eps[part], count)
        for part in (slice(0, 2), slice(2, 4))
    ]
    if head != "l1":
        assert sum(halves) / 2 == pytest.approx(whole, rel=1e-5)
    assert whole != pytest.approx(
        loss(batch | {"is_pad": torch.zeros(4, K, dtype=torch.bool)}, eps), rel=1e-3
    )


@pytest.mark.parametrize("head", HEADS)
def test_nan_comes_out_as_nan(head):
    from .test_policy import observation, policy

    made, seen = policy(head=head).eval(), observation()
    seen["qpos"][1, 0] = np.nan
    answer = made.predict_chunk(seen)
    assert np.isnan(answer[1]).all()
    assert np.isfinite(answer[0]).all()
    with torch.no_grad():
        made.module.action_head.weight.fill_(np.nan)
    assert np.isnan(made.predict_chunk(observation())).all()


def test_noise_that_is_missing_or_of_another_shape_is_refused():
    from .test_policy import K as CHUNK
    from .test_policy import S, batch, observation, policy

    made, seen = policy(head="flow").eval(), observation()
    with pytest.raises(ValueError, match="no 'noise', which a flow reads"):
        made.module(made._inputs(batch()))
    with pytest.raises(ValueError, match="no 'noise', which a flow reads"):
        made.loss(batch())
    for shape in ((1, CHUNK, S), (2, CHUNK, S + 1), (CHUNK, S)):
        with pytest.raises(
            ObservationError, match=r"the noise has shape .* \(2, 5, 3\)"
        ):
            made.predict_chunk(seen | {"noise": np.zeros(shape)})
    wide = np.ones((2, CHUNK, S))  # float64
    assert made.predict_chunk(seen | {"noise": wide}).dtype == np.float32


def test_validation_draws_the_same_noise_each_time_and_no_other():
    from .test_policy import batch, observation, policy

    made = policy(head="flow").eval()
    made.reseed(5)
    first, _ = made.validation_loss(batch())
    second, _ = made.validation_loss(batch())
    assert first == second
    made.sample_chunks(observation(), 3, seed=1)
    after = made.predict_chunk(observation())
    made.reseed(5)
    np.testing.assert_array_equal(made.predict_chunk(observation()), after)


def test_a_policy_draws_its_noise_and_can_begin_anew():
    from .test_policy import observation, policy

    made, plain = policy(head="flow").eval(), policy().eval()
    seen = observation()
    first, second = (made.predict_chunk(seen) for _ in range(2))
    assert np.abs(first - second).max() > 1e-3
    made.reseed(0)
    np.testing.assert_array_equal(made.predict_chunk(seen), first)
    many = made.sample_chunks(seen, 4, seed=3)
    assert many.shape == (4, *first.shape)
    assert np.abs(many - many[0]).max() > 1e-3
    np.testing.assert_array_equal(made.sample_chunks(seen, 4, seed=3), many)
    assert made.latent_dim == 0
    alike = plain.sample_chunks(seen, 3)
    np.testing.assert_allclose(alike, np.stack([alike[0]] * 3), atol=1e-6)
    assert not plain.samples
