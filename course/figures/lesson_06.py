"""Lesson 06: training runs, their curves, their checkpoints, and what decides them."""

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from tqdm.auto import tqdm

from act_minimal.checkpoint import load_policy, save_policy
from act_minimal.dataset import (
    Demonstrations,
    Statistics,
    Windows,
    indices_for_step,
)
from act_minimal.evaluation import Evaluation
from act_minimal.execution import ExecutionConfig
from act_minimal.policy import Policy, make_policy
from act_minimal.training import TrainResult, mix

from ..toolkit.paths import home
from ..toolkit.plots import (
    COLOURS,
    figure,
    label,
    log_numbers,
    plot_rates,
    still_layout,
    style,
)
from ..toolkit.runs import alone, rollouts, trained
from ..toolkit.training_plot import LiveCurve
from ..toolkit.widgets import Explorer, steps

HALF = ExecutionConfig()  # half of each chunk
JOINTS = ("shoulder pan", "shoulder lift", "elbow", "wrist flex", "wrist roll", "jaw")

# --- a run ----------------------------------------------------------------------------


def train_live(data: Path, **settings: Any) -> TrainResult:
    """Train with a curve that grows; all checkpoints are kept, and found again."""
    settings = {"keep": 0} | settings
    return trained(data, on_step=LiveCurve(), progress=False, **settings)


def checkpoints(run: TrainResult) -> dict[int, Path]:
    """The checkpoints of a run by their step."""
    found = [p for p in run.folder.parent.iterdir() if p.name.isdecimal()]
    return {int(p.name): p for p in sorted(found, key=lambda p: int(p.name))}


def roll_out_all(
    run: TrainResult, chosen: Sequence[int], n: int = 50, seed: int = 0
) -> dict[int, Evaluation]:
    """Roll the checkpoints of these steps out, all on the same scenes."""
    folders = checkpoints(run)
    return {
        step: rollouts(load_policy(folders[step]), n=n, seed=seed) for step in chosen
    }


def both_losses(
    policy: Policy, demos: Demonstrations, frames: int = 256
) -> tuple[float, float]:
    """L1 (normalised) with z drawn from the posterior, and with z = 0."""
    windows = Windows(demos, range(len(demos)), policy.chunk_size)
    batch = windows.batch(np.linspace(0, len(windows) - 1, frames).astype(int))
    noise = torch.Generator().manual_seed(0)
    eps = torch.randn(frames, policy.latent_dim, generator=noise)
    with torch.no_grad():
        drawn = float(policy.loss(batch, eps)[1]["l1"])
    return drawn, float(policy.validation_loss(batch)[0])


def rank_correlation(a: Sequence[float], b: Sequence[float]) -> float:
    """Spearman's: Pearson's correlation of the ranks; equal values share a rank.

    NaN where one of the two does not vary.
    """

    def ranks(x: Sequence[float]) -> np.ndarray:
        array = np.asarray(x, float)
        below = (array[None] < array[:, None]).sum(1)
        equal = (array[None] == array[:, None]).sum(1)
        return below + (equal - 1) / 2

    ra, rb = ranks(a), ranks(b)
    if ra.std() == 0 or rb.std() == 0:
        return float("nan")
    return float(np.corrcoef(ra, rb)[0, 1])


def smooth(values: Sequence[float] | np.ndarray, window: int) -> np.ndarray:
    """The mean over the last `window` values (fewer at the beginning)."""
    total = np.cumsum(np.concatenate([[0.0], np.asarray(values, float)]))
    end = np.arange(1, len(values) + 1)
    start = np.maximum(0, end - window)
    return (total[end] - total[start]) / (end - start)


# --- short runs -----------------------------------------------------------------------


def short_run(
    demos: Demonstrations, statistics: Statistics | None = None, **settings: Any
) -> tuple[Policy, np.ndarray]:
    """`train_short`, or what it gave for the same data and settings before."""
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    tables = [demos.qpos, demos.action, demos.env_state, demos.starts, demos.lengths]
    if statistics:
        tables += [*statistics.mean.values(), *statistics.std.values()]
    for table in tables:
        digest.update(np.ascontiguousarray(table).tobytes())
    folder = home() / "short_runs" / digest.hexdigest()[:12]
    with alone(folder):
        if not folder.exists():
            policy, losses = train_short(demos, statistics, **settings)
            finite = [x if np.isfinite(x) else None for x in losses.tolist()]
            save_policy(folder, policy, {"l1": finite})
    policy = load_policy(folder)
    return policy, np.array(policy.card["l1"], float)  # None becomes NaN


def train_short(
    demos: Demonstrations,
    statistics: Statistics | None = None,
    *,
    steps: int = 300,
    lr: float = 2e-3,
    chunk_size: int = 25,
    seed: int = 0,
    **model: Any,
) -> tuple[Policy, np.ndarray]:
    """The training loop with nothing around it: no validation, no files, no average.

    Steps of 64 windows from all demonstrations; the learning rate is constant after 20
    of warm-up. Statistics are by default the data's, with the floor on the deviation.

    Returns:
        The policy and the L1 of each step; NaN from where it came apart.
    """
    windows = Windows(demos, range(len(demos)), chunk_size)
    torch.manual_seed(seed)
    assert demos.env_state is not None
    model = {
        "state_dim": demos.qpos.shape[1],
        "action_dim": demos.action.shape[1],
    } | model
    model |= {"env_state_dim": demos.env_state.shape[1], "chunk_size": chunk_size}
    model = {"cvae_actions_per_token": 5} | model
    policy = make_policy("act", statistics or windows.statistics(), **model).train()
    optimizer = torch.optim.AdamW(policy.module.parameters(), lr, fused=True)
    losses = np.full(steps, np.nan)
    for step in tqdm(range(steps), desc="short run", leave=False):
        optimizer.param_groups[0]["lr"] = lr * min(1.0, (step + 1) / 20)
        batch = windows.batch(indices_for_step(len(windows), 64, step, seed))
        noise = torch.Generator().manual_seed(mix(seed, step + 1))
        eps = torch.randn(64, policy.latent_dim, generator=noise)
        loss, parts = policy.loss(batch, eps)
        if not torch.isfinite(loss):
            break
        loss.backward()
        torch.nn.utils.clip_grad_norm_(policy.module.parameters(), 10.0)
        optimizer.step()
        optimizer.zero_grad()
        losses[step] = float(parts["l1"])
    return policy.eval(), losses


def still_joint(
    demos: Demonstrations, tremor: float = 1e-4, seed: int = 0
) -> Demonstrations:
    """The demonstrations with a seventh joint that rested at 0.5 rad.

    `tremor` is the deviation of its encoder's noise, rad.
    """
    noise = np.random.default_rng(seed).normal(0.5, tremor, (len(demos.qpos), 1))
    qpos = np.concatenate([demos.qpos, noise.astype(np.float32)], 1)
    return dataclasses.replace(demos, qpos=qpos)


def error_when_moved(
    policy: Policy, demos: Demonstrations, offsets: Sequence[float], frames: int = 256
) -> list[float]:
    """L1 at z = 0 (normalised) when the still joint rests so many rad further on."""
    windows = Windows(demos, range(len(demos)), policy.chunk_size)
    batch = windows.batch(np.linspace(0, len(windows) - 1, frames).astype(int))
    errors = []
    for offset in offsets:
        qpos = batch["qpos"].clone()
        qpos[:, -1] += offset
        errors.append(float(policy.validation_loss(batch | {"qpos": qpos})[0]))
    return errors


# --- pictures -------------------------------------------------------------------------


def own_figure(losses: Sequence[float]) -> Figure:
    """L1 of the learner's own training, raw and smoothed."""
    fig, axes = figure(height=2.6)
    axes.plot(losses, color="#BBBBBB", lw=0.6, label="training")
    axes.plot(smooth(losses, 20), **style(0), label="mean of 20 steps")
    axes.set_yscale("log")
    log_numbers(axes.yaxis)
    axes.legend()
    label(axes, "step", "L1, normalised units")
    return fig


def rate_figure(runs: dict[float, np.ndarray]) -> Figure:
    """Smoothed losses of short runs, one a learning rate."""
    fig, axes = figure()
    for i, (rate, losses) in enumerate(runs.items()):
        axes.plot(smooth(losses, 20), **style(i), label=f"{rate:g}")
    axes.set_yscale("log")
    log_numbers(axes.yaxis)
    axes.legend(title="learning rate")
    label(axes, "step", "L1, normalised units")
    return fig


def moved_figure(
    offsets: Sequence[float], errors: dict[str, Sequence[float]]
) -> Figure:
    """Error against how far the still joint has moved since."""
    fig, axes = figure(height=2.8)
    for i, (name, line) in enumerate(errors.items()):
        axes.plot(np.rad2deg(offsets), line, **style(i, marker=True), label=name)
    axes.legend()
    label(axes, "the joint has moved by, degrees", "L1, normalised units")
    return fig


def run_explorer(run: TrainResult, rolled: dict[int, Evaluation]) -> Explorer:
    """Sliders for smoothing and checkpoint: the loss beside the success."""
    losses = np.array([r["l1"] for r in run.losses if "l1" in r])
    validated = {r["step"]: r["val_l1"] for r in run.losses if "val_l1" in r}
    fig, (left, right) = figure(2, width=8.0)
    left.plot(1 + np.arange(len(losses)), losses, color="#BBBBBB", lw=0.6, label="raw")
    (line,) = left.plot([], [], color=COLOURS[0], label="smoothed")
    left.plot(
        *zip(*validated.items(), strict=True),
        **style(1, marker=True),
        ms=4,
        label="held out, z = 0",
    )
    mark = left.axvline(0, color="black", ls=":")
    left.set_yscale("log")
    log_numbers(left.yaxis)
    left.legend()
    label(left, "step", "L1, normalised units")
    found = list(rolled)
    rates, intervals = zip(
        *((e.rate, e.interval) for e in rolled.values()), strict=True
    )
    plot_rates(right, found, rates, intervals, fmt="o", color=COLOURS[2])
    (ring,) = right.plot([], [], "o", ms=13, mfc="none", mec="black", mew=2)
    right.set_ylim(-4, 104)
    n = rolled[found[0]].n
    label(right, "step", f"success, % (n = {n} each)")
    still_layout(fig)

    def draw(window: int, checkpoint: int) -> tuple[Figure, str]:
        now = smooth(losses, window)
        line.set_data(1 + np.arange(len(losses)), now)
        mark.set_xdata([checkpoint, checkpoint])
        one = rolled[checkpoint]
        ring.set_data([checkpoint], [100 * one.rate])
        return fig, (
            f"Step {checkpoint}: training L1 {now[checkpoint - 1]:.3f} (mean of "
            f"{window} steps), held out {validated[checkpoint]:.3f}; success {one}."
        )

    steepest = max(
        range(1, len(found)),
        key=lambda i: rolled[found[i]].rate - rolled[found[i - 1]].rate,
    )
    return Explorer(
        "Smooth until you see a trend. Between which two checkpoints does success jump "
        "most, and does a loss tell you?",
        draw,
        window=steps("smoothing, steps", [1, 5, 10, 20, 50, 100, 200], 20),
        checkpoint=steps("checkpoint", found, found[steepest]),
    )


def joint_lines(demos: Demonstrations) -> list[str]:
    """A line a joint: mean, deviation and range of its action."""
    return [
        f"{name:14} mean {x.mean():6.2f}, deviation {x.std():5.2f}, "
        f"from {x.min():5.2f} to {x.max():5.2f}"
        for name, x in zip(JOINTS, demos.action.T, strict=True)
    ]


def compared_film(
    ours: tuple[Evaluation, Policy], theirs: tuple[Evaluation, Policy], path: Path
) -> Path:
    """A film of two policies on one scene, where only one succeeds if there is one."""
    from act_minimal.sim import make_task
    from act_minimal.sim.film import Take, film

    pairs = zip(ours[0].rollouts, theirs[0].rollouts, strict=True)
    pair = min(pairs, key=lambda pair: pair[0].success == pair[1].success)
    policies = ours[1], theirs[1]
    takes = [
        Take(f"{name}, scene {one.scene}", one.qpos, one.success, policy)
        for name, one, policy in zip(("own", "package"), pair, policies, strict=True)
    ]
    task = make_task("so100_pick_place")
    return film(task, takes, path, progress=False)
