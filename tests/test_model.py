"""The network against independent references, and every switch against its promise."""

import dataclasses
import math
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor, nn

from act_minimal.model import (
    ACT,
    ACTOutput,
    Attention,
    Dropout,
    act_loss,
    sinusoid_1d,
)
from act_minimal.settings import ACTConfig

pytestmark = pytest.mark.mostly_quick

TINY = {"state_dim": 3, "action_dim": 2, "chunk_size": 6}
TINY |= {"width": 16, "feedforward": 24, "heads": 2, "latent_dim": 5}


def tiny(**changes: Any) -> ACTConfig:
    return ACTConfig(**{**TINY, **changes})


def close(actual: Tensor, expected: Tensor, atol=1e-5, rtol=1e-5) -> None:
    """torch.testing.assert_close, whose first call takes seconds of imports."""
    np.testing.assert_allclose(actual.detach(), expected.detach(), rtol, atol)


def build(seed: int = 0, **changes: Any) -> ACT:
    torch.manual_seed(seed)
    return ACT(tiny(**changes))


def make_batch(config: ACTConfig, rows: int = 4, seed: int = 1) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(seed)
    batch = {
        "qpos": torch.randn(rows, config.state_dim, generator=g),
        "action": torch.randn(rows, config.chunk_size, config.action_dim, generator=g),
        "is_pad": torch.zeros(rows, config.chunk_size, dtype=torch.bool),
    }
    batch["is_pad"][0, config.chunk_size // 2 :] = True
    batch["is_pad"][1, config.chunk_size // 2 + 1 :] = True  # ends in a packed token
    if config.env_state_dim:
        batch["env_state"] = torch.randn(rows, config.env_state_dim, generator=g)
    if config.cameras:
        shape = (rows, len(config.cameras), 3, *config.image_size)
        batch["images"] = torch.randint(0, 256, shape, generator=g, dtype=torch.uint8)
    return batch


def noise(config: ACTConfig, rows: int = 4) -> Tensor:
    g = torch.Generator().manual_seed(2)
    return torch.randn(rows, config.latent_dim, generator=g)


def without_action(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: x for key, x in batch.items() if key not in ("action", "is_pad")}


def loss_of(model: ACT, batch: dict[str, Tensor]) -> Tensor:
    output = model(batch, noise(model.config))
    return act_loss(output, batch["action"], batch["is_pad"], model.config)[0]


def attend(ours: nn.Module, q: Tensor, k: Tensor, v: Tensor, pad=None) -> Tensor:
    """torch's own attention, with our weights."""
    module = nn.MultiheadAttention(q.shape[-1], ours.heads, batch_first=True)
    module.load_state_dict(ours.state_dict())
    return module(q, k, v, key_padding_mask=pad, need_weights=False)[0]


def mlp(layer: nn.Module, x: Tensor, config: ACTConfig) -> Tensor:
    hidden = layer.linear1(x)
    if config.activation == "relu":
        hidden = hidden.clamp(min=0)
    else:
        hidden = hidden * 0.5 * (1 + torch.erf(hidden / math.sqrt(2)))
    return layer.linear2(hidden)


def encode_by_hand(encoder, x, position, config, pad=None) -> Tensor:
    for layer in encoder.layers:
        if config.pre_norm:
            y = layer.norm1(x)
            x = x + attend(layer.self_attn, y + position, y + position, y, pad)
            x = x + mlp(layer, layer.norm2(x), config)
        else:
            y = attend(layer.self_attn, x + position, x + position, x, pad)
            x = layer.norm1(x + y)
            x = layer.norm2(x + mlp(layer, x, config))
    return encoder.norm(x)


def decode_by_hand(model: ACT, memory: Tensor, position: Tensor) -> Tensor:
    config, query = model.config, model.queries
    x = torch.zeros(len(memory), *query.shape)
    for layer in model.decoder:
        if config.pre_norm:
            y = layer.norm1(x)
            x = x + attend(layer.self_attn, y + query, y + query, y)
            y = layer.norm2(x)
            x = x + attend(layer.cross_attn, y + query, memory + position, memory)
            x = x + mlp(layer, layer.norm3(x), config)
        else:
            y = attend(layer.self_attn, x + query, x + query, x)
            x = layer.norm1(x + y)
            y = attend(layer.cross_attn, x + query, memory + position, memory)
            x = layer.norm2(x + y)
            x = layer.norm3(x + mlp(layer, x, config))
        if config.decoder_output == "first":
            break
    return model.action_head(model.decoder_norm(x))


def forward_by_hand(model: ACT, batch: dict[str, Tensor], eps: Tensor) -> ACTOutput:
    """The paper's computation without any of the shortcuts."""
    config, qpos = model.config, batch["qpos"]
    cvae = model.cvae
    assert cvae is not None
    action = batch["action"] * ~batch["is_pad"][..., None]
    pack = config.cvae_actions_per_token
    tokens = [cvae.cls.expand(len(qpos), -1), cvae.qpos_proj(qpos)]
    for start in range(0, config.chunk_size, pack):
        tokens.append(cvae.action_proj(action[:, start : start + pack].flatten(1)))
    pad = torch.zeros(len(qpos), len(tokens), dtype=torch.bool)
    for i in range(2, len(tokens)):
        pad[:, i] = batch["is_pad"][:, (i - 2) * pack : (i - 1) * pack].all(1)
    position = sinusoid_1d(len(tokens), config.width)
    x = encode_by_hand(cvae.encoder, torch.stack(tokens, 1), position, config, pad)
    moments = cvae.latent_proj(x[:, 0])
    mu, logvar = moments[:, : config.latent_dim], moments[:, config.latent_dim :]
    z = mu + torch.sqrt(torch.exp(logvar)) * eps
    tokens = [model.latent_proj(z), model.qpos_proj(qpos)]
    if config.env_state_dim:
        assert model.env_proj is not None
        tokens.append(model.env_proj(batch["env_state"]))
    x, position = torch.stack(tokens, 1), model.position
    if config.cameras:
        assert model.cameras is not None
        seen, places = model.cameras(batch["images"])
        x, position = torch.cat([x, seen], 1), torch.cat([position, places], 0)
    memory = encode_by_hand(model.encoder, x, position, config)
    return ACTOutput(decode_by_hand(model, memory, position), mu, logvar)


@pytest.mark.parametrize("pre_norm", [True, False])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"decoder_layers": 3, "encoder_layers": 3, "cvae_layers": 3},
        {"decoder_layers": 3, "decoder_output": "first"},
        {"cvae_actions_per_token": 3, "activation": "relu", "env_state_dim": 2},
        {"cameras": ("a", "b"), "image_size": (16, 24)},
        {"cameras": ("a",), "image_size": (16, 24), "image_tokens": "grid"},
    ],
)
def test_forward_equals_the_computation_without_shortcuts(changes, pre_norm):
    model = build(pre_norm=pre_norm, **changes)
    batch, eps = make_batch(model.config), noise(model.config)
    ours, reference = model(batch, eps), forward_by_hand(model, batch, eps)
    for x, y in zip(ours, reference, strict=True):
        close(x, y, atol=2e-6, rtol=1e-5)


def test_sinusoid_1d_is_the_formula():
    table = sinusoid_1d(9, 12)
    for position in range(9):
        for i in range(12):
            angle = position / 10000 ** (2 * (i // 2) / 12)
            expected = math.sin(angle) if i % 2 == 0 else math.cos(angle)
            assert table[position, i] == pytest.approx(expected, abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("layers", "cameras", "millions"),
    [(1, ("top",), 51.6), (1, ("top", "left"), 51.6), (7, ("top",), 83.9)],
)
def test_paper_size_has_the_published_number_of_parameters(
    monkeypatch, layers, cameras, millions
):
    # The convolutions of ResNet-18, counted in test_backbones.py; torchvision is slow
    # to import.
    stand_in = nn.Sequential(nn.Linear(11_166_912, 1, bias=False))
    monkeypatch.setattr("act_minimal.backbones.resnet", lambda *_: stand_in)
    settings = {"state_dim": 14, "action_dim": 14, "decoder_layers": layers}
    model = ACT(ACTConfig.of_size("paper", cameras=cameras, **settings))
    count = sum(p.numel() for p in model.parameters())
    assert count / 1e6 == pytest.approx(millions, abs=0.1)
    if layers == 1:
        assert model.cvae is not None
        training_only = sum(p.numel() for p in model.cvae.parameters())
        assert (count - training_only) / 1e6 == pytest.approx(34.3, abs=0.1)


@pytest.mark.parametrize("pre_norm", [True, False])
def test_gradients_reach_every_parameter(pre_norm):
    settings = {"decoder_layers": 2, "env_state_dim": 2, "image_size": (16, 16)}
    model = build(pre_norm=pre_norm, cameras=("a", "b"), **settings)
    for parameter in model.parameters():  # away from initial zeros
        nn.init.normal_(parameter, std=0.3)
    batch = make_batch(model.config)
    loss_of(model, batch).backward()
    found = {n: p.grad for n, p in model.named_parameters()}
    still = {n for n, g in found.items() if g is None or g.abs().max() < 1e-6}
    # The first decoder layer starts from zeros, so its self-attention adds the same
    # learned constant to every query: a norm has nothing to scale, a projection
    # nothing to project.
    idle = "norm1.weight" if pre_norm else "self_attn.in_proj_weight"
    assert still == {f"decoder.0.{idle}"}


def test_z_is_drawn_from_the_posterior_in_training_and_zero_at_test(monkeypatch):
    model = build()
    batch, eps = make_batch(model.config), noise(model.config)
    seen = []
    encode = model.encode
    monkeypatch.setattr(model, "encode", lambda b, z: (seen.append(z), encode(b, z))[1])
    output = model(batch, eps)
    close(seen[0], output.mu + output.logvar.exp().sqrt() * eps)
    output = model(without_action(batch))
    assert torch.equal(seen[1], torch.zeros(4, 5))
    assert output.mu is None
    assert output.logvar is None
    with pytest.raises(ValueError, match="eps is None"):
        model(batch)


def test_without_cvae_actions_are_never_looked_at():
    model = build(use_cvae=False)
    batch = make_batch(model.config)
    output = model(batch)
    assert output.mu is None
    assert torch.equal(output.actions, model(without_action(batch)).actions)
    assert model.cvae is None


def random_output(rows=3, k=6, size=2, latent=5, seed=3):
    g = torch.Generator().manual_seed(seed)
    predicted, action = torch.randn(2, rows, k, size, generator=g)
    mu, logvar = torch.randn(2, rows, latent, generator=g)
    return ACTOutput(predicted, mu, logvar), action


def test_kl_is_that_of_torch_distributions():
    output, action = random_output()
    is_pad = torch.zeros(3, 6, dtype=torch.bool)
    posterior = torch.distributions.Normal(output.mu, (output.logvar / 2).exp())
    prior = torch.distributions.Normal(0.0, 1.0)
    each = torch.distributions.kl_divergence(posterior, prior)  # (B, Z)
    for reduction, expected in (("sum", each.sum(1).mean()), ("mean", each.mean())):
        config = tiny(kl_reduction=reduction, kl_weight=7.0)
        loss, parts = act_loss(output, action, is_pad, config)
        close(parts["kl"], expected)
        close(loss, parts["l1"] + 7 * expected)


def test_kl_of_a_network_in_bf16_is_not_rounded_away():
    config = ACTConfig(state_dim=2, action_dim=2, chunk_size=4)
    g = torch.Generator().manual_seed(0)
    mu, logvar = (0.02 * torch.randn(2, 8, 16, generator=g)).bfloat16()
    action, is_pad = torch.zeros(8, 4, 2), torch.zeros(8, 4, dtype=torch.bool)
    kl = {}
    for dtype in (torch.bfloat16, torch.float64):
        output = ACTOutput(action.to(dtype), mu.to(dtype), logvar.to(dtype))
        kl[dtype] = float(act_loss(output, action, is_pad, config)[1]["kl"])
    assert 0 < kl[torch.float64] < 0.01
    assert kl[torch.bfloat16] == pytest.approx(kl[torch.float64], rel=1e-3)


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 6), min_size=1, max_size=4),
    seed=st.integers(0, 1000),
    kind=st.sampled_from(["l1", "l2"]),
    padding=st.sampled_from(["exclude", "dilute"]),
)
def test_loss_is_the_loop_over_valid_steps(lengths, seed, kind, padding):
    rows = len(lengths)
    output, action = random_output(rows, seed=seed)
    is_pad = torch.arange(6) >= torch.tensor(lengths)[:, None]
    total = {"l1": 0.0, "l2": 0.0}
    for b, length in enumerate(lengths):
        for t in range(length):
            for a in range(2):
                error = float(output.actions[b, t, a] - action[b, t, a])
                total["l1"] += abs(error)
                total["l2"] += error**2
    count = sum(lengths) * 2 if padding == "exclude" else rows * 6 * 2
    config = tiny(loss=kind, padding_in_loss=padding, kl_weight=0.0)
    loss, parts = act_loss(output, action, is_pad, config)
    assert float(loss) == pytest.approx(total[kind] / count, rel=1e-4)
    assert float(parts["l1"]) == pytest.approx(total["l1"] / count, rel=1e-4)


@pytest.mark.parametrize("padding", ["exclude", "dilute"])
def test_halves_of_a_batch_average_to_the_whole(padding):
    output, action = random_output(rows=4)
    is_pad = torch.zeros(4, 6, dtype=torch.bool)
    is_pad[0, 1:] = True
    config = tiny(padding_in_loss=padding)
    whole, _ = act_loss(output, action, is_pad, config)
    share = (~is_pad).sum() / 2
    halves = []
    for rows in (slice(0, 2), slice(2, 4)):
        part = ACTOutput(*(x[rows] for x in output))
        halves.append(act_loss(part, action[rows], is_pad[rows], config, share)[0])
    close(sum(halves) / 2, whole)


def test_a_batch_of_padding_alone_gives_a_finite_loss_and_gradient():
    model = build()
    batch = make_batch(model.config)
    batch["is_pad"][:] = True
    loss = loss_of(model, batch)
    loss.backward()
    assert loss.isfinite()
    grads = [p.grad for p in model.parameters() if p.grad is not None]
    assert all(g.isfinite().all() for g in grads)


@pytest.mark.parametrize(
    "change",
    [
        {"pre_norm": False},
        {"activation": "relu"},
        {"decoder_layers": 2, "decoder_output": "first"},
        {"heads": 4},
    ],
)
def test_switches_change_the_prediction(change):
    base = {"decoder_layers": 2} if "decoder_layers" in change else {}
    first, second = build(**base), build(**{**base, **change})
    second.load_state_dict(first.state_dict(), strict=False)
    batch = without_action(make_batch(first.config))
    a, b = first(batch).actions, second(batch).actions
    assert not torch.allclose(a, b, atol=1e-4)


def test_dropout_acts_in_training_only():
    model = build(dropout=0.5)
    batch = without_action(make_batch(model.config))
    torch.manual_seed(0)
    first = model(batch).actions
    assert not torch.allclose(first, model(batch).actions)
    # Masks are drawn for each sample, although the queries are shared.
    batch = {key: x[:1].expand(4, *x.shape[1:]) for key, x in batch.items()}
    rows = model(batch).actions
    assert not torch.allclose(rows[0], rows[1])
    model.eval()
    assert torch.equal(model(batch).actions, model(batch).actions)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.77])
def test_dropout_drops_its_share_and_keeps_the_mean(share):
    torch.manual_seed(0)
    shape, layer = (501, 1999), Dropout(share)  # not a multiple of 4
    x = torch.full(shape, 2.0, requires_grad=True)
    y = layer(x)
    n, dropped = y.numel(), y == 0
    sigma = math.sqrt(share * (1 - share) / n)
    assert abs(float(dropped.float().mean()) - share) < 4 * sigma
    close(y[~dropped], torch.full_like(y[~dropped], 2 / (1 - share)), atol=1e-3)
    y.sum().backward()
    assert x.grad is not None
    close(x.grad, y / 2, atol=1e-6)  # nothing flows through what was dropped
    # Neighbours share a draw of 64 bits, and still know nothing of each other.
    d = dropped.double().flatten() - share
    for lag in (1, 2, 3, 4):
        both = float((d[:-lag] * d[lag:]).mean())
        assert abs(both) < 5 * share * (1 - share) / math.sqrt(n)
    assert torch.equal(layer.eval()(x), x)
    torch.manual_seed(1)
    first = layer.train()(x)
    torch.manual_seed(1)
    assert torch.equal(layer(x), first)  # a step can be repeated


def test_attention_with_dropout_is_attention_on_average():
    torch.manual_seed(0)
    attention = Attention(16, 2, 0.3)
    x, mask = torch.randn(1, 5, 16), torch.tensor([[True, True, False, True, True]])
    many, n = x.expand(20_000, -1, -1), 20_000
    with torch.no_grad():
        found = attention.train()(many, many, many, mask.expand(n, -1))
        expected = attention.eval()(x, x, x, mask)[0]
    error = found.std(0) / math.sqrt(n)
    assert float(((found.mean(0) - expected).abs() / error).max()) < 5
    assert float(found.std(0).min()) > 1e-3
    # Nothing comes from where nobody may look, whatever is drawn.
    other = x.clone()
    other[:, 2] = 100.0
    torch.manual_seed(1)
    a = attention.train()(x, x, x, mask)
    torch.manual_seed(1)
    b = attention(x, other, other, mask)
    close(a, b)


def test_attention_maps_are_what_the_decoder_used():
    model = build(decoder_layers=2, env_state_dim=2).eval()
    batch = make_batch(model.config)
    maps = model.attention_maps(batch)
    assert [m.shape for m in maps] == [(4, 2, 6, 3)] * 2
    close(maps[1].sum(-1), torch.ones(4, 2, 6))
    assert all(not m.keep_maps for m in model.modules() if hasattr(m, "keep_maps"))
    # A token whose value is all that differs: moving it moves the output in
    # proportion to the attention that it gets.
    layer = model.decoder[0]
    value = torch.randn(4, 3, 16)
    model.decoder[0].cross_attn.keep_maps = True
    out = layer.cross_attn(torch.randn(4, 6, 16), torch.randn(4, 3, 16), value)
    v = value @ layer.cross_attn.in_proj_weight[32:].T
    v = v.unflatten(-1, (2, 8)).transpose(1, 2)
    heads = (layer.cross_attn.maps @ v).transpose(1, 2).flatten(2)
    close(out, layer.cross_attn.out_proj(heads), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"heads": 3}, "heads is 3, expected a divisor of width=16"),
        ({"width": 18, "heads": 2}, "width is 18, expected a multiple of 4"),
        ({"chunk_size": 0}, "chunk_size is 0, expected a whole number of at least 1"),
        ({"dropout": 1.0}, "dropout is 1.0, expected a finite number in"),
        ({"kl_weight": -1}, "kl_weight is -1, expected a finite number of at least 0"),
        ({"backbone": "vgg"}, "backbone is 'vgg', expected one of .*'resnet50'"),
        ({"cvae_actions_per_token": 4}, "expected a divisor of chunk_size=6"),
        ({"image_size": (15, 128)}, r"size is \(15, 128\), expected .* 16 pixels"),
        ({"image_size": (96,)}, "image_size is"),
        ({"image_size": (96.0, 128)}, "image_size is .* expected"),
        ({"image_size": ((96, 128), (96, 96))}, "or such a pair a camera"),
        ({"image_pool": 7}, "image_size is .* expected .* 112 pixels"),
        ({"cameras": ("a", "a")}, "cameras is .* names that differ"),
        ({"pretrained": "imagenet"}, "pretrained is 'imagenet', expected 'none'"),
    ],
)
def test_bad_settings_name_the_field_and_what_is_expected(change, message):
    with pytest.raises(ValueError, match=message):
        tiny(**change)


def test_of_size_lists_what_it_knows():
    dims = {"state_dim": 6, "action_dim": 6}
    with pytest.raises(ValueError, match=r"size is 'huge', expected one of .*'paper'"):
        ACTConfig.of_size("huge", **dims)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"no setting 'widht': known are .*width"):
        ACTConfig.of_size("small", **dims, widht=3)
    assert ACTConfig.of_size("paper", **dims, chunk_size=7).chunk_size == 7
    paper = ACTConfig.of_size("paper", **dims)
    assert (paper.chunk_size, paper.width, paper.feedforward) == (100, 512, 3200)
    assert (paper.encoder_layers, paper.latent_dim, paper.heads) == (4, 32, 8)
    assert ACTConfig.of_size("small", **dims) == ACTConfig(**dims)


def test_sizes_of_cameras_are_written_in_one_way():
    two = {"cameras": ("a", "b")}
    same = tiny(**two, image_size=((16, 24), (16, 24)))
    assert same == tiny(**two, image_size=(16, 24))
    assert same.camera_sizes == {"a": (16, 24), "b": (16, 24)}
    config = tiny(**two, image_size=((16, 24), (40, 32)))
    assert config.camera_sizes == {"a": (16, 24), "b": (40, 32)}
    for sizes in ([16, 24], [[16, 24], [40, 32]]):  # as JSON has them
        plain = dataclasses.asdict(config) | {"cameras": ["a", "b"]}
        config = tiny(**two, image_size=tuple(sizes))
        assert ACTConfig(**plain | {"image_size": sizes}) == config
    # Two cameras, and a height that equals the width: not two sizes.
    assert tiny(**two, image_size=(16, 16)).camera_sizes["b"] == (16, 16)
    for wrong in (((16, 24),), ((16, 24), (8, 24)), ((16, 24), 16), ((16,), (16,))):
        with pytest.raises(ValueError, match=r"image_size is \("):
            tiny(**two, image_size=wrong)


@pytest.mark.parametrize("image_tokens", ["keypoints", "grid"])
def test_cameras_of_different_sizes_all_have_a_say(image_tokens):
    torch.manual_seed(0)
    sizes = ((16, 24), (40, 32))
    config = tiny(cameras=("a", "b"), image_size=sizes, image_tokens=image_tokens)
    model = ACT(config).eval()
    images = [torch.rand(2, 3, *size) for size in sizes]
    qpos = torch.randn(2, config.state_dim)
    chunk = model({"qpos": qpos, "images": images}).actions
    assert chunk.shape == (2, config.chunk_size, config.action_dim)
    for i in range(2):
        other = [torch.rand_like(x) if i == j else x for j, x in enumerate(images)]
        seen = model({"qpos": qpos, "images": other}).actions
        assert (seen - chunk).abs().max() > 1e-5
