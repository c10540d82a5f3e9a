"""Simulated arms behind the Robot contract of `control.py`."""

from collections.abc import Mapping, Sequence

import numpy as np

from ..control import Observation
from .world import Task, World


class SimRobot:
    """`n` simulated arms, each in a scene of its own.

    A scene that is over (success, or `max_ticks` gone by) stands still and costs
    nothing more: its actions are dropped and its images stay black. `size` is that of
    `World.observe`.
    """

    def __init__(
        self,
        task: Task,
        seeds: Sequence[int],
        *,
        size: tuple[int, int] | Mapping[str, tuple[int, int]] = (96, 128),
        threads: int = 0,
    ):
        self.world = World(task, len(seeds), threads=threads)
        self.n, self.fps, self.size = len(seeds), float(task.fps), size
        self.action_dim, self.cameras = task.action_dim, task.cameras
        self.max_ticks = task.max_ticks
        self.seeds = tuple(seeds)

    @property
    def alive(self) -> np.ndarray:
        """Indices of the scenes that still run."""
        world = self.world
        return np.flatnonzero(~world.success & (world.ticks < world.task.max_ticks))

    @property
    def success(self) -> np.ndarray:
        """(n,) bool, which scenes have succeeded."""
        return self.world.success

    def connect(self) -> None:
        self.world.reset(self.seeds)

    def observe(self, cameras: Sequence[str] = ()) -> Observation:
        return self.world.observe(cameras, self.size, self.alive)

    def act(self, action: np.ndarray) -> None:
        self.world.step(action, self.alive)

    def close(self) -> None:
        self.world.close()
