"""Lesson 02: windows with padding, the masked loss, receding horizon, a rule."""

from collections.abc import Callable

import numpy as np
import torch

from ..toolkit.checks import (
    Wrong,
    attempt,
    each_case,
    exercise,
    is_right,
    number,
    numbers,
    same,
    told_apart,
    two_parts,
)


@exercise(
    "02.window",
    minutes=8,
    hints=(
        "Which ticks does the chunk want? t, t + 1, ... t + k - 1. Which exist?",
        "ticks = t + np.arange(k); is_pad = ticks >= len(actions).",
        "actions[np.minimum(ticks, len(actions) - 1)] repeats the last action.",
    ),
    praise="The chunk begins now, and every invented action is marked.",
)
def check_window(function: Callable) -> None:
    """`function(actions (T, A), t, k)` gives the chunk (k, A) and is_pad (k,)."""
    each_case(
        {"T, A = 9, 2": (9, 2), "T, A = 13, 3": (13, 3)},
        lambda shape: _examine_windows(function, shape),
        "take both from `actions`, the episode's length from len(actions)",
    )


def _examine_windows(function: Callable, shape: tuple[int, int]) -> None:
    actions, end = np.random.default_rng(2).normal(size=shape) + 3.0, shape[0]
    for t, k in ((2, 4), (end - 3, 5), (end - 1, 3), (end - 1, 1), (0, end)):
        answer = attempt(function, actions.copy(), t, k)
        answer = two_parts(
            answer,
            "things are wanted, the chunk (k, A) and is_pad (k,)",
            "one of the two, chunk or is_pad, is still missing",
        )
        chunk, is_pad = numbers(answer[0]), numbers(answer[1])
        _judge_window(actions, t, k, chunk, is_pad)
        kind = np.asarray(answer[1]).dtype
        if kind.kind != "b":
            raise Wrong(
                f"is_pad should hold True and False; yours is of type {kind}, and ~ "
                "means something else there"
            )


def _judge_window(
    actions: np.ndarray, t: int, k: int, chunk: np.ndarray, is_pad: np.ndarray
) -> None:
    # By the definition, one row after the other.
    rows, pads = [], []
    for i in range(k):
        rows.append(actions[t + i] if t + i < len(actions) else actions[-1])
        pads.append(t + i >= len(actions))
    wanted = (k, actions.shape[1])
    if chunk.shape != wanted:
        short = chunk.ndim == 2 and len(chunk) < k
        cut = " A chunk at the end is filled up, not cut off." if short else ""
        raise Wrong(f"the chunk should have shape {wanted}, not {chunk.shape}.{cut}")
    if is_pad.shape != (k,):
        raise Wrong(f"is_pad should have shape ({k},), not {is_pad.shape}")
    right, real = np.stack(rows), ~np.array(pads)
    where = f"for t = {t}, k = {k} and an episode of {len(actions)}"
    if not np.allclose(chunk[real], right[real]):
        late = actions[np.minimum(t + 1 + np.arange(k), len(actions) - 1)]
        if np.allclose(chunk, late) or np.allclose(chunk[real], late[real]):
            raise Wrong(
                "the chunk starts one tick late: its first action is the one at t"
            )
        if t and np.allclose(chunk[0], actions[t - 1]):
            raise Wrong("the chunk starts one tick early: actions[t] comes first")
        raise Wrong(
            f"{where}, the actions that exist are not the ones at t, t + 1, ..."
        )
    if np.array_equal(is_pad.astype(bool), real):
        raise Wrong("is_pad is the wrong way round: True marks what is filled in")
    if not np.array_equal(is_pad.astype(bool), ~real):
        found, expected = int(is_pad.sum()), int((~real).sum())
        raise Wrong(
            f"{where}, is_pad marks {found} actions, expected {expected}. The last "
            f"action that exists has number {len(actions) - 1}"
        )
    if pads[-1] and np.allclose(chunk[~real], 0.0):
        raise Wrong(
            "the padding is zeros. An arm could not follow a jump to zero; repeat the "
            "last action, as the package does"
        )
    if not np.allclose(chunk, right):
        raise Wrong(f"{where}, the padding is not the episode's last action")


@exercise(
    "02.loss",
    minutes=6,
    hints=(
        "How many numbers of the chunk were really demonstrated?",
        "valid = ~is_pad[:, :, None] has shape (B, k, 1): it broadcasts over joints.",
        "(error * valid).sum() / (valid.sum() * A), with A = prediction.shape[-1].",
    ),
    praise="Only demonstrated actions count, each of them the same, and it trains.",
)
def check_loss(function: Callable) -> None:
    """`function(prediction, target (B, k, A), is_pad (B, k))` gives a tensor ()."""
    ends = (5, 3, 2), (5, 5, 5), (1, 4, 5)
    each_case(
        {
            "B, k, A = 3, 5, 4": ((3, 5, 4), ends),
            "B, k, A = 4, 6, 5": ((4, 6, 5), ((6, 2, 4, 6), (3, 1, 5, 6))),
        },
        lambda case: _examine_loss(function, *case),
        "take all sizes from the tensors, the joints from prediction.shape[-1]",
    )


def _examine_loss(
    function: Callable, shape: tuple[int, int, int], all_ends: tuple
) -> None:
    prediction, target = np.random.default_rng(3).normal(size=(2, *shape))
    for ends in all_ends:
        is_pad = np.arange(shape[1]) >= np.array(ends)[:, None]  # (B, k)
        predicted = torch.tensor(prediction, requires_grad=True)
        answer = attempt(
            function, predicted, torch.tensor(target), torch.tensor(is_pad)
        )
        if numbers(answer).size != 1:
            raise Wrong(
                "one number is wanted, the mean; yours has shape "
                f"{numbers(answer).shape}"
            )
        _judge_loss(prediction, target, is_pad, numbers(answer).item())
        if not isinstance(answer, torch.Tensor) or not answer.requires_grad:
            raise Wrong(
                "the value is right, but it has no gradient: nothing could be trained "
                "with it. Stay with tensors; no float(), .item(), .detach(), .numpy()"
            )
        answer.sum().backward()
        sign = np.sign(prediction - target) * ~is_pad[:, :, None]
        right = sign / (~is_pad).sum() / shape[2]
        assert predicted.grad is not None
        if not same(numbers(predicted.grad), right):
            raise Wrong(
                "the value is right, its gradient is not: a part of it was detached"
            )


def _judge_loss(
    prediction: np.ndarray, target: np.ndarray, is_pad: np.ndarray, found: float
) -> None:
    error = np.abs(prediction - target)
    cells = list(np.ndindex(error.shape))  # (b, i, a)
    each = [error[cell] for cell in cells]
    kept = [error[cell] for cell in cells if not is_pad[cell[:2]]]
    lost = [error[cell] for cell in cells if is_pad[cell[:2]]]
    mistakes = {
        "padding is counted: this is the mean over all of the chunk": np.mean(each),
        "the padding is masked but still divided by: a chunk that is half padding "
        "would count half. Divide by the number that is left": sum(kept) / len(each),
        "this is the sum; divide by how many numbers went into it": sum(kept),
        "divided by the steps but not by the A joints of each": sum(kept)
        / (len(kept) / error.shape[2]),
        "this squares the error (L2); L1 takes its absolute value": np.mean(
            np.square(kept)
        ),
        "the difference has a sign, so errors cancel: L1 takes its absolute value": [
            sign * (prediction - target)[~is_pad].mean() for sign in (1, -1)
        ],
        "chunks are averaged first, then the batch: an almost empty chunk would weigh "
        "as much as a full one": np.mean(
            [error[b][~is_pad[b]].mean() for b in range(len(error))]
        ),
        "this is the median; L1 is a mean": np.median(kept),
        "the sign is turned: a loss is made small, so the error is positive": -np.mean(
            kept
        ),
    }
    if lost:
        backwards = "the mask is the wrong way round: this is the error on the padding"
        mistakes[backwards] = [np.mean(lost), sum(lost) / len(each)]
    if not is_right(found, np.mean(kept), mistakes):
        said = told_apart(float(np.mean(kept)), found, digits=4)
        raise Wrong("expected {}, found {}".format(*said))


@exercise(
    "02.receding",
    minutes=8,
    hints=(
        "At tick t, when was the policy asked last? It is asked at 0, h, 2h, ...",
        "asked = t // h * h; the action is number t - asked of that chunk.",
        "With t = np.arange(T): chunks[t // h * h, t % h] has shape (T, A).",
    ),
    praise="Each chunk is followed for h ticks, from its own beginning.",
)
def check_receding(function: Callable) -> None:
    """`function(chunks (T, k, A), h)` gives the executed actions (T, A)."""
    each_case(
        {
            "T, k, A = 11, 4, 2": ((11, 4, 2), (3, 1, 4)),
            "T, k, A = 14, 5, 3": ((14, 5, 3), (2, 5)),
        },
        lambda case: _examine_executed(function, *case),
        "take all sizes from `chunks`, and h from the argument",
    )


def _examine_executed(
    function: Callable, shape: tuple[int, int, int], horizons: tuple[int, ...]
) -> None:
    chunks = np.random.default_rng(4).normal(size=shape)
    for h in horizons:
        answer = numbers(attempt(function, chunks.copy(), h))
        right, step = [], h  # counting ticks
        for t in range(shape[0]):
            if step == h:
                current, step = chunks[t], 0
            right.append(current[step])
            step += 1
        right = np.stack(right)
        if answer.shape != right.shape:
            raise Wrong(
                f"one action a tick is wanted, shape {right.shape}; yours has "
                f"{answer.shape}"
            )
        if not is_right(answer, right, _wrongly_executed(chunks, h)):
            tick = int(np.flatnonzero(~np.isclose(answer, right).all(1))[0])
            raise Wrong(f"for h = {h} the action at tick {tick} is not the right one")


def _wrongly_executed(chunks: np.ndarray, h: int) -> dict[str, np.ndarray]:
    ticks, k = np.arange(len(chunks)), chunks.shape[1]
    taken = {
        "this takes the first action of a new chunk at every tick: h is always 1": (
            ticks,
            0 * ticks,
        ),
        "this executes whole chunks; the policy is asked again after h actions": (
            ticks // k * k,
            ticks % k,
        ),
        "chunk number t // h is not the one made at that time: chunks[t] was made at "
        "tick t, so the last one is chunks[t // h * h]": (ticks // h, ticks % h),
        "the right chunk, but always its first action: h ticks would stand still": (
            ticks // h * h,
            0 * ticks,
        ),
        "the chunk is read backwards: its first action is number 0": (
            ticks // h * h,
            h - 1 - ticks % h,
        ),
        "the chunk before the last one is followed: h ticks late": (
            np.maximum(ticks // h * h - h, 0),
            ticks % h,
        ),
        "one step too far into the chunk: at the tick at which it is made, its first "
        "action (number 0) is executed": (
            ticks // h * h,
            np.minimum(ticks % h + 1, k - 1),
        ),
        "a fresh chunk at every tick, read from its middle: what is executed must come "
        "from one chunk for h ticks": (ticks, ticks % h),
    }
    return {words: chunks[made, step] for words, (made, step) in taken.items()}


@exercise(
    "02.rule",
    minutes=4,
    hints=(
        "How many ticks does one sub-motion last?",
        "seconds * fps ticks, then up to the next multiple of 25.",
        "25 * math.ceil(seconds * fps / 25).",
    ),
    praise="A chunk that covers one sub-motion, at any rate.",
)
def check_rule(function: Callable) -> None:
    """`function(seconds, fps)` gives the chunk size of the rule of thumb."""
    # Known by counting ticks by hand.
    known = {
        (0.75, 30): 25,
        (1.2, 50): 75,
        (2.0, 50): 100,
        (1.25, 30): 50,
        (0.5, 50): 25,
        (0.52, 50): 50,
        (0.85, 30): 50,  # 25.5 and 25.2 ticks do not fit into 25
        (0.84, 30): 50,
    }
    answers = {case: attempt(function, *case) for case in known}
    said = {case: number(one, "a whole number") for case, one in answers.items()}
    seconds, fps = np.array(list(known)).T
    ticks = seconds * fps
    mistakes = {
        "the ticks are not rounded up to a multiple of 25": ticks,
        "the ticks are rounded up to a whole number, not to a multiple of 25": (
            np.ceil(ticks)
        ),
        "this rounds to the nearest multiple: a chunk that is too short cuts the "
        "sub-motion. Round up": 25 * np.round(ticks / 25),
        "this rounds down, and cuts the sub-motion. Round up": (
            25 * np.floor(ticks / 25)
        ),
        "exact multiples get 25 too many: 100 ticks need a chunk of 100": (
            25 * (ticks // 25 + 1)
        ),
        "a part of a tick is dropped before the ticks are rounded up: 25.5 ticks do "
        "not fit into 25": [
            25 * np.ceil(whole(ticks) / 25) for whole in (np.floor, np.round)
        ],
        "the rate is not used: at 50 Hz the same second has more ticks": (
            [25 * np.ceil(seconds * rate / 25) for rate in (30, 50)]
        ),
        "a chunk of one tick less would not cover the sub-motion": (
            25 * np.ceil((ticks - 1) / 25)
        ),
        "this is how many times 25 ticks; the chunk size is 25 times that": np.ceil(
            ticks / 25
        ),
        "duration divided by rate has no meaning; ticks are duration times rate": (
            25 * np.ceil(seconds / fps / 25)
        ),
    }
    if not is_right(list(said.values()), list(known.values()), mistakes):
        for (seconds, fps), value in known.items():
            if not np.isclose(said[seconds, fps], value):
                raise Wrong(
                    f"{seconds} s at {fps} Hz are {seconds * fps:g} ticks: the rule "
                    f"says {value}; yours says {said[seconds, fps]:g}"
                )
    kinds = {type(x).__name__ for x in answers.values() if not _whole(x)}
    if kinds:
        raise Wrong(
            "the numbers are right, but a chunk size counts actions: make it an int, "
            f"not a {' or '.join(sorted(kinds))}"
        )


def _whole(answer: object) -> bool:
    return isinstance(answer, int | np.integer)
