"""What holds the virtual leader: shows the task to the arm, scene after scene.

Stands in for a person with a leader arm in their hand, so that `act record --robot` can
be tried, tested and measured from end to end without one. It sees the scene, moves the
leader as the demonstrator `human` would, and says which episodes were successes; what
is recorded comes through both buses and both cameras like everything else.
"""

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Literal

import numpy as np

from act_minimal.episodes import list_episodes, load_episode
from act_minimal.sim import make_task
from act_minimal.sim.demonstrators import make_expert
from act_minimal.sim.openarm.table import BimanualTask
from act_minimal.sim.recording import scene_seed
from act_minimal.sim.so100.arm import gripper_to_jaw
from act_minimal.sim.world import Task, Unreachable, start

from .client import SceneClient, Scenes

PATIENCE = 1.5  # s that the follower may take to be done after the leader is


class SimulatedOperator:
    """Shows a task by virtual leaders; answers as a person at the keys would.

    Args:
        followers: ports of the virtual arms, each of which stands in a scene.
        leaders: ports of their virtual leaders.
        scenes: tried one after the other.
        task: the followers' task.
        demonstrator: "human" or "scripted".
    """

    def __init__(
        self,
        followers: Sequence[str | Path],
        leaders: Sequence[str | Path],
        scenes: Iterable[int],
        *,
        task: str = "so100_pick_place",
        demonstrator: str = "human",
    ):
        self.task = make_task(task)
        self.scene = Scenes(followers)
        self.leaders = [SceneClient(port) for port in leaders]
        self._scenes = iter(scenes)
        self.number = -1  # of the scene that lies there now
        self._expert = make_expert(self.task, demonstrator)
        self._plans: list[np.ndarray] = []  # (T, A) as each leader takes it

    def prepare(self, number: int) -> None:
        """Lay the next scene, and hold the leader where the demonstration begins."""
        self._plans = []
        while not self._plans:
            self.number = next(self._scenes)
            laid = self.scene.lay(self.number)
            with contextlib.suppress(Unreachable):  # its style aims beyond the arm
                plans = [self._expert.plan(start(self.task, s), s) for s in laid]
                self._plans = [_held(self.task, plan) for plan in plans]
        for leader, plan in zip(self.leaders, self._plans, strict=True):
            leader.put(plan[0])

    def over(self, tick: int) -> bool:
        """Begin at the first tick; over when the task is done, or too late."""
        if tick == 0:
            for leader, plan in zip(self.leaders, self._plans, strict=True):
                leader.ask(play=[plan.tolist(), self.task.fps])
        seconds = (tick - max(map(len, self._plans))) / self.task.fps
        if seconds < 0:
            return False
        # As a person does: let go of the keys once it is seen to be done.
        return seconds > PATIENCE or self.scene.done()

    def verdict(self) -> Literal["keep", "discard"]:
        """Only successes are kept."""
        return "keep" if self.scene.done() else "discard"

    def close(self) -> None:
        """Disconnect from all."""
        self.scene.close()
        for leader in self.leaders:
            leader.close()


def _held(task: Task, plan: np.ndarray) -> np.ndarray:
    """A plan (T, A) as a leader takes it: a SO-100's jaw is an angle."""
    if isinstance(task, BimanualTask):
        return np.clip(plan, *task.action_limits.T)
    plan[:, 5] = gripper_to_jaw(plan[:, 5])
    return np.clip(plan, *task.model().jnt_range[:6].T)


def scenes_left(out: Path, seed: int) -> Iterator[int]:
    """The demonstration scenes of a seed, from after the last one that `out` holds."""
    paths = list_episodes(out)
    first = scene_seed(seed, 0)
    if paths:
        first = int(load_episode(paths[-1]).attributes.get("scene", first - 1)) + 1
    return count(first)
