"""Lesson 05: tokens and attention. Right answers come from torch's own modules."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from act_minimal.backbones import Grid, sinusoid_2d

from ..figures.lesson_05_parts import sinusoid
from ..toolkit.checks import (
    Wrong,
    attempt,
    each_case,
    exercise,
    same,
    two_parts,
)
from .tensors import CLOSE, agrees, draw, same_gradients, tensor, weights_of

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
    each_case(
        {"length 9, width 6": (9, 6), "length 12, width 10": (12, 10)},
        lambda case: _examine_sinusoid(function, *case),
        "take both, length and width, from the arguments",
    )


def _examine_sinusoid(function: Callable, length: int, width: int) -> None:
    answer = attempt(function, length, width)
    shape = length, width
    found = tensor(answer, shape, "a row is a position", of_any_kind=True)

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
    if not agrees(found, right, mistakes):
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
        "score.masked_fill(~mask, -math.inf) before softmax(-1): a masked key gets no "
        "weight, and the others still add up to one.",
    ),
    praise="The weights of a query add up to one over the keys that are not masked.",
)
def check_attend(function: Callable) -> None:
    """`function(query (..., T, d), key, value (..., S, d), mask)`: (..., T, d)."""
    each_case(
        {"T, S, d = 4, 5, 8": (2, 3, 4, 5, 8), "T, S, d = 6, 7, 9": (3, 4, 6, 7, 9)},
        lambda sizes: _examine_attend(function, *sizes),
        "take all sizes from the tensors, d from query.shape[-1]",
    )


def _examine_attend(
    function: Callable, batch: int, heads: int, t: int, s: int, d: int
) -> None:
    q, k, v = (draw(batch, heads, n, d, seed=n + i) for i, n in enumerate((t, s, s)))
    mask = torch.ones(batch, 1, 1, s).bool()
    mask[:, ..., -1] = mask[0, ..., -3] = False
    found = attempt(function, q.clone(), k.clone(), v.clone(), None)
    found = tensor(found, tuple(q.shape), "as many rows as there are queries")

    def weigh(scale: float, axis: int = -1, mask: Tensor | None = None) -> Tensor:
        score = (q / scale) @ k.transpose(-1, -2)
        if mask is not None:
            score = score.masked_fill(~mask, -math.inf)
        return score.softmax(axis)

    right = nn.functional.scaled_dot_product_attention
    mistakes = {
        "the scores are not divided by the square root of d": weigh(1) @ v,
        "divide by the square root of d, not by d": weigh(d) @ v,
        "the softmax runs over the queries; it should run over the keys, the last "
        "axis": weigh(d**0.5, -2) @ v,
        "there is no softmax: scores are used as weights": (
            (q / d**0.5) @ k.transpose(-1, -2) @ v
        ),
        "the keys are averaged; the values should be": weigh(d**0.5) @ k,
        "multiplied by the square root of d, where you should divide": weigh(d**-0.5)
        @ v,
    }
    if not agrees(found, right(q, k, v), mistakes):
        raise Wrong("the output differs from softmax(Q K^T / sqrt(d)) V")
    answer = attempt(function, q.clone(), k.clone(), v.clone(), mask.clone())
    found = tensor(answer, tuple(q.shape), "with a mask too")
    score = (q / d**0.5) @ k.transpose(-1, -2)
    mistakes = {
        "`mask` is not used": weigh(d**0.5) @ v,
        "the mask is upside down: it is True where attention is allowed": weigh(
            d**0.5, mask=~mask
        )
        @ v,
        "masked weights are set to 0 after the softmax, so the rest no longer adds "
        "up to one; set scores to -inf before it": (weigh(d**0.5) * mask) @ v,
        "masked scores are set to 0, which still gets weight exp(0); set them to "
        "-inf": (score * mask).softmax(-1) @ v,
        "the mask is added to the scores as 0 and 1; masked scores should be -inf": (
            score + mask
        ).softmax(-1)
        @ v,
    }
    wanted = right(q, k, v, mask)
    if not agrees(found, wanted, mistakes):
        raise Wrong("without a mask the output is right, with a mask it is not")
    same_gradients(answer, wanted, {"query": q, "key": k, "value": v})


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
    each_case(
        {
            "x (2, 6, 8) and 4 heads": (2, 6, 8, 4),
            "x (2, 6, 8) and 2 heads": (2, 6, 8, 2),
            "x (3, 7, 12) and 4 heads": (3, 7, 12, 4),
        },
        lambda case: _examine_split(function, *case),
        "take the heads from the argument, and all other sizes from x",
    )


def _examine_split(function: Callable, b: int, t: int, width: int, heads: int) -> None:
    leaf = draw(b, t, width, seed=21)
    answer = found = attempt(function, leaf.clone(), heads)
    x, each = leaf.detach(), width // heads
    split = x.view(b, t, heads, each)
    if torch.is_tensor(found) and same(found.detach(), split, **CLOSE):
        raise Wrong(
            "the shape is (B, T, heads, D / heads): swap the axes of tokens and heads"
        )
    found = tensor(found, (b, heads, t, each), "(B, heads, T, D / heads)")
    mistakes = {
        "the shape is right but the numbers are mixed: reshape to (B, heads, T, ...) "
        "cuts the tokens up. Unflatten the last axis first, then transpose": x.reshape(
            b, heads, t, each
        ),
        "head h takes numbers that lie `heads` apart here; it should take a slice of "
        "neighbours: unflatten to (heads, D / heads), not the other way round": x.view(
            b, t, each, heads
        ).permute(0, 3, 1, 2),
    }
    if not agrees(found, split.permute(0, 2, 1, 3), mistakes):
        raise Wrong("the shape is right, but numbers are in other places")
    right = torch.stack(leaf.chunk(heads, -1), 1)
    same_gradients(answer, right, {"x": leaf})


# --- pictures -------------------------------------------------------------------------


@exercise(
    "05.image-tokens",
    minutes=12,
    hints=(
        "Cell (i, j) of the map becomes token i * w + j: flatten(2) numbers the cells "
        "of (B, C, h, w) in this order, and .mT puts the channels last.",
        'w.linear("proj", ...) makes D numbers of the C channels of each cell.',
        "rows = w.wave(h)[:, None].expand(h, n, -1), columns = w.wave(n)[None]."
        "expand(h, n, -1); join them on the last axis, then flatten(0, 1).",
    ),
    praise="A cell's position says its row and its column, whatever the map's size.",
)
def check_image_tokens(function: Callable) -> None:
    """`function(w, features (B, C, h, w))`: (B, h w, D) and (h w, D)."""
    each_case(
        {
            "features (2, 10, 3, 5) and D = 8": ((2, 10, 3, 5), 8),
            "features (3, 12, 4, 6) and D = 12": ((3, 12, 4, 6), 12),
        },
        lambda case: _examine_image_tokens(function, *case),
        "take all sizes from `features` and from the weights",
    )


def _examine_image_tokens(
    function: Callable, shape: tuple[int, int, int, int], width: int
) -> None:
    torch.manual_seed(14)
    b, channels, h, n = shape
    grid = Grid(channels, width)
    features = draw(*shape, seed=15)
    answer = attempt(function, weights_of(grid), features.clone())
    answer = two_parts(answer, "tensors are wanted: tokens and positions")
    remark = "one token for each of the h w cells, of D numbers each"
    tokens = tensor(answer[0], (b, h * n, width), remark)
    cells = grid(features)  # (B, h w, D)
    down = features.mT.flatten(2).mT
    place = sinusoid_2d(h, n, width)
    mistakes = {
        "the cells are numbered column by column; token i * w + j is cell (i, j)": (
            grid.proj(down)
        ),
        "reshape mixes channels and cells: flatten the cells, then swap the axes": (
            grid.proj(features.reshape(b, h * n, channels))
        ),
        "positions are added to the tokens here; return them apart: the encoder adds "
        "them to queries and keys only": cells + place,
        "proj has a bias, too: use w.linear": cells - grid.proj.bias,
    }
    if not agrees(tokens, cells, mistakes):
        raise Wrong("the tokens differ: each is proj of the channels of one cell")
    remark = "a row a cell, the same for all samples"
    where = tensor(answer[1], (h * n, width), remark)
    rows, columns = place.chunk(2, -1)
    along = place.view(h, n, width).transpose(0, 1).flatten(0, 1)
    mistakes = {
        "row and column are swapped: the first half of the channels holds the row": (
            torch.cat([columns, rows], -1)
        ),
        "the cells are numbered column by column here; the tokens row by row": along,
        "positions count the cells 0, 1, 2, ... along one line; give each cell its row "
        "and its column": sinusoid(h * n, width),
        "both halves hold the row": torch.cat([rows, rows], -1),
        "both halves hold the column": torch.cat([columns, columns], -1),
    }
    if not agrees(where, place, mistakes):
        raise Wrong("the tokens are right; the positions differ from [row, column]")
    leaves = {"the features": features, "proj": grid.proj.weight}
    same_gradients(answer[0], cells, leaves)
