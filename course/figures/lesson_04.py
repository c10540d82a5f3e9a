"""Lesson 04: what overlapping chunks say about one tick, and what averaging does."""

from dataclasses import dataclass, field

import numpy as np
from matplotlib.figure import Figure

from act_minimal.control import Observation, run
from act_minimal.evaluation import Evaluation, jerk
from act_minimal.execution import ExecutionConfig, RecedingHorizon, ensemble_offline
from act_minimal.policy import Policy

from ..toolkit.plots import COLOURS, figure, label, style
from ..toolkit.widgets import Explorer, choice, slider

JOINT = 1  # shoulder lift: it moves most


@dataclass(frozen=True)
class Trace:
    """One rollout in which the policy was asked at every tick.

    Attributes:
        chunks: (T, k, A) what it predicted at each tick, rad.
        executed: (T, A) what was sent: half a chunk, then the next.
        fps: ticks a second.
        seen: what the policy saw at each tick: key -> (T, ...).
    """

    chunks: np.ndarray
    executed: np.ndarray
    fps: float
    seen: dict[str, np.ndarray] = field(default_factory=dict, repr=False)


def trace(policy: Policy, scene: int = 0, ticks: int = 150) -> Trace:
    """Ask at every tick, execute half of every chunk, keep everything."""
    from act_minimal.sim import make_task
    from act_minimal.sim.robot import SimRobot

    robot = SimRobot(make_task("so100_pick_place"), [scene], threads=1)
    executor = _Keep(policy.chunk_size // 2)
    seen: list[Observation] = []
    executed: list[np.ndarray] = []

    def on_tick(tick: int, observation: Observation, action: np.ndarray) -> None:
        seen.append(observation)
        executed.append(action[0])

    robot.connect()
    try:
        run(robot, policy, executor, ticks, on_tick=on_tick)
    finally:
        robot.close()
    together = {key: np.concatenate([one[key] for one in seen]) for key in seen[0]}
    return Trace(np.stack(executor.chunks), np.stack(executed), robot.fps, together)


class _Keep:
    """An executor that asks at every tick, keeps all, executes `h` of every h-th."""

    def __init__(self, h: int):
        self.h = h
        self.reset()

    def reset(self) -> None:
        self.chunks: list[np.ndarray] = []  # (k, A) each

    def needs_chunk(self) -> bool:
        return True

    def step(self, chunk: np.ndarray | None) -> np.ndarray:
        assert chunk is not None
        self.chunks.append(chunk[0])
        tick = len(self.chunks) - 1
        return self.chunks[tick - tick % self.h][None, tick % self.h]  # (1, A)


def fan(found: Trace) -> Figure:
    """Every 5th chunk as a line over time, from the tick at which it was made."""
    fig, axes = figure()
    for t in range(0, len(found.chunks), 5):
        chunk = found.chunks[t, :, JOINT]
        seconds = (t + np.arange(len(chunk))) / found.fps
        axes.plot(seconds, chunk, color=COLOURS[5], lw=0.8, alpha=0.7)
    seconds = np.arange(len(found.executed)) / found.fps
    axes.plot(seconds, found.executed[:, JOINT], color="black", label="executed")
    axes.plot([], [], color=COLOURS[5], lw=0.8, label="predicted, every 5th chunk")
    label(axes, "time, s", "shoulder lift, rad")
    axes.legend()
    return fig


def mean_age(m: float, k: int, oldest_first: bool = True) -> float:
    """Mean age in ticks of what a full ensemble of k predictions averages."""
    i = np.arange(k)  # 0 = the oldest if oldest_first
    weight = np.exp(-m * i - (-m * i).max())
    age = k - 1 - i if oldest_first else i
    return float((weight * age).sum() / weight.sum())


class LowPass(RecedingHorizon):
    """Half of each chunk, then a first-order low-pass filter over the commands.

    The control for the ensemble with m = 0.01: the commands that the filter averages
    are as old, on average, as the predictions that the ensemble averages.
    """

    m = 0.01

    def __init__(self, chunk_size: int):
        super().__init__(chunk_size, max(1, chunk_size // 2))
        # An exponential average with this gain has the mean age (1 - gain) / gain.
        self.gain = 1 / (1 + mean_age(self.m, chunk_size))

    def reset(self) -> None:
        super().reset()
        self.smooth: np.ndarray | None = None  # (n, A)

    def step(self, chunk: np.ndarray | None) -> np.ndarray:
        command = super().step(chunk)
        if self.smooth is None:
            self.smooth = command
        self.smooth = self.smooth + self.gain * (command - self.smooth)
        return self.smooth


class ShortLowPass(LowPass):
    """The control for the ensemble with m = -0.1."""

    m = -0.1


def low_pass(short: bool = False) -> ExecutionConfig:
    """The settings that execute with `LowPass`, or with `ShortLowPass`."""
    return ExecutionConfig(f"{__name__}:{'ShortLowPass' if short else 'LowPass'}")


def reaction(policy: Policy, found: Trace, m: float, at: int) -> np.ndarray:
    """How much of a sudden change the ensemble has taken in, from tick `at` on.

    The rollout is looked at again with the cube 3 cm further in x from tick `at`.
    What the newest prediction changes by is 1, what the ensemble changes by a share.

    Returns:
        (T - at,) share of the change, 1 = as the newest prediction.
    """
    moved = {key: value[at:].copy() for key, value in found.seen.items()}
    moved["env_state"][:, 0] += 0.03
    chunks = np.concatenate([found.chunks[:at], policy.predict_chunk(moved)])
    newest = (chunks - found.chunks)[at:, 0]  # (T - at, A)
    both = [ensemble_offline(x[:, None], m)[at:, 0] for x in (chunks, found.chunks)]
    change = both[0] - both[1]  # (T - at, A)
    # Where the newest prediction hardly changes there is nothing to react to.
    size = np.maximum((newest**2).sum(1), 1e-6)
    return (change * newest).sum(1) / size


def reaction_figure(
    policy: Policy, found: Trace, decays: tuple[float, ...], at: int
) -> tuple[Figure, dict[float, float]]:
    """Reaction over 40 ticks for several m, and the ticks until half of it is there."""
    fig, axes = figure()
    half = {}
    for i, m in enumerate(decays):
        share = reaction(policy, found, m, at)[:40]
        half[m] = float(np.argmax(share >= 0.5)) if (share >= 0.5).any() else np.inf
        axes.plot(share, **style(i), label=f"m = {m:g}")
    axes.axhline(0.5, color="black", lw=0.8)
    axes.set_ylim(-0.2, 1.4)
    label(axes, "ticks since the cube moved", "share of the change", "one rollout")
    axes.legend(loc="upper left", ncols=4)
    return fig, half


def outcome(name: str, rollouts: Evaluation) -> str:
    """A line about rollouts: success, median time to it, jerk, time spent frozen."""
    took = rollouts.seconds_to_success
    seconds = "" if took is None else f", {took:.1f} s"
    return (
        f"{name:18} {rollouts}{seconds}, jerk {rollouts.jerk:.0f} rad/s³, "
        f"frozen {100 * rollouts.frozen:.0f} %"
    )


def roughness(commands: np.ndarray, fps: float) -> float:
    """Root mean square third difference of commanded joint targets (T, A), rad/s³.

    The formula is that of `jerk`, which is measured on joint positions: the servos
    round off what jumps in the commands. The gripper, the last action, is left out.
    """
    return jerk(commands[:, :-1], fps)


def ensemble_explorer(found: Trace) -> Explorer:
    """Sliders for the weight and its direction over one recorded rollout."""
    k = found.chunks.shape[1]
    seconds = np.arange(len(found.chunks)) / found.fps
    half = roughness(found.executed, found.fps)
    fig, (left, right) = figure(2, height=3.0)
    executed = found.executed[:, JOINT]
    left.plot(seconds, executed, color="black", lw=1, label="half of each chunk")
    (line,) = left.plot([], [], **style(1), label="ensembled")
    left.legend(loc="lower right", fontsize=9)
    label(left, "time, s", "shoulder lift, rad")
    (bars,) = right.plot([], [], color=COLOURS[0])
    right.set_xlim(k, 0)
    label(right, "age of a prediction, ticks", "its weight")

    def draw(m: float, direction: str) -> tuple[Figure, str]:
        oldest_first = direction == "oldest first"
        actions = ensemble_offline(found.chunks[:, None], m, oldest_first)[:, 0]
        line.set_data(seconds, actions[:, JOINT])
        weight = np.exp(-m * np.arange(k) - max(0.0, -m * (k - 1)))
        weight /= weight.sum()
        age = np.arange(k)[::-1] if oldest_first else np.arange(k)
        bars.set_data(age, weight)
        right.set_ylim(0, 1.1 * weight.max())
        return fig, (
            f"m = {m:g}, i counts from the {direction.split()[0]}: the predictions "
            f"averaged are {mean_age(m, k, oldest_first):.1f} ticks old on average; "
            f"command roughness {roughness(actions, found.fps):.0f} rad/s³ (half of "
            f"each chunk: {half:.0f})."
        )

    return Explorer(
        "Which m keeps the action fresh, and how rough are the commands then?",
        draw,
        m=slider("m", -0.3, 0.3, 0.01, 0.01),
        direction=choice(
            "order of i", ["oldest first", "newest first"], "oldest first"
        ),
    )
