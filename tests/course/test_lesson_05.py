"""Lesson 05: its checks, its pieces, its numbers, its widget."""

import math
import re

import numpy as np
import pytest
import torch
from torch import nn

from act_minimal.checkpoint import load_policy
from course.figures import lesson_05_attention as attention
from course.figures import lesson_05_parts as parts
from course.figures.lesson_05_parts import Weights
from course.toolkit.paths import ROOT

from .helpers import answers, sweep

pytestmark = pytest.mark.quick


def waves(length, width, start=0, base=10000.0):
    rates = base ** (-torch.arange(0, width, 2) / width)
    angle = (torch.arange(length)[:, None] + start) * rates
    return angle.sin(), angle.cos()


def turns(a, b):
    return torch.stack([a, b], -1).flatten(1)


test_positions = answers(
    "05.sinusoid",
    right=[
        (lambda n, d: turns(*waves(n, d)), "neighbours"),
        (lambda n, d: turns(*waves(n, d)).numpy(), ""),
    ],
    wrong=[
        (lambda n, d: torch.cat(waves(n, d), 1), "all sines come first"),
        (lambda n, d: turns(*waves(n, d)[::-1]), "sine comes first"),
        (lambda n, d: turns(*waves(n, d, start=1)), "count from 0"),
        (lambda n, d: turns(*waves(n, d, base=1e-4)), "sign of the exponent"),
        (lambda n, d: turns(*waves(n, d, base=100.0)), "half as fast"),
        (lambda n, d: turns(*waves(n, d)).T, "expected shape (9, 6)"),
        (lambda n, d: torch.zeros(n, d), "at position 1 expected"),
        (lambda n, d: "no", "a tensor is wanted"),
    ],
)


def weigh(q, k, look=None, scale=None, axis=-1, fill=-math.inf):
    score = q @ k.mT / (scale or q.shape[-1] ** 0.5)
    if look is not None:
        score = score.masked_fill(~look, fill)
    return score.softmax(axis)


test_attention = answers(
    "05.attend",
    right=[(lambda q, k, v, look: weigh(q, k, look) @ v, "add up to one")],
    wrong=[
        (lambda q, k, v, look: weigh(q, k, look, 1) @ v, "not divided"),
        (lambda q, k, v, look: weigh(q, k, look, 8) @ v, "not by d"),
        (lambda q, k, v, look: weigh(q, k, look, axis=-2) @ v, "runs over the queries"),
        (lambda q, k, v, look: q @ k.mT @ v / 8**0.5, "no softmax"),
        (lambda q, k, v, look: weigh(q, k) @ k, "keys are averaged"),
        (lambda q, k, v, look: weigh(q, k) @ v, "`look` is not used"),
        (
            lambda q, k, v, look: weigh(q, k, None if look is None else ~look) @ v,
            "upside down",
        ),
        (
            lambda q, k, v, look: weigh(q, k) * (1 if look is None else look) @ v,
            "after the softmax",
        ),
        (lambda q, k, v, look: weigh(q, k, look, fill=0.0) @ v, "still gets weight"),
        (lambda q, k, v, look: weigh(q, k), "expected shape"),
        (lambda q, k, v, look: q @ v, "raised RuntimeError"),
    ],
)


test_heads = answers(
    "05.split-heads",
    right=[(lambda x, h: x.unflatten(-1, (h, -1)).transpose(1, 2), "slice")],
    wrong=[
        (lambda x, h: x.unflatten(-1, (h, -1)), "swap the axes"),
        (lambda x, h: x.reshape(len(x), h, x.shape[1], -1), "numbers are mixed"),
        (
            lambda x, h: x.unflatten(-1, (-1, h)).permute(0, 3, 1, 2),
            "every fourth number",
        ),
        (lambda x, h: x.chunk(h, -1)[0], "expected shape (2, 4, 6, 2)"),
        (lambda x, h: x.unflatten(-1, (h, -1)).transpose(1, 2).flip(1), "other places"),
    ],
)


def layer(values=False, keys=True, stay=False, skip=True, post=False, look_up=True):
    """An encoder layer as learners write it, with a mistake or without."""

    def write(w, x, position, look=None):
        look = look if look_up else None
        x = x + position if stay else x
        y = x if post else w.norm("norm1", x)
        place = y + position if keys and not stay else y
        y = w.attention("self_attn", place, place, place if values else y, look)
        if post:
            x = w.norm("norm1", x + y)
            return w.norm("norm2", x + w.mlp(x))
        x = x + y if skip else y
        return (x if skip else 0) + w.mlp(w.norm("norm2", x))

    return write


test_the_encoder_layer = answers(
    "05.encoder-layer",
    right=[(layer(), "where to look")],
    wrong=[
        (layer(values=True), "values have positions"),
        (layer(keys=False), "no positions"),
        (layer(stay=True), "added to x itself"),
        (layer(skip=False), "residuals are missing"),
        (layer(post=True), "post-norm"),
        (layer(look_up=False), "not passed on"),
        (lambda w, x, position, look: x, "output differs"),
        (lambda w, x, position, look: x[:, :1], "keeps the shape"),
        (lambda w, x, position, look: w.norm("norm9", x), "KeyError"),
    ],
)


def summary(look=True, invert=False, place=True, read=0, first="cls", swap=False):
    def write(w, qpos, action, is_pad):
        own = [w["cls"].expand(len(qpos), 1, -1), w.linear("qpos_proj", qpos)[:, None]]
        own = own if first == "cls" else own[::-1]
        x = torch.cat([*own, w.linear("action_proj", action)], 1)
        seen = is_pad if invert else ~is_pad
        seen = nn.functional.pad(seen, (2, 0), value=True)
        position = w.sinusoid(x.shape[1]) * place
        x = w.encoder(x, position, seen if look else None)
        a, b = w.linear("latent_proj", x[:, read]).chunk(2, -1)
        return (b, a) if swap else (a, b)

    return write


test_the_posterior = answers(
    "05.posterior",
    right=[(summary(), "padding has no say")],
    stubs=[(lambda w, q, a, p: (None, None), "")],
    wrong=[
        (summary(look=False), "padded actions have influence"),
        (summary(invert=True), "upside down"),
        (summary(place=False), "positions are missing"),
        (summary(read=-1), "last token is read"),
        (summary(read=1), "token 1"),
        (summary(first="joints"), "before CLS"),
        (summary(swap=True), "swapped"),
        (lambda w, q, a, p: q, "two tensors"),
        (lambda w, q, a, p: (q, q), "cut it in two"),
    ],
)


def decoder(zeros=True, read="memory", asks=True, last=True, own=True):
    def write(w, memory, key):
        query, one = w["queries"], w.part("decoder.0")
        x = torch.zeros(len(memory), *query.shape) if zeros else query.expand(2, -1, -1)
        if own:
            y = one.norm("norm1", x)
            x = x + one.attention("self_attn", y + query, y + query, y)
        y = one.norm("norm2", x)
        value = memory if read == "memory" else key
        ask = y + query if asks else y
        x = x + one.attention("cross_attn", ask, key, value)
        x = x + one.mlp(one.norm("norm3", x))
        return w.linear("action_head", w.norm("decoder_norm", x) if last else x)

    return write


test_the_decoder = answers(
    "05.decode",
    right=[(decoder(), "all at once")],
    wrong=[
        (decoder(zeros=False), "begins as the queries"),
        (decoder(read="key"), "reads `key`"),
        (decoder(asks=False), "lack the learned ones"),
        (decoder(last=False), "decoder_norm is missing"),
        (decoder(own=False), "self-attention of the queries"),
        (lambda w, m, k: w["queries"], "one action for each query"),
    ],
)


@pytest.fixture(scope="module")
def batch():
    policy = load_policy(ROOT / "data/checkpoints/so100_pick_place_state")
    return parts.sample_batch(policy)


def test_the_pieces_are_the_package_s(batch):
    model = parts.fresh(seed=3)
    eps = torch.randn(4, 16, generator=torch.Generator().manual_seed(1))
    w = Weights(model)
    with torch.no_grad():
        right = model(batch, eps)
        seen = [batch[key] for key in ("qpos", "action", "is_pad")]
        mu, logvar = parts.posterior(w.part("cvae"), *seen)
        torch.testing.assert_close(mu, right.mu, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(logvar, right.logvar, atol=1e-5, rtol=1e-5)
        memory, key = model.encode(batch, mu)
        answer = parts.decode(w, memory, key)
        torch.testing.assert_close(answer, model.decode(memory, key))
    assert parts.difference(model, right.actions, batch, eps) == 0
    assert parts.difference(model, right.actions + 1, batch, eps) == pytest.approx(1)
    assert batch["is_pad"][-1].any()  # so that padding is tried


def test_ours_stands_in_for_what_is_not_right():
    def attend(query, key, value, look=None): ...

    def split_heads(x, heads):
        return x.unflatten(-1, (heads, -1)).transpose(1, 2)

    pieces = parts.yours_or_ours(attend=attend, split_heads=split_heads)
    assert pieces.attend is parts.attend
    assert pieces.split_heads is split_heads
    assert "attend (ours), split_heads (yours), sinusoid (ours)" in str(pieces)


def test_shapes_and_parameters_are_told(batch):
    model = parts.fresh()
    lines = parts.shapes(model, batch, torch.zeros(4, 16))
    [line] = [x for x in lines if x.startswith("cvae.qpos_proj")]
    assert " ".join(line.split()) == "cvae.qpos_proj (4, 6) -> (4, 64) 448"
    assert 6 * 64 + 64 == 448


def test_which_layers_the_loss_reaches():
    assert parts.reached(3, "first") == [True, False, False]
    assert parts.reached(3, "last") == [True, True, True]


def test_dead_layers_of_the_paper_s_network():
    width, hidden = 512, 3200
    attention = 4 * (width * width + width)
    mlp = 2 * width * hidden + hidden + width
    one = 2 * attention + mlp + 3 * 2 * width
    assert parts.paper_parameters(7) - parts.paper_parameters(1) == 6 * one


def test_queries_are_compared_by_angle_and_distance():
    queries = torch.tensor([[1.0, 0], [0, 2], [3, 3]])
    alike = parts.likeness(queries)
    half = math.sqrt(0.5)
    wanted = [[1, 0, half], [0, 1, half], [half, half, 1]]
    np.testing.assert_allclose(alike, wanted, atol=1e-6)
    np.testing.assert_allclose(parts.by_distance(alike), [half / 2, half])
    assert parts.query_figure(queries, queries).axes
    assert parts.sinusoid_figure(10, 8).axes


@pytest.fixture(scope="module")
def looks():
    policy = load_policy(ROOT / "data/checkpoints/so100_pick_place_vision")
    episode = ROOT / "data/samples/vision/episode_0.hdf5"
    return attention.look(policy, episode, every=100)


def test_attention_adds_up_and_keypoints_are_in_the_image(looks):
    np.testing.assert_allclose(looks.weight.sum(-1), 1, atol=1e-5)
    assert looks.weight.shape[2] == len(attention.TOKENS)
    height, width = looks.images.shape[2:4]
    assert (looks.points >= 0).all()
    assert (looks.points[..., 0] <= width - 1).all()
    assert (looks.points[..., 1] <= height - 1).all()
    assert looks.seconds[1] == pytest.approx(100 / 30)


def test_a_keypoint_s_effect_is_what_the_policy_does():
    """Moved in the network's own code, through a hook, and read off in degrees."""
    policy = load_policy(ROOT / "data/checkpoints/so100_pick_place_vision")
    episode = ROOT / "data/samples/vision/episode_0.hdf5"
    from act_minimal.episodes import load_episode

    found = attention.look(policy, episode, every=150)
    recorded = load_episode(episode)
    seen = {f"images/{c}": recorded.images[c][[0]] for c in policy.cameras}
    seen["qpos"] = recorded.qpos[[0]]
    head = policy.module.cameras.tokens
    camera, channel = 1, 17
    chunks = [policy.predict_chunk(seen)]
    for axis, cells in ((0, 6), (1, 8)):

        def move(module, given, axis=axis, cells=cells):
            x = given[0].clone()
            x[camera, 2 * channel + axis] += 2 / (16 * (cells - 1))
            return (x,)

        hook = head.proj.register_forward_pre_hook(move)
        chunks.append(policy.predict_chunk(seen))
        hook.remove()
    moved = [np.rad2deg(c[0, :, :5] - chunks[0][0, :, :5]) for c in chunks[1:]]
    right = np.sqrt(sum((m**2).sum(-1) for m in moved))
    effect = found.effect[0, :, camera, channel]
    np.testing.assert_allclose(effect, right, rtol=0.02, atol=2e-4)


def test_the_camera_explorer_goes_to_both_ends(looks):
    explorer = attention.camera_explorer(looks)
    last, k = len(looks.seconds) - 1, looks.weight.shape[1]
    for moment, action in sweep(explorer, 4, moment=(0, last), action=(1, k)):
        weight = looks.weight[moment, action - 1]
        assert f"{100 * weight[2:6].sum():.0f} % of the attention" in explorer.says
        assert f"{100 * weight[6:].sum():.0f} % on the wrist" in explorer.says
        largest = float(re.search(r"([\d.]+) degrees", explorer.says)[1])
        effect = looks.effect[moment, action - 1].max()
        assert largest == pytest.approx(effect, abs=0.006)
    assert explorer.controls["moment"].max == last
    assert explorer.controls["action"].max == k
