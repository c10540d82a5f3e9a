"""Lesson 01: drift, its cost, distance from the data, and labels that correct it."""

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
    same,
    told_apart,
    two_parts,
)

FLOAT32 = 1e-4  # what float32, or a little that is added to a deviation, may cost

# --- 01.drift -------------------------------------------------------------------------


@exercise(
    "01.drift",
    minutes=8,
    hints=(
        "Two walkers start at the same place. Each acts on what it sees itself.",
        "Keep two states: e = step(e, expert(e)) and x = step(x, policy(x)).",
        "Append abs(x - e) before the first step, and after each: T + 1 numbers.",
    ),
    praise="Each walker acts on its own state: that is what closed loop means.",
)
def check_drift(function: Callable) -> None:
    """`function(policy, expert, step, start, T)` gives distances (T + 1,)."""
    each_case(
        {"T = 5 and start = 0.4": (0.4, 5), "T = 8 and start = -0.3": (-0.3, 8)},
        lambda case: _judge_drift(function, *case),
        "take the number of steps and the start from the arguments",
    )


def _judge_drift(function: Callable, start: float, ticks: int) -> None:
    def expert(x):
        return 0.3 * (1.0 - x)

    def policy(x):
        return 0.3 * (1.0 - x) + 0.05 + 0.1 * x * x

    def step(x, action):
        return 0.9 * x + action

    def walk(act, seen=None, keep=0.9):
        """States of a walker that acts on what it sees: its own, by default."""
        states = [start]
        for tick in range(ticks):
            acts_on = states[-1] if seen is None else seen[tick]
            states.append(keep * states[-1] + act(acts_on))
        return np.array(states)

    mine, theirs = walk(policy), walk(expert)
    right = np.abs(mine - theirs)
    # One step from the same state: the policy's states, or the expert's.
    from_mine, from_theirs = (
        np.abs([0.0, *(policy(x) - expert(x) for x in states[:-1])])
        for states in (mine, theirs)
    )
    no_sign = "a distance has no sign: take the absolute value"
    mistakes = {
        "the expert is asked in the policy's states, so every step starts from one "
        "place; it should walk its own way from the start": from_mine,
        "an action is not the next state: step(x, action) gives that": np.abs(
            walk(policy, keep=0.0) - walk(expert, keep=0.0)
        ),
        "this is open loop: the policy is asked, and its step taken, from the "
        "expert's states, so no error ever reaches the next step": from_theirs,
        "the policy moves its own state, but is asked about the expert's: it "
        "never sees where it really is": np.abs(walk(policy, theirs) - theirs),
        "the expert is asked about the policy's state; it should walk its own "
        "way": np.abs(mine - walk(expert, mine)),
        "the start is missing: T steps have T + 1 states": right[1:],
        "the last state is missing: T steps have T + 1 states": right[:-1],
        no_sign: theirs - mine,
        "these are squared distances": right**2,
        "these are the policy's states, not distances to the expert's": mine,
        "this is the distance summed up to each step": np.cumsum(right),
    }
    answer = numbers(attempt(function, policy, expert, step, start, ticks)).squeeze()
    if is_right(answer, right, mistakes):
        below = attempt(function, lambda x: -policy(x), expert, step, start, ticks)
        if (numbers(below) < 0).any():
            raise Wrong(no_sign)
        return
    if answer.shape != right.shape:
        raise Wrong(f"expected T + 1 = {ticks + 1} distances, found {answer.shape}")
    raise Wrong(
        f"after one step the distance should be {right[1]:.3f}, after {ticks} "
        f"{right[-1]:.3f}; yours are {answer[1]:.3f} and {answer[-1]:.3f}"
    )


# --- 01.cost --------------------------------------------------------------------------


@exercise(
    "01.cost",
    minutes=8,
    hints=(
        "After t steps the walker is still on the ridge with probability (1 - eps)^t.",
        "The expected cost of step t is the probability to be off it by then.",
        "t = np.arange(1, T + 1): the first step can already be a mistake. Sum.",
    ),
    praise="εT²/2 while εT is small; a straight line once the fall is nearly certain.",
)
def check_cost(function: Callable) -> None:
    """`function(T, eps)` gives the expected number of steps off the ridge."""

    def examine(case: tuple[int, float]) -> None:
        ticks, eps = case
        answer = numbers(attempt(function, ticks, eps))
        if answer.shape != ():
            raise Wrong(f"one number is wanted, found shape {answer.shape}")
        on, right = 1.0, 0.0
        for _ in range(ticks):
            on *= 1 - eps
            right += 1 - on
        t = np.arange(1, ticks + 1)
        mistakes = {
            "t runs from 1 to T, not from 0 to T - 1: the first step can be a "
            "mistake": (1 - (1 - eps) ** (t - 1)).sum(),
            "t runs from 1 to T; this goes on to T + 1": (
                1 - (1 - eps) ** np.arange(1, ticks + 2)
            ).sum(),
            "this adds up 1 - eps^t. eps is the chance of a mistake; to be still on "
            "the ridge takes t steps without one, (1 - eps)^t": (1 - eps**t).sum(),
            "this is the mean over the steps; the cost is their sum": right / ticks,
            "this counts the steps on the ridge; the cost is the steps off it": (
                (1 - eps) ** t
            ).sum(),
            "eps T is the cost of somebody who is put back after each mistake": eps
            * ticks,
            "eps T² / 2 is what it comes to while eps T is small; here the exact "
            "sum is asked for": eps * ticks**2 / 2,
            "eps T (T + 1) / 2 is what it comes to while eps T is small; here the "
            "exact sum is asked for": eps * ticks * (ticks + 1) / 2,
            "this is the chance to have fallen by the end; the cost counts every "
            "step after the fall": 1 - (1 - eps) ** ticks,
            "eps T² is the bound; half of it is the sum": eps * ticks**2,
        }
        if not is_right(answer, right, mistakes, rtol=FLOAT32):
            expected, found = told_apart(right, float(answer), digits=4)
            raise Wrong(
                f"for T = {ticks} and eps = {eps} the cost should be {expected}; "
                f"yours is {found}"
            )

    cases = (40, 0.03), (200, 0.002), (1, 0.1)  # at T = 1 mistakes agree
    named = {f"T = {ticks} and eps = {eps}": (ticks, eps) for ticks, eps in cases}
    each_case(named, examine, "take both, T and eps, from the arguments")


# --- 01.nearest -----------------------------------------------------------------------


@exercise(
    "01.nearest",
    minutes=10,
    hints=(
        "A millimetre and a radian cannot be added: divide by what is usual first.",
        "Differences of all pairs: visited[:, None] - demonstrated[None], (T, M, S).",
        "The norm over S, then the smallest over M. T numbers remain.",
    ),
    praise="In units of the demonstrations' own deviation, nearest one counts.",
)
def check_nearest(function: Callable) -> None:
    """`function(visited (T, S), demonstrated (M, S))` gives distances (T,)."""
    each_case(
        {"T, M, S = 4, 11, 3": (4, 11, 3), "T, M, S = 7, 13, 4": (7, 13, 4)},
        lambda sizes: _judge_nearest(function, *sizes),
        "take all sizes from the arrays",
    )


def _judge_nearest(function: Callable, t: int, m: int, s: int) -> None:
    rng = np.random.default_rng(2)
    scale = np.array([1.0, 0.05, 3.0, 0.2])[:s]
    demonstrated = rng.normal(size=(m, s)) * scale
    visited = rng.normal(size=(t, s)) * scale * 2
    std = demonstrated.std(0)

    def table(unit):
        rows = [
            [np.sqrt((((v - d) / unit) ** 2).sum()) for d in demonstrated]
            for v in visited
        ]
        return np.array(rows)

    right = table(std).min(1)
    answer = numbers(attempt(function, visited.copy(), demonstrated.copy()))
    if same(answer, table(demonstrated.std(0, ddof=1)).min(1), rtol=FLOAT32):
        return  # divided by M - 1: as good
    own = [(x - x.mean(0)) / x.std(0) for x in (visited, demonstrated)]
    mistakes = {
        "the numbers have different units and ranges: divide each by its standard "
        "deviation over the demonstrations": table(np.ones(s)).min(1),
        "divide by the deviation of the demonstrations, not of what was visited: "
        "a rollout that leaves the data would widen its own ruler": table(
            visited.std(0)
        ).min(1),
        "each side is z-scored alone: a visited state far from all data would be "
        "moved back to its middle. Both are divided by the demonstrations' std": (
            np.linalg.norm(own[0][:, None] - own[1], axis=2).min(1)
        ),
        "this divides by the variance; the standard deviation has the numbers' own "
        "units": table(demonstrated.var(0)).min(1),
        "this multiplies by the standard deviation; divide": table(1 / std).min(1),
        "this is the root of the mean of the squares; the distance is the root of "
        "their sum": right / np.sqrt(s),
        "this is the mean distance to all demonstrated states; the nearest one "
        "counts": table(std).mean(1),
        "this is the distance to the farthest demonstrated state": table(std).max(1),
        "these are squared distances": right**2,
        "these are the numbers of the nearest states (argmin), not their "
        "distances": table(std).argmin(1),
        "one deviation for all numbers together does not make their units equal: "
        "std(0), one for each": table(demonstrated.std()).min(1),
        "this adds up the absolute differences; the distance is the root of their "
        "squares' sum": (
            (np.abs(visited[:, None] - demonstrated[None]) / std).sum(2).min(1)
        ),
        "the smallest is taken over the visited states: for each demonstrated "
        "state the nearest visited one": table(std).min(0),
        "this compares with the mean of the demonstrations, not with the nearest "
        "of them": np.sqrt((((visited - demonstrated.mean(0)) / std) ** 2).sum(1)),
    }
    if is_right(answer, right, mistakes, rtol=FLOAT32):
        return
    if answer.shape != right.shape:
        raise Wrong(
            f"expected T = {len(right)} distances, one a visited state; found shape "
            f"{answer.shape}"
        )
    first = int(np.argmax(~np.isclose(answer, right, rtol=FLOAT32)))
    expected, found = told_apart(right[first], answer[first])
    raise Wrong(
        f"visited state number {first} is {expected} from the nearest demonstrated "
        f"one; yours says {found}"
    )


# --- 01.disturb -----------------------------------------------------------------------


@exercise(
    "01.disturb",
    minutes=10,
    hints=(
        "Two different actions: the one that is written down, the one that is done.",
        "label = expert(state); the arm does label + noise[t].",
        "Record state and label first, then state = step(state, label + noise[t]).",
    ),
    praise="The arm is pushed off its path, and the label says how to come back.",
)
def check_disturb(function: Callable) -> None:
    """`function(expert, step, start, noise (T, A))` gives states and labels."""
    noise = np.array([[0.3, -0.2], [-0.4, 0.1], [0.2, 0.5], [0.1, -0.3]])
    other = np.random.default_rng(5).normal(0, 0.3, (6, 3))
    each_case(
        {
            "4 steps of 2 joints": (np.array([0.2, -0.1]), noise),
            "6 steps of 3 joints": (np.array([0.4, 0.0, -0.2]), other),
        },
        lambda case: _judge_disturbed(function, *case),
        "take the number of steps from the noise, and the first state from `start`",
    )


def _judge_disturbed(function: Callable, start: np.ndarray, noise: np.ndarray) -> None:
    def expert(x):
        return 0.5 * (1.0 - x)

    def step(x, action):
        return x + 0.8 * action

    answer = attempt(function, expert, step, start.copy(), noise.copy())
    wanted = "things are wanted: the states and the labels"
    answer = two_parts(answer, wanted, "one of the two is still '...'")
    states, labels = (numbers(part) for part in answer)

    def run(pushed: bool = True, seen: bool = False, push_sign: float = 1.0):
        x, xs, ls = start, [], []
        for push in noise:
            label = 0.5 * (1.0 - (x + push if seen else x))
            xs.append(x)
            ls.append(label)
            x = x + 0.8 * (label + (push_sign * push if pushed else 0.0))
        return np.array(xs), np.array(ls), x

    xs, ls, end = run()
    calm, calm_labels, _ = run(pushed=False)
    mistakes = {
        "the noise is in the labels: a policy that learns from them learns the "
        "disturbance. Write down what is right, not what is done": (xs, ls + noise),
        "the label is not the expert's action minus the noise: the expert's action "
        "is right as it is": (xs, ls - noise),
        "the arm does the expert's action plus the noise; here it is minus": (
            run(push_sign=-1.0)[:2]
        ),
        "the noise is never done: these are ordinary demonstrations": (
            calm,
            calm_labels,
        ),
        "the wrong way round: here the labels are disturbed and the arm is not": (
            calm,
            calm_labels + noise,
        ),
        "the expert is shown a disturbed state; it is the action that is disturbed, "
        "and the expert sees where the arm really is": [
            run(pushed, seen=True)[:2] for pushed in (True, False)
        ],
        "the wrong way round: first the states, then the labels": (ls, xs),
        "the noise is added to what is written down; it belongs to the action that is "
        "done, and moves the arm": (calm + noise, calm_labels),
        "each label is the one of the state after it: ask the expert before the step": (
            xs,
            0.5 * (1.0 - np.array([*xs[1:], end])),
        ),
        "each label stands beside the state after it; it belongs to the state in "
        "which the expert was asked": (np.array([*xs[1:], end]), ls),
    }
    if is_right((states, labels), (xs, ls), mistakes):
        return
    if same(states, np.array([*xs, end])):
        raise Wrong("the state after the last action has no label: T states, T labels")
    if states.shape != xs.shape or labels.shape != ls.shape:
        raise Wrong(
            f"expected states and labels of shape {xs.shape}, one row a step; found "
            f"{states.shape} and {labels.shape}"
        )
    raise Wrong(
        f"the second state should be {np.round(xs[1], 3)} with label "
        f"{np.round(ls[1], 3)}; yours are {np.round(states[1], 3)} and "
        f"{np.round(labels[1], 3)}"
    )


# --- 01.dagger ------------------------------------------------------------------------


@exercise(
    "01.dagger",
    minutes=12,
    hints=(
        "Start with a copy, pairs = list(pairs), and policy = retrain(pairs).",
        "A round: for each `states` in drive(policy), append (states, expert(states)).",
        "After each round policy = retrain(pairs), on the old pairs and the new ones.",
    ),
    praise="The policy chooses the states, the expert their labels, and all is kept.",
)
def check_dagger(function: Callable) -> None:
    """`function(pairs, rounds, retrain, drive, expert)` gives a policy and pairs."""
    each_case(
        {"2 rounds": (2, 2), "4 rounds of 3 rollouts": (4, 3)},
        lambda case: _judge_dagger(function, *case),
        "take the number of rounds from the argument, and go through all that `pairs` "
        "and drive(policy) hold",
    )


def _judge_dagger(function: Callable, rounds: int, rollouts: int) -> None:
    given = [
        (np.array([[0.5], [0.2]]), np.array([[-0.3], [-0.2]])),
        (np.array([[-0.4], [0.1]]), np.array([[0.2], [0.0]])),
        (np.array([[0.3], [0.6]]), np.array([[-0.1], [-0.4]])),
    ][:rollouts]

    def retrain(pairs):
        """A policy is one number here: the gain that fits all labels best."""
        x, y = (np.concatenate([pair[i] for pair in pairs]) for i in (0, 1))
        return float((x * y).sum() / (x**2).sum())

    def drive(gain):
        """Rollouts of two, three and two states."""
        starts = ((1.5, 2), (-1, 3), (0.7, 2))[:rollouts]
        return [x * (1 + gain) ** np.arange(n)[:, None] for x, n in starts]

    def expert(states):
        return -0.6 * states + 0.2 * states**2

    def run(rounds=rounds, act=expert, keep=True, between=True, last=True, swap=False):
        pairs, policy = list(given), retrain(given)
        for i in range(rounds):
            new = [(x, policy * x if act is None else act(x)) for x in drive(policy)]
            pairs = pairs + new if keep else new
            if swap:
                pairs[-len(new) :] = [(y, x) for x, y in new]
            if between and (last or i < rounds - 1):
                policy = retrain(pairs)
        return policy if between or not last else retrain(pairs), *joined(pairs)

    def joined(pairs):
        parts = [[numbers(pair[i]) for pair in pairs] for i in (0, 1)]
        try:
            return tuple(np.concatenate(part) for part in parts)
        except ValueError:
            raise Wrong("a pair is states (T, S) and labels (T, A)") from None

    answer = attempt(function, given, rounds, retrain, drive, expert)
    wanted = "things are wanted: the last policy, and the pairs that it learned from"
    policy, pairs = two_parts(answer, wanted, "one of the two is still '...'")
    if isinstance(policy, list | tuple):
        raise Wrong("the wrong way round: first the policy, then the pairs")
    if not isinstance(pairs, list | tuple):
        raise Wrong("the pairs are a list, one pair for each rollout")
    two = [isinstance(pair, list | tuple) and len(pair) == 2 for pair in pairs]
    if not two or not all(two):
        raise Wrong("pairs are a list of two arrays each: (states, labels)")
    found = (number(policy, "the policy that retrain gave"), *joined(pairs))
    mistakes = {
        "the labels are the policy's own actions: it would learn what it does "
        "already. Ask the expert": run(act=None),
        "the earlier pairs are dropped: each policy forgets the demonstrations. Add "
        "the new pairs to the old ones": run(keep=False),
        "the policy is not trained anew between the rounds: every round sees where the "
        "first one goes": run(between=False),
        "the policy is never trained on the pairs that were added": run(
            between=False, last=False
        ),
        "the pairs of the last round are added, but the policy is not trained on "
        "them": run(last=False),
        "one round is missing": run(rounds - 1),
        "this is one round too many": run(rounds + 1),
        "these are the demonstrations alone: nothing was added": run(0),
        "the wrong way round: a pair is (states, labels)": run(swap=True),
    }
    right = run()
    if not is_right(found, right, mistakes):
        raise Wrong(
            f"after {rounds} rounds there should be {np.shape(right[1])[0]} states "
            f"with labels; yours has {np.shape(found[1])[0]}, and a policy of "
            f"{found[0]:.4f} (expected {right[0]:.4f})"
        )
