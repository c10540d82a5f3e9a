"""Lesson 05: its checks, its pieces, its numbers, its widget."""

import math
import re

import numpy as np
import pytest
import torch
from torch import nn

from act_minimal.course import anatomy, gaze
from act_minimal.course.anatomy import Weights
from act_minimal.course.checks import check
from act_minimal.course.place import ROOT
from act_minimal.policy import load_policy

pytestmark = pytest.mark.quick


def stub(*args): ...


def judged(name, answer, state, says):
    verdict = check(name, answer)
    assert verdict.state == state, verdict
    assert says in verdict.message


# ---------------------------------------------------------------- positions


def waves(length, width, start=0, base=10000.0):
    angle = (torch.arange(length)[:, None] + start) * base ** (
        -torch.arange(0, width, 2) / width
    )
    return angle.sin(), angle.cos()


def turns(a, b):
    return torch.stack([a, b], -1).flatten(1)


@pytest.mark.parametrize(
    ("answer", "state", "says"),
    [
        (lambda n, d: turns(*waves(n, d)), "right", "neighbours"),
        (lambda n, d: turns(*waves(n, d)).numpy(), "right", ""),
        (stub, "not attempted", ""),
        (lambda n, d: torch.cat(waves(n, d), 1), "wrong", "all sines come first"),
        (lambda n, d: turns(*waves(n, d)[::-1]), "wrong", "sine comes first"),
        (lambda n, d: turns(*waves(n, d, start=1)), "wrong", "count from 0"),
        (lambda n, d: turns(*waves(n, d, base=1e-4)), "wrong", "sign of the exponent"),
        (lambda n, d: turns(*waves(n, d, base=100.0)), "wrong", "half as fast"),
        (lambda n, d: turns(*waves(n, d)).T, "wrong", "expected shape (9, 6)"),
        (lambda n, d: torch.zeros(n, d), "wrong", "at position 1 expected"),
        (lambda n, d: "no", "wrong", "a tensor is wanted"),
    ],
)
def test_positions(answer, state, says):
    judged("05.sinusoid", answer, state, says)


# ---------------------------------------------------------------- attention


def weigh(q, k, look=None, scale=None, axis=-1, fill=-math.inf):
    score = q @ k.mT / (scale or q.shape[-1] ** 0.5)
    if look is not None:
        score = score.masked_fill(~look, fill)
    return score.softmax(axis)


@pytest.mark.parametrize(
    ("answer", "state", "says"),
    [
        (lambda q, k, v, look: weigh(q, k, look) @ v, "right", "add up to one"),
        (stub, "not attempted", ""),
        (lambda q, k, v, look: weigh(q, k, look, 1) @ v, "wrong", "not divided"),
        (lambda q, k, v, look: weigh(q, k, look, 8) @ v, "wrong", "not by d"),
        (
            lambda q, k, v, look: weigh(q, k, look, axis=-2) @ v,
            "wrong",
            "runs over the queries",
        ),
        (lambda q, k, v, look: q @ k.mT @ v / 8**0.5, "wrong", "no softmax"),
        (lambda q, k, v, look: weigh(q, k) @ k, "wrong", "keys are averaged"),
        (lambda q, k, v, look: weigh(q, k) @ v, "wrong", "`look` is not used"),
        (
            lambda q, k, v, look: weigh(q, k, None if look is None else ~look) @ v,
            "wrong",
            "upside down",
        ),
        (
            lambda q, k, v, look: weigh(q, k) * (1 if look is None else look) @ v,
            "wrong",
            "after the softmax",
        ),
        (
            lambda q, k, v, look: weigh(q, k, look, fill=0.0) @ v,
            "wrong",
            "still gets weight",
        ),
        (lambda q, k, v, look: weigh(q, k), "wrong", "expected shape"),
        (lambda q, k, v, look: q @ v, "wrong", "raised RuntimeError"),
    ],
)
def test_attention(answer, state, says):
    judged("05.attend", answer, state, says)


@pytest.mark.parametrize(
    ("answer", "state", "says"),
    [
        (lambda x, h: x.unflatten(-1, (h, -1)).transpose(1, 2), "right", "slice"),
        (stub, "not attempted", ""),
        (lambda x, h: x.unflatten(-1, (h, -1)), "wrong", "swap the axes"),
        (
            lambda x, h: x.reshape(len(x), h, x.shape[1], -1),
            "wrong",
            "numbers are mixed",
        ),
        (
            lambda x, h: x.unflatten(-1, (-1, h)).permute(0, 3, 1, 2),
            "wrong",
            "every fourth number",
        ),
        (lambda x, h: x.chunk(h, -1)[0], "wrong", "expected shape (2, 4, 6, 2)"),
        (
            lambda x, h: x.unflatten(-1, (h, -1)).transpose(1, 2).flip(1),
            "wrong",
            "other places",
        ),
    ],
)
def test_heads(answer, state, says):
    judged("05.split-heads", answer, state, says)


# ---------------------------------------------------------------- layers


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


@pytest.mark.parametrize(
    ("answer", "state", "says"),
    [
        (layer(), "right", "where to look"),
        (stub, "not attempted", ""),
        (layer(values=True), "wrong", "values have positions"),
        (layer(keys=False), "wrong", "no positions"),
        (layer(stay=True), "wrong", "added to x itself"),
        (layer(skip=False), "wrong", "residuals are missing"),
        (layer(post=True), "wrong", "post-norm"),
        (layer(look_up=False), "wrong", "not passed on"),
        (lambda w, x, position, look: x, "wrong", "output differs"),
        (lambda w, x, position, look: x[:, :1], "wrong", "keeps the shape"),
        (lambda w, x, position, look: w.norm("norm9", x), "wrong", "KeyError"),
    ],
)
def test_the_encoder_layer(answer, state, says):
    judged("05.encoder-layer", answer, state, says)


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


@pytest.mark.parametrize(
    ("answer", "state", "says"),
    [
        (summary(), "right", "padding has no say"),
        (stub, "not attempted", ""),
        (lambda w, q, a, p: (None, None), "not attempted", ""),
        (summary(look=False), "wrong", "padded actions have influence"),
        (summary(invert=True), "wrong", "upside down"),
        (summary(place=False), "wrong", "positions are missing"),
        (summary(read=-1), "wrong", "last token is read"),
        (summary(read=1), "wrong", "token 1"),
        (summary(first="joints"), "wrong", "before CLS"),
        (summary(swap=True), "wrong", "swapped"),
        (lambda w, q, a, p: q, "wrong", "two tensors"),
        (lambda w, q, a, p: (q, q), "wrong", "cut it in two"),
    ],
)
def test_the_posterior(answer, state, says):
    judged("05.posterior", answer, state, says)


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


@pytest.mark.parametrize(
    ("answer", "state", "says"),
    [
        (decoder(), "right", "all at once"),
        (stub, "not attempted", ""),
        (decoder(zeros=False), "wrong", "begins as the queries"),
        (decoder(read="key"), "wrong", "reads `key`"),
        (decoder(asks=False), "wrong", "lack the learned ones"),
        (decoder(last=False), "wrong", "decoder_norm is missing"),
        (decoder(own=False), "wrong", "self-attention of the queries"),
        (lambda w, m, k: w["queries"], "wrong", "one action for each query"),
    ],
)
def test_the_decoder(answer, state, says):
    judged("05.decode", answer, state, says)


# ---------------------------------------------------------------- the whole


@pytest.fixture(scope="module")
def batch():
    policy = load_policy(ROOT / "data/checkpoints/so100_pick_place_state")
    return anatomy.sample_batch(policy)


def test_the_pieces_are_the_package_s(batch):
    model = anatomy.fresh(seed=3)
    eps = torch.randn(4, 16, generator=torch.Generator().manual_seed(1))
    w = Weights(model)
    with torch.no_grad():
        right = model(batch, eps)
        mu, logvar = anatomy.posterior(
            w.part("cvae"), batch["qpos"], batch["action"], batch["is_pad"]
        )
        torch.testing.assert_close(mu, right.mu, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(logvar, right.logvar, atol=1e-5, rtol=1e-5)
        memory, key = model.encode(batch, mu)
        answer = anatomy.decode(w, memory, key)
        torch.testing.assert_close(answer, model.decode(memory, key))
    assert anatomy.difference(model, right.actions, batch, eps) == 0
    assert anatomy.difference(model, right.actions + 1, batch, eps) == pytest.approx(1)
    assert batch["is_pad"][-1].any()  # so that padding is tried


def test_ours_stands_in_for_what_is_not_right():
    def attend(query, key, value, look=None): ...

    def split_heads(x, heads):
        return x.unflatten(-1, (heads, -1)).transpose(1, 2)

    pieces = anatomy.yours_or_ours(attend=attend, split_heads=split_heads)
    assert pieces.attend is anatomy.attend
    assert pieces.split_heads is split_heads
    assert "attend (ours), split_heads (yours), sinusoid (ours)" in str(pieces)


def test_shapes_and_parameters_are_told(batch):
    model = anatomy.fresh()
    lines = anatomy.shapes(model, batch, torch.zeros(4, 16))
    [line] = [x for x in lines if x.startswith("cvae.qpos_proj")]
    assert " ".join(line.split()) == "cvae.qpos_proj (4, 6) -> (4, 64) 448"
    assert 6 * 64 + 64 == 448


def test_which_layers_the_loss_reaches():
    assert anatomy.reached(3, "first") == [True, False, False]
    assert anatomy.reached(3, "last") == [True, True, True]


def test_dead_layers_of_the_paper_s_network():
    width, hidden = 512, 3200
    attention = 4 * (width * width + width)
    mlp = 2 * width * hidden + hidden + width
    one = 2 * attention + mlp + 3 * 2 * width
    assert anatomy.paper_parameters(7) - anatomy.paper_parameters(1) == 6 * one


def test_queries_are_compared_by_angle_and_distance():
    queries = torch.tensor([[1.0, 0], [0, 2], [3, 3]])
    alike = anatomy.likeness(queries)
    half = math.sqrt(0.5)
    np.testing.assert_allclose(
        alike, [[1, 0, half], [0, 1, half], [half, half, 1]], atol=1e-6
    )
    np.testing.assert_allclose(anatomy.by_distance(alike), [half / 2, half])
    assert anatomy.query_figure(queries, queries).axes
    assert anatomy.sinusoid_figure(10, 8).axes


# ---------------------------------------------------------------- the cameras


@pytest.fixture(scope="module")
def looks():
    policy = load_policy(ROOT / "data/checkpoints/so100_pick_place_vision")
    episode = ROOT / "data/samples/vision/episode_0.hdf5"
    return gaze.look(policy, episode, every=100)


def test_attention_adds_up_and_keypoints_are_in_the_image(looks):
    np.testing.assert_allclose(looks.weight.sum(-1), 1, atol=1e-5)
    assert looks.weight.shape[2] == len(gaze.TOKENS)
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

    found = gaze.look(policy, episode, every=150)
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
    np.testing.assert_allclose(
        found.effect[0, :, camera, channel], right, rtol=0.02, atol=2e-4
    )


def test_the_camera_explorer_goes_to_both_ends(looks):
    explorer = gaze.camera_explorer(looks)
    shown = set()
    last, k = len(looks.seconds) - 1, looks.weight.shape[1]
    for moment in (0, last):
        for action in (1, k):
            explorer.set(moment=moment, action=action)
            shown.add(explorer.figure_html)
            weight = looks.weight[moment, action - 1]
            assert f"{100 * weight[2:6].sum():.0f} % of the attention" in explorer.says
            assert f"{100 * weight[6:].sum():.0f} % on the wrist" in explorer.says
            largest = float(re.search(r"([\d.]+) degrees", explorer.says)[1])
            effect = looks.effect[moment, action - 1].max()
            assert largest == pytest.approx(effect, abs=0.006)
    assert explorer.errors == []
    assert len(shown) == 4
    assert explorer.controls["moment"].max == last
    assert explorer.controls["action"].max == k
