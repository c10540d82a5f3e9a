"""Lesson 01: how errors add up, in two toys and on the simulated arm."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from act_minimal.dataset import STD_FLOOR, Demonstrations
from act_minimal.evaluation import Evaluation
from act_minimal.policy import Policy
from act_minimal.sim import make_task

from ..toolkit.paths import home
from ..toolkit.plots import COLOURS, figure, label, log_numbers, style
from ..toolkit.results import load_result
from ..toolkit.runs import alone
from ..toolkit.widgets import Explorer, choice, slider
from . import lesson_01_corrections as corrections

TASK = make_task(corrections.TASK)
HORIZONS = (12, 25, 50, 100, 200)  # of the ridge
ARM_HORIZONS = (10, 20, 40, 80)  # of the arm: no expert is done by then
SHOWN = 180  # ticks of a rollout
Series = dict[str, np.ndarray]


# --- toys -----------------------------------------------------------------------------


def cliff(ticks: int, eps: float, back: float = 0.0, *, n: int = 2000) -> np.ndarray:
    """A walk on a ridge: (n, ticks), 1 where the walker is off it.

    `eps` is the chance of a mistake at a step on the ridge, `back` that of finding
    back.
    """
    chance = np.random.default_rng(0).random((ticks, n))
    off, rows = np.zeros(n, bool), []
    for now in chance:
        off = np.where(off, now >= back, now < eps)
        rows.append(off)
    return np.stack(rows, 1).astype(float)


def ridge_figure(n: int = 2000) -> Figure:
    """Cost against horizon on the ridge, with and without a way back."""
    eps = 0.002
    fig, axes = figure(width=6.5, height=3.4)
    horizon = np.array(HORIZONS)
    for i, (chance, name) in enumerate(((0.0, "no way back"), (0.2, "a way back"))):
        cost = [cliff(t, eps, chance, n=n).sum(1).mean() for t in HORIZONS]
        axes.loglog(horizon, cost, **style(i, marker=True), label=name)
    axes.loglog(horizon, eps * horizon**2 / 2, "k:", lw=1, label="εT²/2")
    axes.loglog(horizon, eps * horizon, "k-.", lw=1, label="εT")
    axes.set_xticks(horizon, [str(t) for t in HORIZONS])
    axes.minorticks_off()
    what = "ε = 0.002; the way back: a chance of 0.2 a step"
    label(axes, "horizon T, steps", f"steps off the ridge\n(mean of n = {n})", what)
    axes.legend()
    return fig


def tracking(
    ticks: int, mistake: float, correction: float, same_way: bool
) -> np.ndarray:
    """Mean distance (ticks,) of e' = (1 - correction) e + mistake, from e = 0.

    `mistake` is a constant, or the deviation of independent normal mistakes.
    """
    keep, t = 1 - correction, np.arange(1, ticks + 1)
    if same_way:
        return mistake * (t if keep == 1 else (1 - keep**t) / (1 - keep))
    variance = t if keep == 1 else (1 - keep ** (2 * t)) / (1 - keep**2)
    return mistake * np.sqrt(variance) * np.sqrt(2 / np.pi)


def growth(cost: np.ndarray) -> float:
    """The power p of cost ~ T^p, between the half and the whole horizon."""
    total = np.cumsum(cost)
    return float(np.log2(total[-1] / total[len(total) // 2 - 1]))


def tracking_explorer(ticks: int = 400) -> Explorer:
    """Sliders for mistakes and their correction in the linear toy."""
    noise = np.random.default_rng(0).normal(size=(12, ticks))
    fig, (left, right) = figure(2, height=3.0)
    thin = [left.plot([], [], color=COLOURS[5], lw=0.6)[0] for _ in noise]
    (mean,) = left.plot([], [], color="black", label="mean")
    left.set_xlim(0, ticks)
    left.legend(loc="upper left")
    label(left, "step", "distance from the expert")
    (cost,) = right.loglog([], [], **style(1), label="total cost")
    t = np.arange(1, ticks + 1)
    right.loglog(t, 0.01 * t * (t + 1) / 2, "k:", lw=1, label="εT(T+1)/2, ε = 0.01")
    right.set_ylim(0.001, 2000)
    right.set_xticks([1, 10, 100], ["1", "10", "100"])
    right.set_yticks([0.01, 1, 100], ["0.01", "1", "100"])
    right.minorticks_off()  # they take longer than all the rest
    right.legend(loc="upper left")
    label(right, "horizon T, steps", "sum of distances")
    fig.set_layout_engine("none")  # a layout for each answer would double its time
    left.set_position((0.09, 0.18, 0.37, 0.78))
    right.set_position((0.59, 0.18, 0.39, 0.78))

    def draw(mistake: float, correction: float, kind: str) -> tuple[Figure, str]:
        same_way = kind == "all one way"
        at = tracking(ticks, mistake, correction, same_way)
        e = np.zeros(len(noise))
        walks = []
        for kick in noise.T:
            e = (1 - correction) * e + mistake * (1 if same_way else kick)
            walks.append(np.abs(e))
        for line, walk in zip(thin, np.stack(walks, 1), strict=True):
            line.set_data(t, walk)
        mean.set_data(t, at)
        left.set_ylim(0, 1.1 * np.max(walks))
        cost.set_data(t, np.cumsum(at))
        return fig, (
            f"Mistakes of {mistake:g} a step, {100 * correction:.0f} % of the distance "
            f"corrected: after {ticks} steps {at[-1]:.3f} away; the total cost grows "
            f"like T^{growth(at):.2f} (12 walks drawn)."
        )

    return Explorer(
        "How little correction a step turns T² into T?",
        draw,
        mistake=slider("mistake a step", 0.002, 0.05, 0.01, 0.002),
        correction=slider("corrected a step", 0.0, 0.5, 0.0, 0.01),
        kind=choice("mistakes go", ["all one way", "either way"], "all one way"),
    )


# --- the arm --------------------------------------------------------------------------


def recorded(n: int, kind: str) -> Path:
    """Demonstrations of `corrections.record`, made once; see there."""
    folder = home() / "demonstrations" / f"{kind}-0_{n}_0"
    with alone(folder):
        return corrections.record(folder, n, kind)


@dataclass(frozen=True)
class Path13:
    """What the expert does in one scene: positions before each action, and actions."""

    qpos: np.ndarray
    """(T, 13) of the simulator."""
    action: np.ndarray
    """(T, 6)"""


def expert_paths(scenes: Sequence[int], kind: str = "scripted") -> list[Path13]:
    """The expert on scenes that no demonstration started from."""
    world, expert, found = corrections.World(TASK), corrections.make_expert(kind), []
    for scene in scenes:
        world.reset([scene])
        act = expert(np.array(world.qpos[0]), scene)
        episode = corrections.play(world, scene, act)
        found.append(
            Path13(_joined(episode.qpos, episode.env_state), np.array(episode.action))
        )
    return found


def _joined(qpos: np.ndarray, pose: np.ndarray | None) -> np.ndarray:
    """Joints with the gripper as an opening, and the cube's pose: (T, 13)."""
    assert pose is not None
    return np.concatenate([qpos, pose], axis=1)


def visited(found: Evaluation) -> list[np.ndarray]:
    """The states (T, 13) of each rollout: joints, gripper opening, cube's pose."""
    return [_joined(TASK.state(r.qpos), TASK.env_state(r.qpos)) for r in found.rollouts]


def stability_figure() -> Figure:
    """Claim C30: clones of linear systems that stay near the expert, by chunk size."""
    rows = [r for r in load_result("claims/C30")["summary"] if r["initial"] == 0.5]
    fig, axes = figure(2, width=8.0, height=2.8)
    for ax, injected in zip(axes, (False, True), strict=True):
        some = [row for row in rows if row["injected"] is injected]
        for i, radius in enumerate(sorted({row["radius"] for row in some})):
            mine = [row for row in some if row["radius"] == radius]
            share = np.array([row["success"] for row in mine])
            ends = np.array([row["interval"] for row in mine]).T  # (2, sizes)
            at = np.arange(len(mine)) + 0.06 * (i - 1)
            spread = np.clip(100 * np.abs(ends - share), 0, None)
            name = f"spectral radius {radius:g}"
            ax.errorbar(at, 100 * share, yerr=spread, capsize=3, label=name, **style(i))
        ax.set_xticks(range(len(mine)), [str(row["k"]) for row in mine])
        ax.set_ylim(-5, 105)
        how = "half of them disturbed" if injected else "as demonstrated"
        label(ax, "chunk size k", "" if injected else "stays near, %", how)
    fig.legend(*axes[0].get_legend_handles_labels(), loc="outside right upper")
    return fig


def action_errors(policy: Policy, paths: Sequence[Path13]) -> list[np.ndarray]:
    """Open loop: (T,) the worst joint's action error, rad, on the expert's states."""
    errors = []
    for path in paths:
        seen = {"qpos": path.qpos[:, :6], "env_state": path.qpos[:, 6:]}
        said = policy.predict_chunk(seen)[:, 0]  # (T, 6)
        errors.append(np.abs(said - path.action)[:, :5].max(1))
    return errors


def path_errors(
    states: Sequence[np.ndarray], paths: Sequence[Path13]
) -> list[np.ndarray]:
    """Closed loop: (T,) the worst joint's distance, rad, from where the expert is."""
    errors = []
    for state, path in zip(states, paths, strict=True):
        t = min(len(state), len(path.qpos))
        errors.append(np.abs(state[:t, :5] - path.qpos[:t, :5]).max(1))
    return errors


def padded(rows: Sequence[np.ndarray], ticks: int) -> np.ndarray:
    """(n, ticks) of rows of different lengths, NaN where one is over."""
    table = np.full((len(rows), ticks), np.nan)
    for i, row in enumerate(rows):
        table[i, : len(row)] = row[:ticks]
    return table


class Known:
    """Demonstrated states, and how far others are from the nearest of them.

    Each number counts in units of its deviation over the demonstrations, with the same
    floor as a policy's normalisation has.
    """

    def __init__(self, data: Path):
        demos = Demonstrations.load(data)
        states = _joined(demos.qpos, demos.env_state)  # (M, 13)
        self.states = states
        self.std = np.maximum(states.std(0), STD_FLOOR)
        # In float64: what is near is a small difference of large squares.
        self.points = (states / self.std).astype(np.float64)
        self.squares = (self.points**2).sum(1)

    def distance(self, states: np.ndarray) -> np.ndarray:
        """(T,) of states (T, 13)."""
        here = (states / self.std).astype(np.float64)
        squares = (here**2).sum(1)[:, None] + self.squares - 2 * here @ self.points.T
        return np.sqrt(np.maximum(squares.min(1), 0.0))


# --- pictures -------------------------------------------------------------------------


def over_time(series: dict[str, Sequence[np.ndarray]], what: str) -> Figure:
    """Errors or distances against time, one line a name: median and middle half."""
    fig, axes = figure(height=3.4)
    seconds = np.arange(SHOWN) / TASK.fps
    for i, (name, rows) in enumerate(series.items()):
        table = padded(rows, SHOWN)
        # A median over the few rollouts that are not over yet says little.
        shown = np.isfinite(table).mean(0) >= 0.2
        low, middle, high = np.nanquantile(table[:, shown], (0.25, 0.5, 0.75), axis=0)
        axes.plot(
            seconds[shown],
            middle,
            **style(i, marker=True),
            markevery=15,
            label=f"{name} (n = {len(rows)})",
        )
        axes.fill_between(seconds[shown], low, high, color=COLOURS[i], alpha=0.15)
    axes.set_ylim(0, None)
    label(axes, "time, s", what)
    axes.legend(title="median; shaded: the middle half", alignment="left")
    return fig


def accumulated(series: dict[str, Sequence[np.ndarray]]) -> Series:
    """Mean over scenes of the error added up to each horizon, rad · steps."""
    return {
        name: np.cumsum(np.nanmean(padded(rows, max(ARM_HORIZONS)), 0))
        for name, rows in series.items()
    }


def horizon_power(cost: np.ndarray) -> float:
    """The power p of cost ~ T^p between horizons of 10 and 80 steps."""
    return float(np.log(cost[79] / cost[9]) / np.log(8))


def horizon_figure(series: dict[str, Sequence[np.ndarray]]) -> Figure:
    """Accumulated error against horizon, both on logarithmic axes."""
    fig, axes = figure(width=6.5, height=3.4)
    t = np.arange(1, max(ARM_HORIZONS) + 1)
    for i, (name, cost) in enumerate(accumulated(series).items()):
        power = horizon_power(cost)
        said = f"{name}: T^{power:.1f} (n = {len(series[name])})"
        axes.loglog(t, cost, **style(i), label=said)
        if i == 0:
            axes.loglog(t, cost[9] * (t / 10), "k-.", lw=1, label="T")
            axes.loglog(t, cost[9] * (t / 10) ** 2, "k:", lw=1, label="T²")
    axes.set_xlim(3, max(ARM_HORIZONS))
    for axis in (axes.xaxis, axes.yaxis):
        log_numbers(axis)
    label(axes, "horizon T, steps", "error added up, rad · steps")
    axes.legend()
    return fig
