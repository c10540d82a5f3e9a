"""Lesson F3: three measurements that tell where a policy fails."""

from collections.abc import Callable

import numpy as np

from ..toolkit.checks import (
    Wrong,
    attempt,
    each_case,
    exercise,
    is_right,
    number,
    numbers,
)


@exercise(
    "F3.error",
    minutes=10,
    hints=(
        "How far is an answer from what was shown, and how far is the mean action?",
        "Leave out what is not `valid`, in the errors and in the mean: shown[valid] "
        "has the shape (M, A).",
        "spread = np.abs(a - a.mean(0)).mean(0) with a = shown[valid], and then "
        "(np.abs(predicted - shown)[valid] / spread).mean()",
    ),
    praise="0 is the demonstration itself, 1 is as good as the mean action.",
)
def check_error(function: Callable) -> None:
    """`function(predicted, shown (N, k, A), valid (N, k))` gives the relative error."""
    each_case(
        {"N, k, A = 5, 4, 2": (5, 4, 2), "N, k, A = 4, 6, 3": (4, 6, 3)},
        lambda sizes: _examine_error(function, *sizes),
        "take the sizes from `shown`",
    )


def _examine_error(function: Callable, n: int, k: int, joints: int) -> None:
    rng = np.random.default_rng(n)
    scale = 10.0 ** np.arange(joints)  # joints that move by different amounts
    shown = 3 + rng.normal(size=(n, k, joints)) * scale
    predicted = shown + rng.normal(size=shown.shape) * 0.3 * scale
    valid = np.ones((n, k), bool)
    valid[1, k // 2 :] = False
    shown[~valid], predicted[~valid] = 50.0, -50.0  # whatever stands in the padding
    given = attempt(function, predicted.copy(), shown.copy(), valid.copy())
    if np.size(given) > 1 and np.shape(given) in ((joints,), (k, joints), shown.shape):
        raise Wrong(
            f"one number is wanted; yours has the shape {np.shape(given)}: take the "
            "mean over what is left"
        )
    found = number(given)
    a, off = shown[valid], np.abs(predicted - shown)[valid]  # (M, A)
    spread = np.abs(a - a.mean(0)).mean(0)
    all_off = np.abs(predicted - shown)
    everywhere = np.abs(shown - shown.mean((0, 1))).mean((0, 1))
    mistakes = {
        "padding counts: leave out what is not valid": [
            (all_off / spread).mean(),
            (all_off / everywhere).mean(),
            all_off.mean() / np.abs(shown - shown.mean()).mean(),
        ],
        "padding is 0 in the sum and still counts in the number of errors": (
            (all_off * valid[..., None]) / spread
        ).mean(),
        "padding counts in the spread: leave it out there, too": (
            off / everywhere
        ).mean(),
        "joints of different size: divide each by its own spread before the mean": [
            off.mean() / np.abs(a - a.mean(0)).mean(),
            off.mean() / np.abs(a - a.mean()).mean(),
        ],
        "this is the error in rad: divide it by the spread of the shown actions": (
            off.mean()
        ),
        "the spread is the mean distance from the mean, as the error is, not the "
        "standard deviation": (off / a.std(0)).mean(),
        "errors are absolute, not squared": [
            (off**2 / a.var(0)).mean(),
            np.sqrt((off**2 / a.var(0)).mean()),
            ((off / spread) ** 2).mean(),
        ],
        "the spread is that of what was shown, not of the answers": (
            off / np.abs(predicted[valid] - predicted[valid].mean(0)).mean(0)
        ).mean(),
        "signs cancel: take absolute errors": (
            (predicted - shown)[valid] / spread
        ).mean(),
        "the distance of a from 0 is not its spread: subtract the mean": (
            off / np.abs(a).mean(0)
        ).mean(),
        "this is how well it does: 1 minus the error": 1 - (off / spread).mean(),
    }
    if not is_right(found, (off / spread).mean(), mistakes):
        raise Wrong("divide the mean absolute error of each joint by its spread")


@exercise(
    "F3.lag",
    minutes=10,
    hints=(
        "If a state is d ticks behind, qpos[t] is near action[t - d].",
        "For each d compare qpos[d:] with action[: len(action) - d].",
        "min(range(most + 1), key=lambda d: "
        "np.abs(qpos[d:] - action[: len(action) - d]).mean())",
    ),
    praise="How far behind an arm is, measured from its own recording.",
)
def check_lag(function: Callable) -> None:
    """`function(qpos, action (T,), most)` gives the ticks that qpos is behind."""
    each_case(
        {"a lag of 3": (3, 120, 10), "no lag": (0, 90, 8), "a lag of 7": (7, 150, 12)},
        lambda case: _examine_lag(function, *case),
        "compare every lag from 0 to `most`",
    )


def _examine_lag(function: Callable, lag: int, ticks: int, most: int) -> None:
    rng = np.random.default_rng(lag)
    action = np.cumsum(rng.normal(0, 0.05, ticks + lag))
    qpos = action[:ticks] + rng.normal(0, 0.003, ticks)
    action = action[lag:]
    found = number(attempt(function, qpos.copy(), action.copy(), most))
    right = float(lag)
    if found == right:
        return
    if lag and found == -lag:
        raise Wrong("the sign: the state is behind, so the lag is positive")
    if not 0 <= found <= most or found != round(found):
        raise Wrong(
            f"a whole number of ticks from 0 to {most} is wanted, not {found:g}"
        )
    shifts = range(most + 1)
    ahead = [np.abs(qpos[: ticks - d] - action[d:]).mean() for d in shifts]
    worst = [np.abs(qpos[d:] - action[: ticks - d]).mean() for d in shifts]
    rolled = [np.abs(qpos - np.roll(action, d)).mean() for d in shifts]
    if found == np.argmin(ahead):
        raise Wrong("the other way round: compare qpos[d:] with earlier actions")
    if found == np.argmax(worst):
        raise Wrong("this is the lag with the largest distance; take the least")
    if found == np.argmin(rolled):
        raise Wrong("np.roll puts the last actions first: cut both instead")
    raise Wrong("take the d at which qpos[t] and action[t - d] lie nearest")


@exercise(
    "F3.exchange",
    minutes=8,
    hints=(
        "Each row should get the value that another row has, of another episode.",
        "Rows of one episode stand together: go on by more rows than an episode has.",
        "np.roll(values, len(values) // 2, axis=0), if no episode has half of the rows",
    ),
    praise="What the policy loses now is what it needed this input for.",
)
def check_exchange(function: Callable) -> None:
    """`function(values (N, ...), episode (N,))` gives each row another's value."""
    each_case(
        {
            "three episodes of 4 rows": ([4, 4, 4], ()),
            "episodes of 3, 5 and 5 rows, images": ([3, 5, 5], (2, 2)),
            "four episodes of 2 rows, images": ([2, 2, 2, 2], (3, 4)),
        },
        lambda case: _examine_exchange(function, *case),
        "use `episode`: episodes differ in length",
    )


def _examine_exchange(
    function: Callable, rows: list[int], shape: tuple[int, ...]
) -> None:
    episode = np.repeat(np.arange(len(rows)), rows)
    n = len(episode)
    own = np.arange(n, dtype=float) + 100.0
    values = np.broadcast_to(own.reshape(n, *[1] * len(shape)), (n, *shape)).copy()
    found = numbers(attempt(function, values.copy(), episode.copy()))
    if found.shape != values.shape:
        raise Wrong(
            f"a value for each row is wanted, {values.shape}; yours has {found.shape}"
        )
    flat = found.reshape(n, -1)
    if (flat != flat[:, :1]).any():
        raise Wrong("whole values change places, not parts of them")
    came = flat[:, 0]
    if not np.isin(came, own).all():
        if (came == 0).all():
            raise Wrong(
                "zeros are no value that the policy has ever seen; it should get one "
                "that looks usual"
            )
        if np.allclose(came, own.mean()):
            raise Wrong("the mean is no value that the policy has ever seen")
        raise Wrong("each row should get the value of another row, as it is")
    if (came == own).all():
        raise Wrong("nothing changed place")
    source = (came - 100).astype(int)
    if (source == np.arange(n)).any():
        raise Wrong("some rows still have their own value")
    if (episode[source] == episode).any():
        raise Wrong(
            "some rows got a value of the same episode, in which neighbours are nearly "
            "equal; take it from another one"
        )
    if len(set(source.tolist())) < n // 2:
        raise Wrong("all rows get the value of a few: let them change places")
