"""What an arm does: demonstrations sent to it again, and the policy rolled out.

Anything that fulfils the `Robot` contract and knows of its successes will do; recorded
trials of a real arm are read from episode files. Letters: n scenes, T ticks, S state, A
action, L looks.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ..control import Observation, Robot, run
from ..dataset import Demonstrations
from ..episodes import find_episodes, load_episode
from ..evaluation import Rate
from ..execution import ExecutionConfig
from ..policy import Policy
from ..realtime import make_late_executor
from ..support.errors import UserError
from ..support.hdf5_files import is_true
from .evidence import Evidence

AFTER = 20  # ticks that the last action of a replay is held
LOOKS = 8  # images kept of a recorded trial


class Judged(Robot, Protocol):
    """A robot in scenes of known numbers, which knows what succeeded."""

    max_ticks: int

    @property
    def alive(self) -> np.ndarray:
        """Which scenes still run."""
        ...

    @property
    def success(self) -> np.ndarray:
        """(n,) bool."""
        ...


MakeRobot = Callable[[Sequence[int]], Judged]


@dataclass
class Trial:
    """One: what the arm measured, what it was sent, what came of it."""

    qpos: np.ndarray
    """(T, S)"""
    action: np.ndarray
    """(T, A)"""
    images: dict[str, np.ndarray] = field(default_factory=dict)
    """camera -> (L, H, W, 3), at some ticks, the first one among them"""
    start: np.ndarray | None = None
    """(E,) where the objects lay at the start, where that is known"""
    success: bool | None = None


@dataclass
class Trials:
    """What was run, and how."""

    evidence: Evidence
    new: list[Trial] = field(default_factory=list)
    """The policy on scenes that it does not know, or on a real arm."""
    known: list[Trial] = field(default_factory=list)
    """The policy on scenes of its demonstrations."""
    replayed: list[Trial] = field(default_factory=list)
    """Demonstrations sent again."""
    execution: ExecutionConfig = field(default_factory=ExecutionConfig)
    make_robot: MakeRobot | None = None
    """For replays with something changed, which explain why others fail."""
    episodes: Sequence[int] = ()
    """Numbers of the demonstrations that were replayed."""
    explained: str = ""
    """What was found already and makes replays fail; a key of `CAUSES`."""

    @property
    def all(self) -> list[Trial]:
        return self.new + self.known + self.replayed


def rate(trials: Sequence[Trial]) -> Rate | None:
    """Of those that were judged."""
    judged = [t.success for t in trials if t.success is not None]
    return Rate(sum(judged), len(judged)) if judged else None


def roll_out(
    policy: Policy, make_robot: MakeRobot, execution: ExecutionConfig, scenes: list[int]
) -> list[Trial]:
    """The policy in these scenes, side by side."""
    robot = make_robot(scenes)
    watches = [Watch() for _ in scenes]

    def on_tick(tick: int, seen: Observation, action: np.ndarray) -> bool:
        for i in robot.alive:
            watches[i].add(seen, i, action[i])
        return len(robot.alive) == 0

    robot.connect()
    try:
        executor = make_late_executor(execution, policy.chunk_size)
        run(robot, policy, executor, robot.max_ticks, on_tick=on_tick)
        success = robot.success
    finally:
        robot.close()
    return _judged(watches, success)


def replay(
    demos: Demonstrations,
    make_robot: MakeRobot,
    episodes: Sequence[int],
    change: Callable[[np.ndarray], np.ndarray] = lambda action: action,
) -> list[Trial]:
    """The recorded actions of some episodes, sent to their scenes again, unseeing.

    Args:
        change: what is done to actions (n, A) before they are sent.
    """
    scenes = [int(str(demos.attributes[i]["scene"])) for i in episodes]
    robot, watches = make_robot(scenes), [Watch() for _ in scenes]
    starts, lengths = demos.starts[list(episodes)], demos.lengths[list(episodes)]
    robot.connect()
    try:
        for t in range(int(lengths.max()) + AFTER):
            alive = robot.alive[t < lengths[robot.alive] + AFTER]
            if len(alive) == 0:
                break
            action = demos.action[starts + np.minimum(t, lengths - 1)]  # (n, A)
            seen = robot.observe()
            for i in alive:
                watches[i].add(seen, i, action[i])
            robot.act(change(action))
        success = robot.success
    finally:
        robot.close()
    return _judged(watches, success)


class Watch:
    """Keeps what is seen and told in one trial, tick by tick."""

    def __init__(self) -> None:
        self.rows: list[tuple[np.ndarray, np.ndarray]] = []
        self.looks: dict[str, list[np.ndarray]] = {}
        self.start: np.ndarray | None = None

    def add(self, seen: Observation, i: int, action: np.ndarray) -> None:
        """Row i of an observation, and the action (A,) that followed."""
        if not self.rows and "env_state" in seen:
            self.start = seen["env_state"][i].copy()
        self.rows.append((seen["qpos"][i].copy(), np.array(action)))
        for key, images in seen.items():
            if key.startswith("images/"):
                kept = self.looks.setdefault(key.removeprefix("images/"), [])
                if len(kept) < LOOKS:
                    kept.append(images[i].copy())

    def trial(self, success: bool | None) -> Trial:
        """All of it, once there was a tick."""
        qpos, action = (np.array(x) for x in zip(*self.rows, strict=True))
        images = {camera: np.array(x) for camera, x in self.looks.items()}
        return Trial(qpos, action, images, self.start, success)


def _judged(watches: list[Watch], success: np.ndarray) -> list[Trial]:
    return [w.trial(bool(won)) for w, won in zip(watches, success, strict=True)]


def recorded(folder: Path, cameras: Sequence[str], fps: float) -> list[Trial]:
    """Trials that were recorded as episodes, on whatever arm.

    UserError if they were driven at another rate than `fps`.
    """
    found = []
    for path in find_episodes(folder):
        episode = load_episode(path, cameras=cameras or None, images=bool(cameras))
        if episode.fps != fps:
            raise UserError(
                f"{path} has {episode.fps:g} frames a second, but the demonstrations "
                f"{fps:g}: the policy was driven at another rate than it was taught"
            )
        looks = np.unique(np.linspace(0, len(episode) - 1, LOOKS).round().astype(int))
        said: Any = episode.attributes.get("success")
        found.append(
            Trial(
                episode.qpos,
                episode.action,
                {c: images[looks] for c, images in episode.images.items()},
                None if episode.env_state is None else episode.env_state[0],
                None if said is None else is_true(said),
            )
        )
    return found


def phases(trials: Sequence[Trial], grippers: Sequence[int]) -> dict[str, int]:
    """How far failed trials came, by what the grippers were told."""
    counts: dict[str, int] = {}
    for trial in trials:
        if trial.success is not False:  # nobody judged some
            continue
        told = trial.action[:, list(grippers)]  # (T, grippers)
        open_ = told > (told.min(0) + told.max(0)) / 2
        turns = np.diff(open_.astype(int), axis=0)  # -1 closes, 1 opens
        where = "before a gripper closed"
        for turn in turns.T:
            closes = np.flatnonzero(turn == -1)
            if len(closes) and (turn[closes[0] :] == 1).any():
                where = "after a gripper opened again"
                break
            if len(closes):
                where = "with a gripper closed"
        counts[where] = counts.get(where, 0) + 1
    return counts
