"""Lesson F1: chunks that come late, and policies that know of it."""

from collections.abc import Callable

import numpy as np

from ..toolkit.checks import (
    Wrong,
    attempt,
    each_case,
    exercise,
    is_right,
    numbers,
    same,
)


def _plan(seed: int, left: int, k: int, joints: int) -> tuple[np.ndarray, np.ndarray]:
    """Actions that are left (left, A), and a new chunk (k, A)."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(left, joints)), rng.normal(size=(k, joints)) + 3.0


@exercise(
    "F1.switch",
    minutes=8,
    hints=(
        "Row 0 of `chunk` was meant for the tick at which the prediction began. How "
        "many ticks ago was that?",
        "The first `late` rows are past: what is sent from now on is chunk[late:].",
        "If late is as large as the chunk is long, nothing of it is left: keep `plan`.",
    ),
    praise="What is past is dropped, and a chunk that is all past changes nothing.",
)
def check_switch(function: Callable) -> None:
    """`function(plan (T, A), chunk (k, A), late)` gives the actions from now on."""
    cases = {
        "k = 8, late = 3": (4, 8, 3, 2),
        "k = 6, late = 1": (9, 6, 1, 3),
        "late = 0": (5, 7, 0, 2),
        "a chunk of which one action is left": (4, 5, 4, 2),
        "a chunk that is all past": (4, 5, 5, 2),
        "a chunk that is long past": (3, 5, 9, 2),
        "an empty plan": (0, 6, 2, 2),
    }
    each_case(
        cases,
        lambda case: _examine_switch(function, *case),
        "take k from `chunk`, and the delay from `late`",
    )


def _examine_switch(
    function: Callable, left: int, k: int, late: int, joints: int
) -> None:
    plan, chunk = _plan(k, left, k, joints)
    answer = numbers(attempt(function, plan.copy(), chunk.copy(), late))
    right = chunk[late:] if late < k else plan
    mistakes = {
        "nothing is left of this chunk: keep the plan, so that the arm has an "
        "action": np.empty((0, joints)),
        "this is the chunk's last action: it is for a tick that is past": chunk[-1:],
    }
    if late < k:
        mistakes = {
            "this begins one action too early: row `late` is for this tick": chunk[
                max(0, late - 1) :
            ],
            "this begins one action too late: row `late` is for this tick": chunk[
                late + 1 :
            ],
            "this is the old plan; the new chunk has actions for now": plan,
            "the first `late` actions are the ones that are past": chunk[:late],
            "this drops the end of the chunk instead of its beginning": (
                chunk[: k - late]
            ),
            "this cuts the new chunk to the length of the old plan: it reaches "
            "further": chunk[late:][:left],
        }
    mistakes |= {
        "this is the whole chunk: its first `late` actions were for ticks that are "
        "past": chunk,
        "the old plan has ended where the new chunk is known: nothing of it comes "
        "first": np.concatenate([plan, chunk[late:]]),
    }
    if not is_right(answer, right, mistakes):
        raise Wrong(
            f"expected the {len(right)} actions from row {late} of the chunk on, found "
            f"an array of shape {answer.shape}"
            if late < k
            else f"all of the chunk is past: expected the plan, {plan.shape}, found "
            f"{answer.shape}"
        )


def _faded(plan: np.ndarray, new: np.ndarray, m: int) -> np.ndarray:
    """The definition, one action at a time."""
    offset = plan[0] - new[0]
    return np.stack([a + offset * max(0.0, 1 - j / m) for j, a in enumerate(new)])


@exercise(
    "F1.fade",
    minutes=12,
    hints=(
        "How far is the new chunk from the old plan at this very tick?",
        "offset = plan[0] - new[0], one number a joint; new[0] + offset is plan[0].",
        "share = np.maximum(0, 1 - np.arange(len(new)) / m), then "
        "new + share[:, None] * offset.",
    ),
    praise="No jump at the seam, whatever the chunks are; after m ticks only the new.",
)
def check_fade(function: Callable) -> None:
    """`function(plan (T, A), new (T', A), m)` gives the actions from now on (T', A)."""
    cases = {
        "m = 4": (5, 9, 4, 2),
        "m = 10": (6, 14, 10, 3),
        "m = 1": (5, 6, 1, 2),
        "an m longer than the chunk": (5, 4, 12, 2),
        "a plan with one action": (1, 6, 3, 2),
    }
    each_case(
        cases,
        lambda case: _examine_fade(function, *case),
        "take the fade from `m`, and the length from `new`",
    )


def _examine_fade(function: Callable, left: int, k: int, m: int, joints: int) -> None:
    plan, new = _plan(10 + k, left, k, joints)
    answer = numbers(attempt(function, plan.copy(), new.copy(), m))
    if answer.shape != new.shape:
        raise Wrong(
            f"expected {new.shape}, an action for every row of the new chunk, found "
            f"{answer.shape}"
        )
    offset, j = plan[0] - new[0], np.arange(k)[:, None]
    both = min(left, k)
    pairs = np.zeros_like(new)
    pairs[:both] = plan[:both] - new[:both]
    share = np.maximum(0, 1 - j / m)
    mistakes = {
        "the sign: the offset leads from the new chunk to the old plan, plan[0] - "
        "new[0]": new - share * offset,
        "the offset stays for good: let it fade out over m ticks": new + offset,
        "this is the new chunk: at the seam it jumps": new,
        "after m ticks the share has to stay at 0, and not go on below it": (
            new + (1 - j / m) * offset
        ),
        "the share is 1 at the first action: j counts from 0": (
            new + np.maximum(0, 1 - (j + 1) / m) * offset
        ),
        "the share grows where it should fall: 1 - j / m": (
            new + np.minimum(1, j / m) * offset
        ),
        "the offset is that of the seam alone, at plan[0]; here every tick has its "
        "own, so that the old plan fades out, and an old error with it": (
            new + share * pairs
        ),
        "the old plan is where the hand should begin: this fades from the last action "
        "of the plan": new + share * (plan[-1] - new[0]),
        "this fades by a constant factor; the share is to fall by 1 / m a tick": (
            new + (1 - 1 / m) ** j * offset
        ),
        "this fades to the mean of both": new + 0.5 * share * offset,
    }
    if not is_right(answer, _faded(plan, new, m), mistakes):
        if not same(answer[0], plan[0]):
            raise Wrong(
                f"the first action should be the old plan's, {np.round(plan[0], 2)}, "
                f"found {np.round(answer[0], 2)}"
            )
        if k > m and not same(answer[m:], new[m:]):
            raise Wrong(f"from tick m = {m} on only the new chunk should be left")
        raise Wrong("the first action is right, and the way from there is not a line")


@exercise(
    "F1.mask",
    minutes=10,
    hints=(
        "Two reasons to leave an action out: it is padding, or it was told.",
        "np.arange(k) < d[:, None] is True where an action was told: (B, k).",
        "~is_pad & (np.arange(k) >= d[:, None])",
    ),
    praise="What counts is what the policy has to find out: no padding, nothing told.",
)
def check_mask(function: Callable) -> None:
    """`function(is_pad (B, k) bool, d (B,))` gives which actions count (B, k) bool."""
    each_case(
        {"B = 3, k = 6": (3, 6), "B = 5, k = 4": (5, 4)},
        lambda case: _examine_mask(function, *case),
        "take B and k from `is_pad`",
    )


def _examine_mask(function: Callable, rows: int, k: int) -> None:
    d = np.array([1, 3, 2, 1, 2])[:rows]
    is_pad = np.arange(k) >= np.array([k, k - 1, k - 2, k, 1])[:rows, None]
    given = attempt(function, is_pad.copy(), d.copy())
    answer = numbers(given)
    if answer.shape != (rows, k):
        raise Wrong(
            f"expected shape {(rows, k)}, one truth value an action, found "
            f"{answer.shape}. d[:, None] lets each row have a delay of its own"
        )
    told = np.arange(k) < d[:, None]
    mistakes = {
        "this counts what was told: the policy is given those actions": ~is_pad,
        "this counts padding: those actions never were": ~told,
        "this is the other way round: True where an action counts": is_pad | told,
        "the d told actions have j = 0 to d - 1; action d counts": (
            ~is_pad & (np.arange(k) > d[:, None])
        ),
        "one action too many: of d told actions the last has j = d - 1": (
            ~is_pad & (np.arange(k) >= d[:, None] - 1)
        ),
        "an action counts if it is neither padding nor told: and, not or": (
            ~is_pad | ~told
        ),
        "this counts the told actions alone": ~is_pad & told,
        "told actions are the first ones of a chunk, not the last": (
            ~is_pad & (np.arange(k) < k - d[:, None])
        ),
        "this counts where is_pad is True: it is True at padding": is_pad & ~told,
        "every row has a delay of its own; here all have that of the first": (
            ~is_pad & (np.arange(k) >= d[0])
        ),
        "every row has a delay of its own; here all have the longest": (
            ~is_pad & (np.arange(k) >= d.max())
        ),
    }
    if not is_right(answer, ~is_pad & ~told, mistakes):
        wrong = np.argwhere(answer != (~is_pad & ~told))[0]
        raise Wrong(
            f"row {wrong[0]} has d = {d[wrong[0]]} and {(~is_pad[wrong[0]]).sum()} "
            f"actions that are no padding: action {wrong[1]} is wrong"
        )


@exercise(
    "F1.future",
    minutes=10,
    hints=(
        "A servo that is `lag` ticks behind is, after d more ticks, where it was told "
        "to be `lag` ticks before that.",
        "The last committed action, committed[d - 1], is reached `lag` ticks later: "
        "take committed[d - 1 - lag].",
        "If d <= lag there is no such action: the arm has not yet begun with them, so "
        "keep qpos.",
    ),
    praise="The policy is told where the arm will be when its chunk takes over.",
)
def check_future(function: Callable) -> None:
    """`function(committed (d, A), qpos (A,), lag)` gives the state (A,) to show."""
    cases = {
        "d = 7, lag = 2": (7, 2, 2),
        "d = 5, lag = 0": (5, 0, 3),
        "d = 3, lag = 2": (3, 2, 2),
        "d = lag": (2, 2, 2),
        "d below the lag": (1, 3, 2),
        "nothing committed": (0, 0, 2),
    }
    each_case(
        cases,
        lambda case: _examine_future(function, *case),
        "take d from `committed`, and the lag from `lag`",
    )


def _examine_future(function: Callable, d: int, lag: int, joints: int) -> None:
    rng = np.random.default_rng(d + 20)
    committed, qpos = rng.normal(size=(d, joints)), rng.normal(size=joints) + 5.0
    answer = numbers(attempt(function, committed.copy(), qpos.copy(), lag))
    right = committed[d - 1 - lag] if d > lag else qpos
    mistakes = {
        "this is where the arm is now: its chunk takes over after the committed "
        "actions": qpos,
    }
    if 0 < d <= lag:
        mistakes |= {
            "for d <= lag an index below 0 counts from the end, in Python: keep qpos "
            "there": committed[(d - 1 - lag) % d],
        }
    elif d:
        mistakes |= {
            "this is the first committed action": committed[0],
            "this is the last committed action: the arm comes there `lag` ticks "
            "later": committed[-1],
            "the arm is behind what it was told: count `lag` back from the end": (
                committed[lag]
            ),
            "one tick too early: the last committed action has index d - 1": (
                committed[d - 2 - lag]
            ),
            "one tick too late: the last committed action has index d - 1": (
                committed[min(d - 1, d - lag)]
            ),
            "committed actions are targets, not distances: do not add them up": (
                qpos + committed.sum(0)
            ),
            "committed actions are targets, not distances: do not add them": (
                qpos + committed[-1]
            ),
            "this is a mean of the committed actions; the arm will be at one place": (
                committed.mean(0)
            ),
        }
    if not is_right(answer, right, mistakes):
        raise Wrong(
            f"for d = {d} and lag = {lag} expected {np.round(right, 2)}, found "
            f"{np.round(answer, 2)}"
        )
