"""The scene that a virtual arm stands in: objects, cameras, and whether it is done."""

import mujoco
import numpy as np

from act_minimal.sim.world import HOLD_TICKS, Task, World, start
from act_minimal.support.errors import UserError

ALONE = "alone"  # the name of a scene with nothing but the arm


class VirtualScene:
    """A simulated task around a virtual arm, or nothing; the seed is the noise's."""

    def __init__(self, task: Task | None, number: int = 0, seed: int = 0):
        self.task, self.number = task, number
        self.success = False
        self._held = self._steps = 0
        self._noise = np.random.default_rng(seed)
        self._world: World | None = None

    def lay(self, number: int) -> np.ndarray:
        """Positions (nq,) of a start, not yet done; UserError without objects."""
        if self.task is None or not self.task.env_state_dim:
            raise UserError("the scene 'alone' has no objects to lay")
        self.number, self.success, self._held = number, False, 0
        return start(self.task, number)

    def watch(self, data: mujoco.MjData) -> None:
        """After each step of physics: has the task been done for long enough?"""
        if self.task is None:
            return
        self._steps += 1
        if self._steps % self.task.substeps == 0:  # the task's own tick
            placed = bool(self.task.placed(data.qpos[None], data.qvel[None])[0])
            self._held = self._held + 1 if placed else 0
            self.success |= self._held >= HOLD_TICKS

    def objects(self, qpos: np.ndarray) -> list[float]:
        """Position (m) and quaternion (wxyz) of each, (E,), as policies know them."""
        return [] if self.task is None else self.task.env_state(qpos[None])[0].tolist()

    def picture(
        self, camera: str, size: tuple[int, int], qpos: np.ndarray
    ) -> np.ndarray:
        """What a camera sees, (H, W, 3) uint8; a hundredth of the values one brighter.

        That noise is a sensor's: no real picture comes twice.
        """
        if self.task is None:
            raise UserError("the scene 'alone' has no cameras; choose a task's scene")
        if self._world is None:
            self._world = World(self.task, 1)
        self._world.qpos[0] = qpos
        picture = self._world.render(camera, size)
        noisy = self._noise.integers(0, picture.size, picture.size // 100)
        flat = picture.reshape(-1)  # a view: the renderer gave a copy of its own
        flat[noisy] += flat[noisy] < 255
        return picture

    def close(self) -> None:
        """Free the renderers; by the thread that drew, as GL demands."""
        if self._world:
            self._world.close()
            self._world = None
