"""Lesson 05: the six pieces of ACT. Right answers come from torch's own modules."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from act_minimal.model import CVAEEncoder, DecoderLayer, EncoderLayer

from ..figures.lesson_05_parts import Weights, fresh
from ..toolkit.checks import (
    Wrong,
    attempt,
    exercise,
    is_right,
    name_the_mistake,
    same,
    two_parts,
)

CLOSE = {"atol": 1e-3}


def _tensor(answer: Any, shape: tuple[int, ...], remark: str) -> Tensor:
    """The learner's answer as float64, if it has the right shape."""
    try:
        found = torch.as_tensor(answer).detach().double()
    except Exception:
        raise Wrong(f"a tensor is wanted, this is {type(answer).__name__}") from None
    if tuple(found.shape) != shape:
        raise Wrong(f"expected shape {shape}, found {tuple(found.shape)}: {remark}")
    return found


def _draw(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


# --- positions ------------------------------------------------------------------------


@exercise(
    "05.sinusoid",
    minutes=8,
    hints=(
        "Channels 2j and 2j + 1 share one rate: 10000 to the power -2j / width.",
        "position[:, None] * rate gives all angles at once: (length, width / 2).",
        "torch.stack([angle.sin(), angle.cos()], -1) is (length, width / 2, 2); "
        "flatten(1) puts sine and cosine next to each other.",
    ),
    praise="Fast channels tell neighbours apart, slow ones tell early from late.",
)
def check_sinusoid(function: Callable) -> None:
    """`function(length, width)` gives the table (length, width)."""
    length, width = 9, 6
    found = _tensor(
        attempt(function, length, width), (length, width), "a row is a position"
    )

    def table(rate: Callable, first: Callable, second: Callable, start: int = 0):
        rows = [
            [(first, second)[c % 2]((p + start) * rate(c)) for c in range(width)]
            for p in range(length)
        ]
        return torch.tensor(rows, dtype=torch.float64)

    def right_rate(c: int) -> float:
        return 10000.0 ** (-2 * (c // 2) / width)

    right = table(right_rate, math.sin, math.cos)
    mistakes = {
        "all sines come first and all cosines after; ACT has them in turn: stack "
        "them on a new last axis, then flatten": torch.cat(
            [right[:, ::2], right[:, 1::2]], 1
        ),
        "sine comes first, cosine second": table(right_rate, math.cos, math.sin),
        "the exponent is -2j / width for channels 2j and 2j + 1; yours falls half as "
        "fast": table(lambda c: 10000.0 ** (-(c // 2) / width), math.sin, math.cos),
        "each channel has a rate of its own here; 2j and 2j + 1 share one": table(
            lambda c: 10000.0 ** (-c / width), math.sin, math.cos
        ),
        "positions count from 0": table(right_rate, math.sin, math.cos, 1),
        "the sign of the exponent is lost: rates fall from 1, they do not rise": table(
            lambda c: 1 / right_rate(c), math.sin, math.cos
        ),
    }
    if not is_right(found, right, mistakes, **CLOSE):
        raise Wrong(
            f"at position 1 expected {[round(x, 3) for x in right[1].tolist()]}, found "
            f"{[round(x, 3) for x in found[1].tolist()]}"
        )


# --- attention ------------------------------------------------------------------------


@exercise(
    "05.attend",
    minutes=10,
    hints=(
        "Every query is compared with every key: query @ key.mT is (..., T, S).",
        "Divide by the square root of d before the softmax, or it saturates.",
        "score.masked_fill(~look, -math.inf) before softmax(-1): what may not be "
        "looked at gets no weight, and the rest still adds up to one.",
    ),
    praise="Weights of a query add up to one over the keys it may look at.",
)
def check_attend(function: Callable) -> None:
    """`function(query (..., T, d), key, value (..., S, d), look)`: (..., T, d)."""
    q, k, v = (_draw(2, 3, n, 8, seed=n + i) for i, n in enumerate((4, 5, 5)))
    look = torch.tensor([True, True, False, True, False])
    found = attempt(function, q.clone(), k.clone(), v.clone(), None)
    found = _tensor(found, tuple(q.shape), "as many rows as there are queries")

    def weigh(scale: float, axis: int = -1, mask: Tensor | None = None) -> Tensor:
        score = (q / scale) @ k.transpose(-1, -2)
        if mask is not None:
            score = score.masked_fill(~mask, -math.inf)
        return score.softmax(axis)

    right = nn.functional.scaled_dot_product_attention
    mistakes = {
        "the scores are not divided by the square root of d": weigh(1) @ v,
        "divide by the square root of d, not by d": weigh(8.0) @ v,
        "the softmax runs over the queries; it should run over the keys, the last "
        "axis": weigh(8**0.5, -2) @ v,
        "there is no softmax: scores are used as weights": (
            (q / 8**0.5) @ k.transpose(-1, -2) @ v
        ),
        "the keys are averaged; the values should be": weigh(8**0.5) @ k,
        "multiplied by the square root of d, where you should divide": weigh(8**-0.5)
        @ v,
    }
    if not is_right(found, right(q, k, v), mistakes, **CLOSE):
        raise Wrong("the output differs from softmax(Q K^T / sqrt(d)) V")
    found = attempt(function, q.clone(), k.clone(), v.clone(), look.clone())
    found = _tensor(found, tuple(q.shape), "with a mask too")
    score = (q / 8**0.5) @ k.transpose(-1, -2)
    mistakes = {
        "`look` is not used": weigh(8**0.5) @ v,
        "the mask is upside down: True is where a query may look": weigh(
            8**0.5, mask=~look
        )
        @ v,
        "masked weights are set to 0 after the softmax, so the rest no longer adds "
        "up to one; set scores to -inf before it": (weigh(8**0.5) * look) @ v,
        "masked scores are set to 0, which still gets weight exp(0); set them to "
        "-inf": (score * look).softmax(-1) @ v,
    }
    if not is_right(found, right(q, k, v, look.expand(4, 5)), mistakes, **CLOSE):
        raise Wrong("with a mask the output is another one than it should be")


@exercise(
    "05.split-heads",
    minutes=5,
    hints=(
        "Which numbers of a token belong to head 0? The first D / heads of them.",
        "x.unflatten(-1, (heads, -1)) is (B, T, heads, D / heads).",
        "Then swap the axes of tokens and heads: transpose(1, 2).",
    ),
    praise="Each head sees its own slice of every token.",
)
def check_split_heads(function: Callable) -> None:
    """`function(x (B, T, D), heads)` gives (B, heads, T, D / heads)."""
    x = torch.arange(2.0 * 6 * 8).view(2, 6, 8)
    found = attempt(function, x.clone(), 4)
    split = x.view(2, 6, 4, 2)
    if torch.is_tensor(found) and same(found.detach(), split, **CLOSE):
        raise Wrong(
            "the shape is (B, T, heads, D / heads): swap the axes of tokens and heads"
        )
    found = _tensor(found, (2, 4, 6, 2), "(B, heads, T, D / heads)")
    mistakes = {
        "the shape is right but the numbers are mixed: reshape to (B, heads, T, ...) "
        "cuts the tokens up. Unflatten the last axis first, then transpose": x.reshape(
            2, 4, 6, 2
        ),
        "head h takes every fourth number here; it should take a slice of neighbours: "
        "unflatten to (heads, D / heads), not the other way round": x.view(
            2, 6, 2, 4
        ).permute(0, 3, 1, 2),
    }
    if not is_right(found, split.permute(0, 2, 1, 3), mistakes, **CLOSE):
        raise Wrong("the shape is right, but numbers are in other places")


# --- layers ---------------------------------------------------------------------------


def _random_layer(kind: Any, seed: int) -> Any:
    """A layer of the package whose norms and biases do something."""
    torch.manual_seed(seed)
    layer = kind(fresh().config).eval()
    for parameter in layer.parameters():
        with torch.no_grad():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return layer


def _torch_attention(layer: Any, name: str) -> Callable:
    """The same weights in torch's own module."""
    mine = getattr(layer, name)
    width = mine.in_proj_weight.shape[1]
    other = nn.MultiheadAttention(width, mine.heads, batch_first=True)
    other.load_state_dict(mine.state_dict())

    def call(query: Tensor, key: Tensor, value: Tensor, look: Tensor | None = None):
        hidden = None if look is None else ~look
        return other(query, key, value, key_padding_mask=hidden, need_weights=False)[0]

    return call


@exercise(
    "05.encoder-layer",
    minutes=10,
    hints=(
        "Two halves of one form: x + f(norm(x)). The first f is attention, the second "
        "the MLP.",
        "Queries and keys are y + position; the values are y alone.",
        'x = x + w.attention("self_attn", place, place, y, look), then the MLP of '
        'w.norm("norm2", x).',
    ),
    praise="Positions say where to look; they are not in what is read there.",
)
def check_encoder_layer(function: Callable) -> None:
    """`function(w, x (B, T, D), position (T, D), look)` gives (B, T, D)."""
    layer = _random_layer(EncoderLayer, 3)
    attention = _torch_attention(layer, "self_attn")
    x, position = _draw(2, 7, 64, seed=1), _draw(7, 64, seed=2)
    look = torch.ones(2, 7, dtype=torch.bool)
    look[1, 5:] = False

    def one(
        *,
        values: bool = False,
        keys: bool = True,
        stay: bool = False,
        skip: bool = True,
    ) -> Tensor:
        start = x + position if stay else x
        y = layer.norm1(start)
        place = y if stay or not keys else y + position
        y = attention(place, place, place if values else y, look)
        h = start + y if skip else y
        return h + layer.mlp(layer.norm2(h)) if skip else layer.mlp(layer.norm2(h))

    with torch.no_grad():
        w = Weights(layer)
        found = attempt(function, w, x.clone(), position.clone(), look.clone())
        found = _tensor(found, (2, 7, 64), "a layer keeps the shape")
        h = x + attention(x + position, x + position, x, look)
        post = layer.norm1(h)
        post = layer.norm2(post + layer.mlp(post))
        y = layer.norm1(x)
        half = x + attention(y + position, y + position, y, look)
        free = x + attention(y + position, y + position, y)
        mistakes = {
            "the values have positions in them: queries and keys get them, values do "
            "not": one(values=True),
            "no positions: queries and keys should be y + position": one(keys=False),
            "position is added to x itself; it should only enter queries and keys": one(
                stay=True
            ),
            "the residuals are missing: x + attention, then x + MLP": one(skip=False),
            "this is post-norm, norm(x + f(x)), as the original; here the norm comes "
            "first: x + f(norm(x))": post,
            "the MLP is missing": half,
            "the MLP should see norm2 of x": half + layer.mlp(half),
            "`look` is not passed on to the attention": free
            + layer.mlp(layer.norm2(free)),
        }
        if not is_right(found, one(), mistakes, **CLOSE):
            raise Wrong("the output differs; compare each line with the maths")


@exercise(
    "05.posterior",
    minutes=12,
    hints=(
        "Three kinds of tokens, in this order: CLS, joints, k actions: (B, 2 + k, D).",
        "CLS and joints are always there: two True before ~is_pad.",
        "The encoder's output at token 0 is the summary; latent_proj makes 2 Z numbers "
        "of it, and chunk(2, -1) cuts them into mean and log variance.",
    ),
    praise="One token gathers the whole chunk, and padding has no say.",
)
def check_posterior(function: Callable) -> None:
    """`function(w, qpos (B, S), action (B, k, A), is_pad (B, k))`: two (B, Z)."""
    config = fresh(seed=5).config
    package = CVAEEncoder(config).eval()
    k = config.chunk_size
    qpos, action = _draw(3, 6, seed=6), _draw(3, k, 6, seed=7)
    is_pad = torch.arange(k) >= torch.tensor([[k], [k // 2], [2]])
    with torch.no_grad():
        w = Weights(package)
        found = attempt(function, w, qpos.clone(), action.clone(), is_pad.clone())
        wanted = "tensors are wanted: mean and log variance, (B, Z) each"
        found = two_parts(found, wanted)
        shape, remark = (3, config.latent_dim), "read one token, CLS, and cut it in two"
        mu, logvar = (_tensor(x, shape, remark) for x in found)
        right = tuple(package(qpos, action, is_pad))
        swapped = "mean and log variance are swapped: the mean comes first"
        if is_right((mu, logvar), right, {swapped: right[::-1]}, **CLOSE):
            return

        def variant(look: Tensor, place: Any, read: int = 0, swap: bool = False):
            own = [package.cls.expand(3, 1, -1), package.qpos_proj(qpos)[:, None]]
            x = torch.cat(
                [*(own[::-1] if swap else own), package.action_proj(action)], 1
            )
            x = package.encoder(x, place, nn.functional.pad(look, (2, 0), value=True))
            return package.latent_proj(x[:, read]).chunk(2, -1)[0]

        everywhere, place = torch.ones_like(is_pad), package.position
        mistakes = {
            "padded actions have influence: pass ~is_pad, with two True before it, as "
            "`look`": variant(everywhere, place),
            "the mask is upside down: `look` is True where there is something to see": (
                variant(is_pad, place)
            ),
            "positions are missing: w.sinusoid(2 + k)": variant(~is_pad, 0 * place),
            "the last token is read; CLS is token 0": variant(~is_pad, place, -1),
            "token 1, the joints, is read; CLS is token 0": variant(~is_pad, place, 1),
            "the joints come before CLS; CLS should be token 0": variant(
                ~is_pad, place, swap=True
            ),
        }
        name_the_mistake(mu, mistakes, **CLOSE)
        raise Wrong("mean or log variance differ; is every token in its place?")


@exercise(
    "05.decode",
    minutes=12,
    hints=(
        "x begins as zeros (B, k, D). The learned queries are its positions: they are "
        "added to queries and keys, as positions in the encoder.",
        "The cross-attention asks `key` (memory with positions) and reads `memory`.",
        "Three halves x + f(norm(x)): self_attn, cross_attn, mlp; then decoder_norm, "
        "then action_head.",
    ),
    praise="k questions go in, k actions come out, all at once.",
)
def check_decode(function: Callable) -> None:
    """`function(w, memory (B, T, D), key (B, T, D))` gives actions (B, k, A)."""
    model = fresh(seed=9)
    layer = _random_layer(DecoderLayer, 10)
    model.decoder[0] = layer
    with torch.no_grad():
        model.decoder_norm.weight.add_(_draw(64, seed=13))  # so that it can be missed
    own, cross = (_torch_attention(layer, n) for n in ("self_attn", "cross_attn"))
    memory, position = _draw(2, 5, 64, seed=11), _draw(5, 64, seed=12)
    key, query = memory + position, model.queries

    def one(
        *,
        start: Any = None,
        value: Tensor = memory,
        asks: bool = True,
        last: bool = True,
    ) -> Tensor:
        x = torch.zeros(2, *query.shape) if start is None else start
        y = layer.norm1(x)
        x = x + own(y + query, y + query, y)
        y = layer.norm2(x)
        x = x + cross(y + query if asks else y, key, value)
        x = x + layer.mlp(layer.norm3(x))
        return model.action_head(model.decoder_norm(x) if last else x)

    with torch.no_grad():
        found = attempt(function, Weights(model), memory.clone(), key.clone())
        shape = (2, model.config.chunk_size, 6)
        found = _tensor(found, shape, "one action for each query, of each sample")
        skipped = torch.zeros(2, *query.shape)
        skipped = skipped + cross(layer.norm2(skipped) + query, key, memory)
        skipped = skipped + layer.mlp(layer.norm3(skipped))
        mistakes = {
            "x begins as the queries; it begins as zeros, and the queries are its "
            "positions": one(start=query.expand(2, -1, -1)),
            "the cross-attention reads `key`; it should compare with `key` and read "
            "`memory`": one(value=key),
            "the cross-attention's queries lack the learned ones: y + query": one(
                asks=False
            ),
            "decoder_norm is missing before action_head": one(last=False),
            "the self-attention of the queries is missing": model.action_head(
                model.decoder_norm(skipped)
            ),
        }
        if not is_right(found, one(), mistakes, **CLOSE):
            raise Wrong("the actions differ; compare each line with the maths")
