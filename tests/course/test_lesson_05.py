"""Lesson 05: its checks, its pieces, its numbers, its widget."""

import math
import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from act_minimal.checkpoint import load_policy
from course.figures import lesson_05_attention as attention
from course.figures import lesson_05_parts as parts
from course.figures.lesson_05_parts import Weights
from course.toolkit.paths import ROOT

from .helpers import answers, check_readable, spoils, sweep

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
        (lambda n, d: turns(*waves(n, d)) + 0.01, "at position 1 expected"),
        (lambda n, d: turns(*waves(n, d))[None], "expected shape (9, 6)"),
        (lambda n, d: "no", "a tensor is wanted"),
        (lambda n, d: turns(*waves(n, 6)), "take both, length and width"),
        (lambda n, d: turns(*waves(9, d)), "take both, length and width"),
        (
            lambda n, d: turns(*waves(n, d, base=10000.0 ** (d / 6))),
            "right for length 9, width 6, wrong for length 12, width 10",
        ),
    ],
)


def weigh(q, k, mask=None, scale=None, axis=-1, fill=-math.inf):
    score = q @ k.mT / (scale or q.shape[-1] ** 0.5)
    if mask is not None:
        score = score.masked_fill(~mask, fill)
    return score.softmax(axis)


def none_or(mask, change):
    return None if mask is None else change(mask)


def wiping(q, k, v, m):
    """The numbers are right, but those that the gradient needs are gone."""
    weight = weigh(q, k, m)
    found = weight @ v
    weight.zero_()
    return found


test_attention = answers(
    "05.attend",
    right=[
        (lambda q, k, v, m: weigh(q, k, m) @ v, "add up to one"),
        (lambda q, k, v, m: F.scaled_dot_product_attention(q, k, v, m), ""),
        (lambda q, k, v, mask: weigh(q, k, mask).matmul(v), ""),
    ],
    wrong=[
        (lambda q, k, v, m: (weigh(q, k, m) @ v).double(), "yours is of float64"),
        (wiping, "no gradient can be computed"),
        (lambda q, k, v, m: weigh(q, k, m, 1) @ v, "not divided"),
        (lambda q, k, v, m: weigh(q, k, m, 8) @ v, "not by d"),
        (lambda q, k, v, m: weigh(q, k, m, 8**-0.5) @ v, "where you should divide"),
        (lambda q, k, v, m: weigh(q, k, m, axis=-2) @ v, "runs over the queries"),
        (lambda q, k, v, m: q @ k.mT @ v / 8**0.5, "no softmax"),
        (lambda q, k, v, m: weigh(q, k) @ k, "keys are averaged"),
        (lambda q, k, v, m: weigh(q, k) @ v, "`mask` is not used"),
        (
            lambda q, k, v, m: weigh(q, k, none_or(m, torch.logical_not)) @ v,
            "upside down",
        ),
        (
            lambda q, k, v, m: weigh(q, k) * (1 if m is None else m) @ v,
            "after the softmax",
        ),
        (lambda q, k, v, m: weigh(q, k, m, fill=0.0) @ v, "still gets weight"),
        (
            lambda q, k, v, m: (
                ((q @ k.mT / 8**0.5) + (0 if m is None else m)).softmax(-1) @ v
            ),
            "added to the scores",
        ),
        (lambda q, k, v, m: weigh(q, k), "expected shape"),
        (lambda q, k, v, m: q @ v, "raised RuntimeError"),
        (lambda q, k, v, m: (weigh(q, k, m) @ v).detach(), "respect to query"),
        (lambda q, k, v, m: weigh(q, k, m).detach() @ v, "respect to query"),
        (lambda q, k, v, m: weigh(q, k, m) @ v.data, "respect to value"),
        (lambda q, k, v, m: (weigh(q, k, m) @ v).numpy(), "raised RuntimeError"),
        (lambda q, k, v, m: weigh(q, k, m, 8**0.5) @ v, "d from query.shape[-1]"),
        (
            lambda q, k, v, m: (weigh(q, k, m) @ v).expand(2, 3, 4, 8),
            "take all sizes from the tensors",
        ),
    ],
)


test_heads = answers(
    "05.split-heads",
    right=[(lambda x, h: x.unflatten(-1, (h, -1)).transpose(1, 2), "slice")],
    wrong=[
        (lambda x, h: x.double().unflatten(-1, (h, -1)).transpose(1, 2), "of float64"),
        (lambda x, h: x.unflatten(-1, (h, -1)), "swap the axes"),
        (lambda x, h: x.reshape(len(x), h, x.shape[1], -1), "numbers are mixed"),
        (
            lambda x, h: x.unflatten(-1, (-1, h)).permute(0, 3, 1, 2),
            "numbers that lie `heads` apart",
        ),
        (lambda x, h: x.chunk(h, -1)[0], "expected shape (2, 4, 6, 2)"),
        (lambda x, h: x.unflatten(-1, (h, -1)).transpose(1, 2).flip(1), "other places"),
        (lambda x, h: x.unflatten(-1, (h, -1)).transpose(1, 3), "expected shape"),
        (lambda x, h: x.chunk(h, -1), "a tensor is wanted, this is tuple"),
        (
            lambda x, h: x.unflatten(-1, (4, -1)).transpose(1, 2),
            "take the heads from the argument",
        ),
        (lambda x, h: x.view(len(x), x.shape[1], h), "raised RuntimeError"),
        (lambda x, h: x.view(2, 6, h, 8 // h).transpose(1, 2), "other sizes from x"),
        (
            lambda x, h: x.unflatten(-1, (h, 8 // h)).transpose(1, 2),
            "wrong for x (3, 7, 12) and 4 heads",
        ),
        (
            lambda x, h: x.detach().unflatten(-1, (h, -1)).transpose(1, 2),
            "the gradient with respect to x",
        ),
    ],
)


def layer(values=False, keys=True, stay=False, skip=True, post=False, masked=True):
    """An encoder layer as learners write it, with a mistake or without."""

    def write(w, x, position, mask=None):
        mask = mask if masked else None
        x = x + position if stay else x
        y = x if post else w.norm("norm1", x)
        place = y + position if keys and not stay else y
        y = w.attention("self_attn", place, place, place if values else y, mask)
        if post:
            x = w.norm("norm1", x + y)
            return w.norm("norm2", x + w.mlp(x))
        x = x + y if skip else y
        return (x if skip else 0) + w.mlp(w.norm("norm2", x))

    return write


def half_layer(w, x, position, mask=None):
    y = w.norm("norm1", x)
    return x + w.attention("self_attn", y + position, y + position, y, mask)


def in_place(w, x, position, mask=None):
    y = w.norm("norm1", x)
    x += w.attention("self_attn", y + position, y + position, y, mask)
    return x + w.mlp(w.norm("norm2", x))


test_the_encoder_layer = answers(
    "05.encoder-layer",
    right=[(layer(), "which tokens attend to which")],
    wrong=[
        (lambda *a: layer()(*a).double(), "yours is of float64"),
        (layer(values=True), "values have positions"),
        (layer(keys=False), "no positions"),
        (layer(stay=True), "added to x itself"),
        (layer(skip=False), "residuals are missing"),
        (layer(post=True), "post-norm"),
        (layer(masked=False), "not passed on"),
        (half_layer, "MLP is missing"),
        (lambda w, *a: half_layer(w, *a) + w.mlp(half_layer(w, *a)), "norm2 of x"),
        (lambda w, *a: w.mlp(w.norm("norm2", half_layer(w, *a))), "second residual"),
        (lambda w, x, *a: layer()(w, x.detach(), *a), "the gradient with respect to x"),
        (in_place, "changed its argument `x`"),
        (lambda w, x, position, mask: x, "output differs"),
        (lambda w, x, position, mask: x[:, :1], "keeps the shape"),
        (lambda w, x, position, mask: w.norm("norm9", x), "KeyError"),
        (lambda *a: layer()(*a)[:, :7], "take all sizes from the tensors"),
        (lambda *a: layer()(*a).view(3, -1, 64), "take all sizes from the tensors"),
    ],
)


def summary(
    masked=True,
    invert=False,
    place=True,
    read=0,
    first="cls",
    swap=False,
    batch=None,
    tokens=None,
):
    def write(w, qpos, action, is_pad):
        cls = w["cls"].expand(batch or len(qpos), 1, -1)
        own = [cls, w.linear("qpos_proj", qpos)[:, None]]
        own = own if first == "cls" else own[::-1]
        x = torch.cat([*own, w.linear("action_proj", action)], 1)
        seen = is_pad if invert else ~is_pad
        seen = nn.functional.pad(seen, (2, 0), value=True)
        position = w.sinusoid(tokens or x.shape[1]) * place
        x = w.encoder(x, position, seen if masked else None)
        a, b = w.linear("latent_proj", x[:, read]).chunk(2, -1)
        return (b, a) if swap else (a, b)

    return write


test_the_posterior = answers(
    "05.posterior",
    right=[(summary(), "padding has no say")],
    stubs=[(lambda w, q, a, p: (None, None), "")],
    wrong=[
        (
            spoils(summary(), lambda w, q, a, pad: pad.logical_not_()),
            "changed its argument `is_pad`",
        ),
        (lambda *a: [x.double() for x in summary()(*a)], "yours is of float64"),
        (summary(masked=False), "padded actions have influence"),
        (summary(invert=True), "upside down"),
        (summary(place=False), "positions are missing"),
        (summary(read=-1), "last token is read"),
        (summary(read=1), "token 1"),
        (summary(first="joints"), "before CLS"),
        (summary(swap=True), "swapped"),
        (lambda w, q, a, p: q, "two tensors"),
        (lambda w, q, a, p: (q, q), "cut it in two"),
        (
            lambda w, q, a, p: (summary()(w, q, a, p)[0], torch.zeros(3, 16)),
            "the log variance is not",
        ),
        (
            lambda w, q, a, p: [x.detach() for x in summary()(w, q, a, p)],
            "the gradient with respect to the actions",
        ),
        (
            lambda w, q, a, p: summary()(w, q.detach(), a, p),
            "the gradient with respect to the joints",
        ),
        (lambda w, q, a, p: summary()(w, q, a, p.float()), "raised TypeError"),
        (summary(batch=3), "take all sizes from the tensors"),
        (summary(tokens=52), "from the shapes of the weights in w"),
        (
            lambda *a: torch.cat(summary()(*a), 1).split(16, 1),
            "right for B, T, D, k, Z = 3, 7, 64, 50, 16, wrong for",
        ),
    ],
)


def pictures(write):
    """Image tokens as learners write them, with `write` for the positions."""

    def tokens(w, features):
        return w.linear("proj", features.flatten(2).mT), write(w, *features.shape[2:])

    return tokens


def places(w, h, n, first="rows", turned=False, second="columns"):
    rows = w.wave(h)[:, None].expand(h, n, -1)
    columns = w.wave(n)[None].expand(h, n, -1)
    both = [rows if name == "rows" else columns for name in (first, second)]
    cells = torch.cat(both, -1)
    return (cells.transpose(0, 1) if turned else cells).flatten(0, 1)


def seen(change):
    """Right positions, and the tokens by `change`."""
    return lambda w, f: (change(w, f), places(w, *f.shape[2:]))


test_image_tokens = answers(
    "05.image-tokens",
    right=[(pictures(places), "its row and its column")],
    stubs=[(lambda w, f: (None, None), "")],
    wrong=[
        (
            pictures(lambda *a: places(*a).numpy()),
            "a tensor is wanted, this is ndarray",
        ),
        (pictures(lambda *a: places(*a).double()), "yours is of float64"),
        (
            pictures(lambda w, h, n: places(w, h, n, "columns", second="rows")),
            "swapped",
        ),
        (pictures(lambda w, h, n: places(w, h, n, turned=True)), "tokens row by row"),
        (pictures(lambda w, h, n: places(w, h, n, second="rows")), "hold the row"),
        (pictures(lambda w, h, n: places(w, h, n, "columns")), "hold the column"),
        (pictures(lambda w, h, n: parts.sinusoid(h * n, 8)), "along one line"),
        (pictures(lambda w, h, n: places(w, h, n).expand(2, -1, -1)), "a row a cell"),
        (pictures(lambda w, h, n: places(w, h, n) + 1), "differ from [row, column]"),
        (seen(lambda w, f: w.linear("proj", f.mT.flatten(2).mT)), "column by column"),
        (seen(lambda w, f: w.linear("proj", f.reshape(2, 15, 10))), "reshape mixes"),
        (
            seen(lambda w, f: w.linear("proj", f.flatten(2).mT) + places(w, 3, 5)),
            "added to the tokens",
        ),
        (seen(lambda w, f: f.flatten(2).mT @ w["proj.weight"].T), "has a bias"),
        (seen(lambda w, f: f.flatten(2).mT), "of D numbers each"),
        (seen(lambda w, f: w.linear("proj", f.flatten(2))), "raised RuntimeError"),
        (
            seen(lambda w, f: w.linear("proj", f.detach().flatten(2).mT)),
            "the gradient with respect to the features",
        ),
        (lambda w, f: w.linear("proj", f.flatten(2).mT), "two tensors"),
        (pictures(lambda w, h, n: places(w, 3, 5)), "take all sizes from `features`"),
        (
            lambda w, f: (
                w.linear("proj", f.mT.mT.reshape(2, 10, 15).mT),
                places(w, *f.shape[2:]),
            ),
            "take all sizes from `features`",
        ),
    ],
)


def decoder(
    zeros=True,
    read="memory",
    keys="key",
    asks=True,
    last=True,
    own=True,
    mlp=True,
    size=None,
):
    def write(w, memory, key):
        query, one = w["queries"], w.part("decoder.0")
        x = torch.zeros(size or (len(memory), *query.shape))
        x = x if zeros else x + query
        if own:
            y = one.norm("norm1", x)
            x = x + one.attention("self_attn", y + query, y + query, y)
        y = one.norm("norm2", x)
        both = {"memory": memory, "key": key}
        ask = y + query if asks else y
        x = x + one.attention("cross_attn", ask, both[keys], both[read])
        x = x + one.mlp(one.norm("norm3", x)) if mlp else x
        return w.linear("action_head", w.norm("decoder_norm", x) if last else x)

    return write


test_the_decoder = answers(
    "05.decode",
    right=[(decoder(), "all at once")],
    wrong=[
        (lambda *a: decoder()(*a).double(), "yours is of float64"),
        (decoder(zeros=False), "begins as the queries"),
        (decoder(read="key"), "values of the cross-attention"),
        (decoder(keys="memory"), "keys of the cross-attention"),
        (decoder(asks=False), "lack the learned ones"),
        (decoder(last=False), "decoder_norm is missing"),
        (decoder(mlp=False), "MLP is missing"),
        (decoder(own=False), "self-attention of the queries"),
        (lambda w, m, k: decoder()(w, m, k).detach(), "respect to the memory"),
        (lambda w, m, k: decoder()(w, m.detach(), k), "respect to the memory"),
        (lambda w, m, k: decoder()(w, m, k)[:1], "of each sample"),
        (lambda w, m, k: decoder()(w, m, k).tolist(), "the gradient"),
        (lambda w, m, k: w["queries"], "one action for each query"),
        (decoder(size=(3, 50, 64)), "take all sizes from the tensors"),
        (
            lambda w, *a: decoder(size=(3, *w["queries"].shape))(w, *a),
            "right for B, T, D, k, Z = 3, 7, 64, 50, 16, wrong for",
        ),
    ],
)


def network(
    z="posterior", deviation=0.5, key=True, keep=(0, 1, 2), test="zeros", B=0, Z=0
):
    def write(w, batch, eps=None):
        mean = logvar = None
        if "action" in batch:
            seen = (batch[key] for key in ("qpos", "action", "is_pad"))
            mean, logvar = w.posterior(*seen)
            drawn = mean + (deviation * logvar).exp() * eps
            latent = {"posterior": drawn, "mean": mean, "noise": eps, "zeros": 0 * eps}[
                z
            ]
        else:
            size = B or len(batch["qpos"]), Z or w["latent_proj.weight"].shape[1]
            latent = torch.full(size, float(test != "zeros"))
        x, position = w.tokens(latent, batch)
        memory = w.encoder(x, position)
        actions = w.decode(memory, memory + position if key else memory)
        return tuple((actions, mean, logvar)[i] for i in keep)

    return write


def only_in_training(w, batch, eps=None):
    found = network()(w, batch, eps)
    return found if eps is not None else (found[0], found[0], found[0])


def detached(w, batch, eps=None):
    return [x if x is None else x.detach() for x in network()(w, batch, eps)]


class Own(Weights):
    """Weights whose tokens are those of joints and cube, whatever the batch holds."""

    def __init__(self, w):
        super().__init__(w.state, w.heads, w.pieces)

    def tokens(self, z, batch):
        own = [("qpos_proj", batch["qpos"]), ("env_proj", batch["env_state"])]
        own = [("latent_proj", z), *own]
        return torch.stack([self.linear(*one) for one in own], 1), self["position"]


class Blind(Weights):
    """Weights that read no picture."""

    def __init__(self, w):
        super().__init__(w.state, w.heads, w.pieces)

    def tokens(self, z, batch):
        return super().tokens(z, {k: x for k, x in batch.items() if k != "features"})


test_the_whole_network = answers(
    "05.act",
    right=[(network(), "zeros on the robot")],
    wrong=[
        (
            spoils(network(), lambda w, batch, eps: batch.pop("qpos")),
            "changed its argument `batch`",
        ),
        (
            spoils(network(), lambda w, batch, eps: w["position"].data.zero_()),
            "changed its argument `w`",
        ),
        (lambda w, *a: network()(Own(w), *a), "env_state: w.tokens(z, batch) makes"),
        (lambda w, *a: network()(Blind(w), *a), "not where a picture is"),
        (lambda *a: [x if x is None else x.double() for x in network()(*a)], "float64"),
        (network(z="mean"), "z is the mean alone"),
        (network(deviation=1), "exp(logvar / 2)"),
        (network(z="noise"), "z is the noise alone"),
        (network(z="zeros"), "that is for run time"),
        (network(key=False), "keys lack the positions"),
        (network(keep=(0, 2, 1)), "mean and log variance are swapped"),
        (network(keep=(0,)), "three things"),
        (network(keep=(1, 0, 2)), "the actions come first"),
        (network(test="ones"), "z is 0, the prior's mean"),
        (only_in_training, "there is no posterior"),
        (detached, "the gradient with respect to qpos"),
        (lambda w, batch, eps: network()(w, batch, -eps), "noise is added"),
        (lambda w, batch, eps: network()(w, batch, eps)[:1] + (None, None), "is None"),
        (lambda w, batch, eps: batch["actions"], "raised KeyError"),
        (network(Z=16), "from the shapes of the weights in w (your function raised"),
        (network(B=3), "take all sizes from the tensors"),
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


def test_the_pieces_read_images_as_the_package_does(batch):
    model, seen = parts.with_image(batch)
    assert seen["features"].shape == (4, 64, 12, 16)  # cells of 8 pixels
    eps = torch.randn(4, 16, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        actions, _, _ = parts.act(Weights(model), seen, eps)
        assert parts.difference(model, actions, seen, eps) < 1e-5
        moved = seen | {"features": seen["features"].flip(-1)}
        actions, _, _ = parts.act(Weights(model), moved, eps)
    assert parts.difference(model, actions, seen, eps) > 1e-3


def test_rows_of_the_decoder_exchange_nothing(batch):
    spread = parts.row_spread(parts.fresh(), batch)
    assert spread["self_attn"] < 1e-6 < 1e-2 < spread["cross_attn"]
    model = parts.fresh()
    with torch.no_grad():  # rows that begin differently
        model.decoder[0].norm1.forward = lambda x: x + model.queries
    assert parts.row_spread(model, batch)["self_attn"] > 1e-2


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
def recorded():
    policy = load_policy(ROOT / "data/checkpoints/so100_pick_place_vision")
    episode = ROOT / "data/samples/vision/episode_0.hdf5"
    return attention.along(policy, episode, every=100)


def test_attention_adds_up_and_keypoints_are_in_the_image(recorded):
    np.testing.assert_allclose(recorded.weight.sum(-1), 1, atol=1e-5)
    assert recorded.weight.shape[2] == len(attention.TOKENS)
    height, width = recorded.images.shape[2:4]
    assert (recorded.points >= 0).all()
    assert (recorded.points[..., 0] <= width - 1).all()
    assert (recorded.points[..., 1] <= height - 1).all()
    assert recorded.seconds[1] == pytest.approx(100 / 30)


def test_a_keypoint_s_effect_is_what_the_policy_does():
    """Moved in the network's own code, through a hook, and read off in degrees."""
    policy = load_policy(ROOT / "data/checkpoints/so100_pick_place_vision")
    episode = ROOT / "data/samples/vision/episode_0.hdf5"
    from act_minimal.episodes import load_episode

    found = attention.along(policy, episode, every=150)
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


def test_the_camera_explorer_goes_to_both_ends(recorded):
    explorer = attention.camera_explorer(recorded)
    check_readable(explorer)
    last, k = len(recorded.seconds) - 1, recorded.weight.shape[1]
    for moment, action in sweep(explorer, 4, moment=(0, last), action=(1, k)):
        weight = recorded.weight[moment, action - 1]
        assert f"{100 * weight[2:6].sum():.0f} % of the attention" in explorer.says
        assert f"{100 * weight[6:].sum():.0f} % on the wrist" in explorer.says
        largest = float(re.search(r"([\d.]+) degrees", explorer.says)[1])
        effect = recorded.effect[moment, action - 1].max()
        assert largest == pytest.approx(effect, abs=0.006)
    assert explorer.controls["moment"].max == last
    assert explorer.controls["action"].max == k
