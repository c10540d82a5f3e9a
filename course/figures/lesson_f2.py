"""Lesson F2: the post again, with heads that can go both ways."""

import copy
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle

from act_minimal.control import Observation, run
from act_minimal.dataset import Demonstrations
from act_minimal.evaluation import Rate
from act_minimal.execution import ExecutionConfig
from act_minimal.policy import Policy
from act_minimal.realtime import InTicks, make_late_executor

from ..toolkit import toys
from ..toolkit.paths import home
from ..toolkit.plots import COLOURS, figure, label, still_layout, style
from ..toolkit.runs import alone, trained
from ..toolkit.widgets import Explorer, slider, steps

TEACHERS = 100
NETWORK = {"width": 64, "feedforward": 128, "heads": 2, "encoder_layers": 1}
NETWORK |= {"use_cvae": False}
LEARNING: dict[str, Any] = {
    "chunk_size": 40,
    "steps": 1000,
    "lr": 2e-3,
    "state_noise": 0.02,
    "threads": 1,
    "val_fraction": 0.0,
    "tensorboard": False,
}


def teachers(folder: Path | None = None, seed: int = 0) -> Path:
    """Demonstrations around the post, half of them on each side; made once."""
    folder = folder or home() / "demonstrations" / f"post_{TEACHERS}_{seed}"
    with alone(folder):
        if not folder.exists():
            toys.record(toys.Post, folder, TEACHERS, seed)
    return folder


def learnt(data: Path, head: str) -> Policy:
    """A small ACT with this head, trained on the teachers; found again."""
    settings: dict[str, Any] = LEARNING | {"model": network(head)}
    return trained(data, **settings).policy


def network(head: str) -> dict[str, Any]:
    """Settings of a small ACT with this head."""
    return NETWORK | {"head": head}


def with_steps(policy: Policy, n: int) -> Policy:
    """The same policy, whose chunks take n steps from the noise."""
    twin = copy.deepcopy(policy)
    twin.module.config = twin.config = replace(twin.config, head_steps=n)
    return twin


# --- walks past the post --------------------------------------------------------------


@dataclass(frozen=True)
class Walks:
    """Where hands went.

    Attributes:
        paths: (n, T, 2) m.
        success: (n,) came to the other side, and not too near to the post.
    """

    paths: np.ndarray
    success: np.ndarray

    @property
    def left(self) -> np.ndarray:
        """(n,) passed the post on its left."""
        beside = np.abs(self.paths[:, :, 1]).argmin(1)
        x = self.paths[np.arange(len(self.paths)), beside, 0]
        return np.asarray(self.success & (x < 0))

    @property
    def rate(self) -> Rate:
        """Of the walks that passed."""
        return Rate(int(self.success.sum()), len(self.success))

    def __str__(self) -> str:
        passed = max(1, int(self.success.sum()))
        share = 100 * self.left.sum() / passed
        return f"passes {self.rate}; {share:.0f} % of these on the left"


def shown(data: Path) -> Walks:
    """The teachers' own walks."""
    demos = Demonstrations.load(data, use_env_state=True)
    paths = demos.qpos.reshape(len(demos), -1, 2)
    return Walks(paths, np.ones(len(paths), bool))


def walk(policy: Policy, n: int = 200, seed: int = 0, execute: int = 20) -> Walks:
    """Let a policy walk from n starts that no teacher had."""
    robot = toys.Post(range(1000 * seed, 1000 * seed + n))
    robot.connect()
    policy.reseed(seed)
    places: list[np.ndarray] = []

    def on_tick(tick: int, observation: Observation, action: np.ndarray) -> bool:
        places.append(observation["qpos"])
        return False

    how = ExecutionConfig("receding", execute=execute)
    executor = make_late_executor(how, policy.chunk_size)
    inference = InTicks(policy)
    run(robot, policy, executor, robot.ticks, inference=inference, on_tick=on_tick)
    return Walks(np.stack(places, 1), robot.success)


def _post(axes: Axes) -> None:
    axes.add_patch(Circle((0, 0), toys.Post.RADIUS, color="0.6"))
    axes.set(xlim=(-0.8, 0.8), ylim=(-1.15, 1.15), aspect="equal")


def walks_figure(found: Mapping[str, Walks], n: int = 40) -> Figure:
    """Some walks of each: those that passed, and those that did not, dashed."""
    fig, axes = figure(len(found), width=2.6 * max(2, len(found)), height=3.4)
    for place, (name, walks) in zip(np.atleast_1d(axes), found.items(), strict=True):
        _post(place)
        for path, well in zip(walks.paths[:n], walks.success[:n], strict=True):
            how = {"color": COLOURS[0], "lw": 0.7, "alpha": 0.6}
            bad = {"color": COLOURS[1], "lw": 1.4, "ls": "--"}
            place.plot(*path.T, **(how if well else bad))
        label(place, "x, m", "y, m", f"{name}, n = {min(n, len(walks.paths))}")
    return fig


# --- many answers at one place --------------------------------------------------------


def at_start(x: float = 0.0) -> Observation:
    """What a hand sees x m beside the middle of the start, n = 1."""
    return {
        "qpos": np.array([[x, -1.0]], np.float32),
        "env_state": np.zeros((1, 1), np.float32),
    }


def choices(policy: Policy, n: int, seed: int = 0) -> np.ndarray:
    """(n,) whether each of n chunks for one and the same observation goes left."""
    chunks = policy.sample_chunks(at_start(), n, seed)[:, 0]  # (n, k, 2)
    return np.asarray(chunks[:, -1, 0] < 0)


def chunks_figure(policies: Mapping[str, Policy], n: int = 30) -> Figure:
    """Several chunks of each for one and the same observation."""
    fig, axes = figure(len(policies), width=2.6 * max(2, len(policies)), height=3.4)
    for place, (name, policy) in zip(
        np.atleast_1d(axes), policies.items(), strict=True
    ):
        _post(place)
        for chunk in policy.sample_chunks(at_start(), n)[:, 0]:
            place.plot(*chunk.T, color=COLOURS[0], lw=0.8, alpha=0.7)
        place.plot(0, -1, "o", color="black")
        label(place, "x, m", "y, m", f"{name}, n = {n}")
    return fig


def first_chunks(policy: Policy, n: int = 61) -> tuple[np.ndarray, np.ndarray]:
    """(n,) starts beside the middle, m, and the first chunk (n, k, 2) from each."""
    starts = np.linspace(-0.03, 0.03, n)
    seen = [at_start(x) for x in starts]
    many = {key: np.concatenate([one[key] for one in seen]) for key in seen[0]}
    policy.reseed(0)
    return starts, policy.predict_chunk(many)


def through(chunks: np.ndarray) -> np.ndarray:
    """(n,) whether each chunk (n, k, 2) leads through the post."""
    return np.asarray(np.hypot(*chunks.T).min(0) < toys.Post.RADIUS)


def starts_figure(policies: Mapping[str, Policy]) -> Figure:
    """Where the first chunk ends, for starts from left to right of the middle."""
    fig, axes = figure(len(policies), width=3.6 * max(2, len(policies)), height=3.0)
    for place, (name, policy) in zip(
        np.atleast_1d(axes), policies.items(), strict=True
    ):
        starts, chunks = first_chunks(policy)
        bad = through(chunks)
        for which, how in ((~bad, "o"), (bad, "x")):
            colour = COLOURS[1] if how == "x" else COLOURS[0]
            words = "through the post" if how == "x" else "past the post"
            ends = chunks[which, -1, 0]
            place.plot(100 * starts[which], ends, how, color=colour, ms=4, label=words)
        place.set(ylim=(-0.6, 0.6))
        place.legend(fontsize=9, loc="upper left")
        title = f"{name}, n = {len(starts)}"
        label(place, "start, cm beside the middle", "x of the last action, m", title)
    return fig


@torch.no_grad()
def stages(policy: Policy, x: float, noise: np.ndarray, n: int) -> np.ndarray:
    """Chunks (n + 1, N, k, 2) on their way from noise (N, k, 2), in n Euler steps."""
    seen = {k: np.repeat(v, len(noise), 0) for k, v in at_start(x).items()}
    given = {k: torch.from_numpy(v) for k, v in seen.items()}
    ask, *_ = policy.module.asked(policy._inputs(given))
    place = torch.from_numpy(noise)
    found = [place]
    for i in range(n):
        t = torch.full((len(noise),), i / n)
        place = place + ask(place, t) / n
        found.append(place)
    scale = policy.scale("action")
    return np.stack([scale.restore(one).numpy() for one in found])


def flow_explorer(policy: Policy, n: int = 24) -> Explorer:
    """Sliders on steps, seed and start: the chunks, and how noise became them."""
    fig, (left, right) = figure(2, width=8.0, height=3.4)
    _post(left)
    lines = [left.plot([], [], color=COLOURS[0], lw=0.8)[0] for _ in range(n)]
    (start,) = left.plot([], [], "o", color="black")
    ways = [right.plot([], [], **style(0), lw=0.8)[0] for _ in range(n)]
    right.set(xlim=(0, 1), ylim=(-0.6, 0.6))
    label(left, "x, m", "y, m", f"{n} chunks, one observation")
    label(right, "t", "x of the last action, m", "from noise to action")
    still_layout(fig)

    def draw(steps: int, seed: int, x: float) -> tuple[Figure, str]:
        rng = np.random.default_rng([seed, 8])
        shape = n, policy.chunk_size, 2
        found = stages(policy, x, rng.standard_normal(shape, np.float32), steps)
        for i in range(n):
            lines[i].set_data(*found[-1, i].T)
            ways[i].set_data(np.linspace(0, 1, steps + 1), found[:, i, -1, 0])
        start.set_data([x], [-1])
        went = int((found[-1, :, -1, 0] < 0).sum())
        hits = int(through(found[-1]).sum())
        return fig, (
            f"{steps} steps: {went} of {n} chunks end on the left, {n - went} on the "
            f"right; {hits} lead through the post."
        )

    return Explorer(
        "What does one step give? What do more steps change?",
        draw,
        steps=steps_control(),
        seed=slider("seed of the noise", 0, 9, 0, 1),
        x=slider("start, m beside the middle", -0.03, 0.03, 0.0, 0.01),
    )


def steps_control() -> Any:
    """The slider on steps."""
    return steps("steps", [1, 2, 3, 5, 10, 20], 5)


def milliseconds(policy: Policy, seen: Observation | None = None) -> float:
    """Median time of a prediction for one robot, of 30; of a hand at the start."""
    seen, times = seen or at_start(), []
    for _ in range(33):
        begun = time.perf_counter()
        policy.predict_chunk(seen)
        times.append(1000 * (time.perf_counter() - begun))
    return float(np.median(times[3:]))


def outcome(name: str, policy: Policy, n: int = 200) -> str:
    """A line about a policy: walks, choices at one place, time of a chunk."""
    share = 100 * choices(policy, 200).mean()
    return (
        f"{name:10} {walk(policy, n)}; at one place {share:.0f} % go left; "
        f"{milliseconds(policy):.1f} ms a chunk"
    )
