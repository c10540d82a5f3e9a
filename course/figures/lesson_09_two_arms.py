"""Lesson 09: one policy over two arms, or two; how their hands meet.

A state or action of two OpenArms has 16 numbers: seven joints and a gripper of the
right arm, then of the left.
"""

import contextlib
from collections.abc import Mapping, Sequence
from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from torch import nn

from act_minimal.checkpoint import load_policy
from act_minimal.evaluation import Evaluation, Rollout
from act_minimal.policy import Policy
from act_minimal.sim import make_task
from act_minimal.sim.openarm.handover import BAR, LIFTED
from act_minimal.sim.openarm.table import ARM_NQ, GRIPPERS, TABLE, holds
from act_minimal.sim.world import World

from ..toolkit.paths import ROOT
from ..toolkit.plots import COLOURS, figure, label, style
from ..toolkit.results import load_result
from ..toolkit.runs import rollouts
from ..toolkit.widgets import Explorer, slider

TASK = "openarm_handover"
ARMS = {"right": slice(0, 8), "left": slice(8, 16)}  # of state and action
KINDS = (
    "never picked up",
    "dropped too early",
    "never taken",
    "dropped later",
    "not let go",
)
GRASPED = 5  # ticks in the air that the left hand must hold the bar to have had it
TAKEN = 10  # ticks after the left hand has closed on the bar: now the right may open
WAYS = {
    ("one", "both"): "one policy",
    ("two", "both"): "two that see both arms",
    ("two", "own"): "two that see their own",
}
RIGHT, LEFT = (int(gripper) for gripper in GRIPPERS)


@cache
def checkpoint() -> Policy:
    """The policy for both arms that comes with the course."""
    return load_policy(ROOT / f"data/checkpoints/{TASK}_state")


def live(policy: Policy, n: int = 20) -> Evaluation:
    """Roll a policy out on `n` fresh handovers, or find these very rollouts."""
    return rollouts(policy, n=n, seed=9, task=make_task(TASK))


class SideBySide(nn.Module):
    """Two policies that each say what one arm does, behind the contract of one.

    A policy with 8 joints is shown its own arm's; one with 16 is shown both.
    """

    def __init__(self, right: Policy, left: Policy):
        super().__init__()
        self.arms = nn.ModuleDict({"right": right, "left": left})
        self.cameras = right.cameras
        self.chunk_size = right.chunk_size
        self.image_sizes = right.image_sizes
        self.config = SimpleNamespace(
            state_dim=16,
            action_dim=16,
            env_state_dim=right.config.env_state_dim,
        )

    def predict_chunk(self, observation: Mapping[str, Any]) -> np.ndarray:
        """The next k actions of both arms, (B, k, 16); neither knows the other's."""
        chunks = []
        for side, policy in self.arms.items():
            assert isinstance(policy, Policy)
            seen = dict(observation)
            if policy.config.state_dim == 8:
                seen["qpos"] = seen["qpos"][:, ARMS[side]]
            chunks.append(policy.predict_chunk(seen))  # (B, k, 8)
        return np.concatenate(chunks, axis=2)


# --- what became of a handover --------------------------------------------------------


def hands_on(qpos: np.ndarray) -> dict[str, np.ndarray]:
    """Which hand holds the bar, tick by tick: qpos (T, 25) -> side -> (T,) bool."""
    bar = qpos[:, ARM_NQ:]
    return {side: holds(side, qpos, bar, np.zeros(3), BAR) for side in ARMS}


def kind(rollout: Rollout) -> str:
    """What a rollout came to: "success", or one of `KINDS`."""
    if rollout.success:
        return "success"
    up = in_the_air(rollout)
    taken = (hands_on(rollout.qpos)["left"] & up).sum() >= GRASPED
    if not up.any():
        return "never picked up"
    if up[-1]:
        return "not let go" if taken else "never taken"
    return "dropped later" if taken else "dropped too early"


def sort_out(rollouts: Sequence[Rollout]) -> dict[str, int]:
    """How many rollouts came to what; every kind of failure is there."""
    kinds = [kind(r) for r in rollouts]
    return {name: kinds.count(name) for name in KINDS}


def kinds_text(rollouts: Sequence[Rollout]) -> str:
    """How many rollouts failed in which way, in words."""
    said = [f"{n} {name}" for name, n in sort_out(rollouts).items() if n]
    return ", ".join(said) or "none"


def in_the_air(rollout: Rollout) -> np.ndarray:
    """(T,) whether the bar is off the table."""
    return rollout.qpos[:, ARM_NQ + 2] > TABLE + LIFTED


def in_both_hands(rollout: Rollout) -> np.ndarray:
    """(T,) whether both hands hold the bar in the air."""
    held = hands_on(rollout.qpos)
    return held["right"] & held["left"] & in_the_air(rollout)


def overlap(rollout: Rollout) -> float:
    """Seconds for which both hands held the bar in the air."""
    return float(in_both_hands(rollout).sum() / 50)


# --- pictures -------------------------------------------------------------------------


def strip(rollout: Rollout) -> Figure:
    """A handover in pictures, over both grippers' openings."""
    from act_minimal.support.gl import GLError

    task = make_task(TASK)
    qpos = rollout.qpos.astype(float)
    seconds = np.arange(len(qpos)) / task.fps
    shown = np.linspace(0.12, 1, 5) * (len(qpos) - 1)
    fig, axes = figure(5, rows=2, width=9.0, height=3.6)
    grid = axes[0, 0].get_gridspec()
    grid.set_height_ratios([1.6, 1])
    world = World(task, 1)
    for column, tick in enumerate(shown.astype(int)):
        picture, under = axes[:, column]
        world.qpos[0] = qpos[tick]
        with contextlib.suppress(GLError):  # without pictures the curves still tell
            picture.imshow(world.render("scene", (180, 240)))
        picture.set_axis_off()
        picture.set_title(f"{seconds[tick]:.1f} s", fontsize=10)
        under.remove()
    world.close()
    below = fig.add_subplot(grid[1, :])
    below.spines[["top", "right"]].set_visible(False)
    state = task.state(qpos)
    for i, (side, gripper) in enumerate((("right", RIGHT), ("left", LEFT))):
        below.plot(seconds, state[:, gripper], **style(i), label=f"{side} hand")
    for tick in shown:
        below.axvline(tick / task.fps, color="black", lw=0.5, ls=":")
    below.legend(loc="upper left", ncols=2, frameon=False)
    below.set_ylim(0, 0.75)
    label(below, "seconds", "opening")
    return fig


def ways_figure() -> Figure:
    """C28: success of each way, and what became of the others."""
    rows = {(r["policies"], r["sees"]): r for r in load_result("claims/C28")["summary"]}
    ways = [way for way in WAYS if way in rows]
    fig, (rate, kinds) = figure(2, width=10.0, height=2.6)
    y = np.arange(len(ways))[::-1]
    share = np.array([rows[way]["success"] for way in ways])
    ends = np.array([rows[way]["interval"] for way in ways]).T
    rate.barh(y, 100 * share, color=COLOURS[0], height=0.5)
    spread = np.clip(100 * np.abs(ends - share), 0, None)
    rate.errorbar(100 * share, y, xerr=spread, fmt="none", color="black", capsize=4)
    rate.set_xlim(0, 100)
    rate.set_yticks(y, [WAYS[way] for way in ways])
    label(rate, f"success, % (n = {rows[ways[0]]['n']} each)", "")
    left = np.zeros(len(ways))
    for i, name in enumerate(KINDS):
        share = np.array(
            [100 * rows[way]["kinds"][name] / rows[way]["n"] for way in ways]
        )
        kinds.barh(
            y, share, left=left, height=0.5, color=COLOURS[i + 1], label=name,
            hatch=("", "//", "..", "xx", "--")[i], edgecolor="white",
        )  # fmt: skip
        left += share
    kinds.set_yticks(y, [""] * len(ways))
    kinds.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    label(kinds, "failures, %", "")
    return fig


# --- the moment at which the right hand may let go ------------------------------------


def moments(found: Sequence[Rollout]) -> np.ndarray:
    """Scenes (M, 25) `TAKEN` ticks after both hands first held the bar in the air."""
    states = []
    for rollout in found:
        both = np.flatnonzero(in_both_hands(rollout))
        if len(both) and both[0] + TAKEN < len(rollout.qpos):
            states.append(rollout.qpos[both[0] + TAKEN].astype(float))
    return np.array(states).reshape(-1, ARM_NQ + 7)


def observe(qpos: np.ndarray) -> dict[str, np.ndarray]:
    """What a policy is told of scenes (M, 25)."""
    task = make_task(TASK)
    seen = {"qpos": task.state(qpos), "env_state": task.env_state(qpos)}
    return {key: value.astype(np.float32) for key, value in seen.items()}


def plans_figure() -> Figure:
    """C28: what each way plans for the right hand once the left has the bar."""
    moment = load_result("claims/C28")["moment"]
    fig, axes = figure(width=7.5, height=3.0)
    for i, plan in enumerate(moment["plans"]):
        name = WAYS[plan["policies"], plan["sees"]]
        low, middle, high = np.array(plan["quartiles"])
        ms = np.arange(len(middle)) * 20
        axes.plot(ms, middle, **style(i), label=name)
        axes.fill_between(ms, low, high, color=COLOURS[i], alpha=0.15, lw=0)
    axes.legend(loc="upper center", ncols=3)
    axes.set_ylim(0, 0.6)
    n = moment["n"]
    label(
        axes, f"ms from now (median and quartiles of n = {n})", "right hand's opening"
    )
    return fig


def plans_told(policy: Policy, states: np.ndarray, opening: float) -> np.ndarray:
    """The right hand's planned openings (M, k), the left hand said to be so open."""
    seen = observe(states)
    seen["qpos"][:, LEFT] = opening
    return policy.predict_chunk(seen)[:, :, RIGHT]


def told(policy: Policy, states: np.ndarray, opening: float) -> str:
    """In how many scenes (M, 25) the right hand is planned to open, in a sentence.

    In all of them the left hand has the bar; the policy is told how open it is.
    """
    true = float(np.median(observe(states)["qpos"][:, LEFT]))
    plans = plans_told(policy, states, opening)
    opens = float((plans.max(1) > 0.3).mean())
    return (
        f"Told that the left hand is {opening:.2f} open (it is {true:.2f}, on the "
        f"bar), the policy plans to open the right one within a second in "
        f"{100 * opens:.0f} % of {len(plans)} handovers."
    )


def told_explorer(policy: Policy, states: np.ndarray) -> Explorer:
    """A slider on what the policy is told of the left hand; what the right one plans.

    In scenes (M, 25) in which the left hand has the bar.
    """
    true = float(np.median(observe(states)["qpos"][:, LEFT]))

    def draw(opening: float) -> tuple[Figure, str]:
        plans = plans_told(policy, states, opening)  # (M, k)
        ms = np.arange(plans.shape[1]) * 20
        fig, axes = figure(width=6.0, height=3.0)
        axes.plot(ms, plans.T, color=COLOURS[5], lw=0.8, alpha=0.6)
        axes.plot(ms, np.median(plans, 0), color=COLOURS[0], label="median")
        axes.set_ylim(-0.05, 0.75)
        axes.legend(loc="upper left")
        label(axes, "ms from now", "right hand's opening, planned")
        return fig, told(policy, states, opening)

    return Explorer(
        "From which opening of the left hand on does the right one hold tight?",
        draw,
        opening=slider("left hand, as told", 0.0, 0.6, round(true, 2), 0.02),
    )
