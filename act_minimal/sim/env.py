"""The tasks as Gymnasium environments, one scene or many."""

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from ..support.errors import UserError
from . import make_task
from .world import DEMONSTRATION_SCENES, Task, World


def _spaces(
    task: Task, cameras: Sequence[str], size: tuple[int, int]
) -> tuple[spaces.Dict, spaces.Box]:
    state, pose = len(task.joints), task.env_state_dim
    parts: dict[str, spaces.Space] = {
        "qpos": spaces.Box(-7.0, 7.0, (state,), np.float32),
        "qvel": spaces.Box(-200.0, 200.0, (state,), np.float32),
        "env_state": spaces.Box(-20.0, 20.0, (pose,), np.float32),
    }
    for camera in cameras:
        parts[f"images/{camera}"] = spaces.Box(0, 255, (*size, 3), np.uint8)
    low, high = task.action_limits.astype(np.float32).T
    return spaces.Dict(parts), spaces.Box(low, high, dtype=np.float32)


class TaskEnv(gymnasium.Env):
    """One scene of a task; `reset(seed=i)` lays out scene i.

    Observations are `qpos` (S,) rad and gripper opening, `qvel` (S,), the object's
    pose `env_state` (E,), and `images/<camera>` (H, W, 3) uint8 of `size` (H, W) for
    each camera asked for. The reward is 1 when the task is done, which ends the
    episode, else 0. The render mode "rgb_array" is the view `scene`.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 30}  # noqa: RUF012

    def __init__(
        self,
        task: Task | str,
        cameras: Sequence[str] = (),
        size: tuple[int, int] = (96, 128),
        render_mode: str | None = None,
    ):
        task = make_task(task) if isinstance(task, str) else task
        self.metadata = TaskEnv.metadata | {"render_fps": task.fps}
        self.world = World(task, 1)
        self.cameras, self.size = tuple(cameras), (size[0], size[1])
        self.render_mode = render_mode
        self.observation_space, self.action_space = _spaces(task, cameras, size)
        self._keys = tuple(self.observation_space.spaces)

    def reset(self, *, seed: int | None = None, options: dict | None = None):
        """Lay out scene `seed`, or a random one."""
        super().reset(seed=seed)
        scene = (
            int(self.np_random.integers(DEMONSTRATION_SCENES)) if seed is None else seed
        )
        self.world.reset([scene])
        return self._observation(), {"success": False}

    def step(self, action: np.ndarray):
        self.world.step(np.asarray(action)[None])
        success = bool(self.world.success[0])
        info = {"success": success}
        return self._observation(), float(success), success, False, info

    def render(self) -> np.ndarray | None:
        """The scene from the side, (480, 640, 3) uint8."""
        if self.render_mode is None:
            return None
        return self.world.render("scene", (480, 640))

    def close(self) -> None:
        self.world.close()

    def _observation(self) -> dict[str, np.ndarray]:
        seen = self.world.observe(self.cameras, self.size)
        return {key: seen[key][0] for key in self._keys}


class TaskVectorEnv(VectorEnv):
    """Many scenes of a task on a thread pool, bit-identical to one at a time.

    `reset(seed=s)` lays out the scenes s, s + 1, ...; a scene that is over starts anew
    at the next step, as Gymnasium's own vector environments do.
    """

    def __init__(
        self,
        task: Task | str,
        num_envs: int = 1,
        cameras: Sequence[str] = (),
        size: tuple[int, int] = (96, 128),
        max_episode_steps: int | None = None,
        render_mode: str | None = None,
    ):
        task = make_task(task) if isinstance(task, str) else task
        self.metadata = TaskEnv.metadata | {
            "render_fps": task.fps,
            "autoreset_mode": AutoresetMode.NEXT_STEP,
        }
        self.num_envs, self.render_mode = num_envs, render_mode
        self.world = World(task, num_envs)
        self.cameras, self.size = tuple(cameras), (size[0], size[1])
        self.max_ticks = max_episode_steps or task.max_ticks
        parts = _spaces(task, cameras, size)
        self.single_observation_space, self.single_action_space = parts
        self._keys = tuple(parts[0].spaces)
        self.observation_space = batch_space(parts[0], num_envs)
        self.action_space = batch_space(parts[1], num_envs)
        self._over = np.zeros(num_envs, bool)

    def reset(
        self, *, seed: int | Sequence[int] | None = None, options: dict | None = None
    ):
        """Lay out new scenes, everywhere or where options["reset_mask"] says so.

        Raises:
            UserError: the mask is no array of one bool a scene, or none is True; or
                there are not as many seeds as scenes.
        """
        chosen = self._chosen((options or {}).get("reset_mask"))
        super().reset(seed=seed if isinstance(seed, int | np.integer) else None)
        if seed is None:
            scenes = self._random_scenes(self.num_envs)
        elif isinstance(seed, int | np.integer):
            scenes = [seed + i for i in range(self.num_envs)]
        else:
            scenes = list(seed)
        if len(scenes) != self.num_envs:
            raise UserError(f"{self.num_envs} scenes have {len(scenes)} seeds")
        self.world.reset([scenes[i] for i in chosen], chosen)
        self._over[chosen] = False
        return self._observation(), {"success": self.world.success.copy()}

    def _random_scenes(self, n: int) -> list[int]:
        return self.np_random.integers(DEMONSTRATION_SCENES, size=n).tolist()

    def step(self, actions: np.ndarray):
        """One control tick everywhere; scenes that were over are laid out anew."""
        restart = np.flatnonzero(self._over)
        if len(restart):
            self.world.reset(self._random_scenes(len(restart)), restart)
        self.world.step(actions, np.flatnonzero(~self._over))
        terminated = self.world.success.copy()
        truncated = ~terminated & (self.world.ticks >= self.max_ticks)
        self._over = terminated | truncated
        reward = terminated.astype(np.float64)
        info = {"success": terminated.copy()}
        return self._observation(), reward, terminated, truncated, info

    def _chosen(self, mask: np.ndarray | None) -> np.ndarray:
        """Numbers of the scenes that a mask (n,) chooses; all without one."""
        if mask is None:
            return np.arange(self.num_envs)
        mask = np.asarray(mask)
        if mask.shape != (self.num_envs,) or mask.dtype != bool or not mask.any():
            raise UserError(
                f"reset_mask is {mask.tolist()}, expected {self.num_envs} times True "
                "or False, at least once True"
            )
        return np.flatnonzero(mask)

    def render(self) -> tuple[np.ndarray, ...] | None:
        """Each scene from the side, (480, 640, 3) uint8."""
        if self.render_mode is None:
            return None
        size = (480, 640)
        return tuple(self.world.render("scene", size, i) for i in range(self.num_envs))

    def close_extras(self, **_: Any) -> None:
        self.world.close()

    def _observation(self) -> dict[str, np.ndarray]:
        seen = self.world.observe(self.cameras, self.size)
        return {key: seen[key] for key in self._keys}
