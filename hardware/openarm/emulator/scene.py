"""The scene that a virtual OpenArm stands in: its model, its objects, its cameras."""

from typing import Any

import mujoco
import numpy as np

from act_minimal.errors import SettingError, UserError
from act_minimal.sim import make_task
from act_minimal.sim.bimanual import TABLE, BimanualTask
from act_minimal.sim.world import HOLD_TICKS, Task, World, start

from ..model import load_alone

ALONE = "alone"


class Scene:
    """What is around the arms; with a task, also whether it is done.

    Args:
        name: "alone" for the maker's model with nothing around it, or a simulated task
            of two OpenArms.
        number: of the task's start.

    Raises:
        SettingError: no such task, or it is none of two OpenArms.
    """

    def __init__(self, name: str = ALONE, number: int = 0):
        self.name = name
        self.task: Task | None = None if name == ALONE else make_task(name)
        if not (self.task is None or isinstance(self.task, BimanualTask)):
            raise SettingError(f"task is '{name}', which is none of two OpenArms")
        self.number = number
        self.model = load_alone() if self.task is None else self.task.model()
        self.table = None if self.task is None else TABLE
        """m over the ground; None for no table."""
        self.success = False
        self._held = self._steps = 0
        self._world: World | None = None

    def lay(self, number: int) -> np.ndarray | None:
        """The positions (nq,) of start `number`; None where there is nothing to lay."""
        self.number, self.success, self._held = number, False, 0
        return None if self.task is None else start(self.task, number)

    def watch(self, data: mujoco.MjData) -> None:
        """After each step of physics: has the task been done for long enough?"""
        if self.task is None:
            return
        self._steps += 1
        if self._steps % self.task.substeps == 0:  # the task's own tick
            placed = bool(self.task.placed(data.qpos[None], data.qvel[None])[0])
            self._held = self._held + 1 if placed else 0
            self.success |= self._held >= HOLD_TICKS

    def places(self, qpos: np.ndarray) -> list[float]:
        """Of the objects, at positions (nq,): (E,) as the task tells them."""
        return [] if self.task is None else self.task.env_state(qpos[None])[0].tolist()

    def picture(self, camera: str, size: tuple[int, int], qpos: Any) -> np.ndarray:
        """What a camera sees, (H, W, 3) uint8.

        Raises:
            UserError: there is no such camera.
        """
        if self.task is None:
            raise UserError("the scene 'alone' has no cameras; choose a task's scene")
        if self._world is None:
            self._world = World(self.task, 1)
        self._world.qpos[0] = qpos
        return self._world.render(camera, size)

    def close(self) -> None:
        """Free the renderers; by the thread that drew, GL wants it so."""
        if self._world:
            self._world.close()
            self._world = None
