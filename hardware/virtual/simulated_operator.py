"""What holds the virtual leader: shows the task to the arm, scene after scene.

Stands in for a person with a leader arm in their hand, so that `act record --robot` can
be tried, tested and measured from end to end without one. It sees the scene, moves the
leader as the demonstrator `human` would, and says which episodes were successes; what
is recorded comes through both buses and both cameras like everything else.
"""

from collections.abc import Iterable, Iterator
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
from act_minimal.sim.world import Task, start

from .client import SceneClient

PATIENCE = 1.5  # s that the follower may take to be done after the leader is


class SimulatedOperator:
    """Shows a task by a virtual leader; answers as a person at the keys would.

    Args:
        follower: port of the virtual arm that stands in the scene.
        leader: port of the virtual leader.
        scenes: tried one after the other.
        task: the follower's task.
        demonstrator: "human" or "scripted".
    """

    def __init__(
        self,
        follower: str | Path,
        leader: str | Path,
        scenes: Iterable[int],
        *,
        task: str = "so100_pick_place",
        demonstrator: str = "human",
    ):
        self.task = make_task(task)
        self.scene, self.leader = SceneClient(follower), SceneClient(leader)
        self._scenes = iter(scenes)
        self.number = -1  # of the scene that lies there now
        self._expert = make_expert(self.task, demonstrator)
        self._plan = np.zeros((0, self.task.action_dim))  # as the leader takes it

    def prepare(self, number: int) -> None:
        """Lay the next scene, and hold the leader where the demonstration begins."""
        self.number = next(self._scenes)
        self.scene.lay(self.number)
        plan = self._expert.plan(start(self.task, self.number), self.number)
        self._plan = _held(self.task, plan)
        self.leader.put(self._plan[0])

    def over(self, tick: int) -> bool:
        """Begin at the first tick; over when the task is done, or too late."""
        if tick == 0:
            self.leader.ask(play=[self._plan.tolist(), self.task.fps])
        seconds = (tick - len(self._plan)) / self.task.fps
        if seconds < 0:
            return False
        # As a person does: let go of the keys once it is seen to be done.
        return seconds > PATIENCE or bool(self.scene.look()["success"])

    def verdict(self) -> Literal["keep", "discard"]:
        """Only successes are kept."""
        return "keep" if self.scene.look()["success"] else "discard"

    def close(self) -> None:
        """Disconnect from both."""
        self.scene.close()
        self.leader.close()


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
