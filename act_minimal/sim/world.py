"""Many copies of one task's scene, stepped together on a thread pool."""

import functools
from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

import mujoco
import numpy as np
from mujoco.batch import Batch

from ..support.errors import UserError
from ..support.gl import open_renderer


class Unreachable(UserError):
    """An expert's arm does not get to a point that its plan leads to."""


class Task(Protocol):
    """What a scene must tell about itself; see docs/bring_your_own.md.

    `n` is the number of scenes, rows of `qpos` and `qvel` are MuJoCo's. `JointTask` has
    most of it for simple arms. `sample` draws a start, and where the objects lie too if
    `place` (`place_dim`,) is None.
    """

    name: str
    robot: str  # which arm, as `datasets/embodiment.py` and cards call it
    fps: int  # control rate, Hz
    substeps: int  # physics steps a control tick
    max_ticks: int  # an episode that has not succeeded by then has failed
    cameras: tuple[str, ...]
    joints: tuple[str, ...]
    action_dim: int
    env_state_dim: int
    place_dim: int  # numbers in [0, 1) that say where the objects lie
    action_limits: np.ndarray  # (A, 2): rad, and openings of a gripper

    def model(self) -> mujoco.MjModel: ...
    def film_model(self) -> mujoco.MjModel: ...  # as people shall see it
    def sample(
        self, rng: np.random.Generator, place: np.ndarray | None = None
    ) -> np.ndarray: ...
    def state(self, qpos: np.ndarray) -> np.ndarray: ...
    def velocity(self, qvel: np.ndarray) -> np.ndarray: ...
    def env_state(self, qpos: np.ndarray) -> np.ndarray: ...
    def ctrl(self, action: np.ndarray) -> np.ndarray: ...
    def hold(self, qpos: np.ndarray) -> np.ndarray: ...
    def placed(self, qpos: np.ndarray, qvel: np.ndarray) -> np.ndarray: ...


@runtime_checkable
class MovingTask(Protocol):
    """A task in which something moves from the start on."""

    def start_velocity(self, qpos: np.ndarray) -> np.ndarray:
        """Velocities (n, nv) of starts (n, nq)."""
        ...


class JointTask:
    """A task of which the first A numbers of qpos are the joints that actions drive.

    Actions are the position targets (rad) of as many actuators. A task of one's own
    adds what else a `Task` has, and, to be recorded, `plan`.
    """

    joints: tuple[str, ...]
    action_limits: np.ndarray  # (A, 2)

    @property
    def action_dim(self) -> int:
        return len(self.joints)

    def model(self) -> mujoco.MjModel:
        raise NotImplementedError

    def film_model(self) -> mujoco.MjModel:
        return self.model()

    def state(self, qpos: np.ndarray) -> np.ndarray:
        """Joint angles: (n, nq) -> (n, A)."""
        return qpos[:, : self.action_dim].copy()

    def velocity(self, qvel: np.ndarray) -> np.ndarray:
        """Joint velocities: (n, nv) -> (n, A)."""
        return qvel[:, : self.action_dim].copy()

    def ctrl(self, action: np.ndarray) -> np.ndarray:
        """Targets of the actuators (n, A), within the limits."""
        return np.clip(action, *self.action_limits.T)

    def hold(self, qpos: np.ndarray) -> np.ndarray:
        """Targets (n, A) that hold the arm where it is."""
        return qpos[:, : self.action_dim]


# What the scenes of all tasks begin with.
OPTIONS_XML = """\
  <compiler angle="radian" autolimits="true"/>
  <option integrator="implicitfast" cone="elliptic" impratio="10"/>
  <visual>
    <quality shadowsize="0" offsamples="0"/>
    <headlight ambient=".45 .45 .45" diffuse=".3 .3 .3" specular="0 0 0"/>
    <global offwidth="1280" offheight="960"/>
    <map znear=".02" zfar="20"/>
  </visual>
"""

DEMONSTRATION_SCENES = 1_000_000_000  # scenes from here on are never evaluated on
SCENES_A_RUN = 100_000  # demonstration scenes of one seed
HOLD_TICKS = 10  # a success counts once it has lasted this long


@functools.cache
def golden(dimensions: int) -> float:
    """The root of x^(d + 1) = x + 1: what the R-sequence is made of."""
    x = 2.0
    for _ in range(100):
        x = (1 + x) ** (1 / (dimensions + 1))
    return x


def start(task: Task, scene: int) -> np.ndarray:
    """The start of scene number `scene`, as qpos (nq,).

    Ordinary scenes are independent and uniform. The scenes of demonstrations lie
    evenly instead, as a careful person lays the cube all over the zone: the R-sequence
    (M. Roberts, 2018), a low-discrepancy sequence, from a random offset.
    """
    rng = np.random.default_rng(scene)
    if scene < DEMONSTRATION_SCENES:
        return task.sample(rng)
    run, attempt = divmod(scene - DEMONSTRATION_SCENES, SCENES_A_RUN)
    dimensions = task.place_dim
    offset = np.random.default_rng([DEMONSTRATION_SCENES, run]).random(dimensions)
    steps = golden(dimensions) ** -np.arange(1.0, dimensions + 1)
    place = (offset + attempt * steps) % 1.0
    return task.sample(rng, place)


class World:
    """`n` scenes of a task. One scene or many, the results are the same to the bit.

    `threads` step them; 0 uses all CPUs.
    """

    def __init__(self, task: Task, n: int = 1, *, threads: int = 0):
        self.task, self.n = task, n
        self.model = task.model()
        self._batch = Batch(self.model, nsim=n, nthread=1 if n == 1 else threads)
        self.qpos = self._batch.bind("qpos")  # (n, nq)
        self.qvel = self._batch.bind("qvel")  # (n, nv)
        self._ctrl = self._batch.bind("ctrl")  # (n, nu)
        self._force = self._batch.bind("actuator_force")  # (n, nu)
        self._data = mujoco.MjData(self.model)
        self._renderers: dict[tuple[int, int], mujoco.Renderer] = {}
        self.ticks = np.zeros(n, int)
        self._held = np.zeros(n, int)
        self.success = np.zeros(n, bool)

    def reset(
        self, seeds: Sequence[int], ids: Sequence[int] | np.ndarray | None = None
    ) -> None:
        """Lay out new scenes: scene `ids[j]` becomes the start number `seeds[j]`."""
        ids = np.arange(self.n) if ids is None else np.asarray(ids)
        if len(seeds) != len(ids):
            raise UserError(
                f"{len(ids)} scenes need {len(ids)} seeds, not {len(seeds)}"
            )
        self._batch.reset(ids, stage=mujoco.mjtStage.mjSTAGE_NONE)
        for i, seed in zip(ids, seeds, strict=True):
            self.qpos[i] = start(self.task, int(seed))
        if isinstance(self.task, MovingTask):
            self.qvel[ids] = self.task.start_velocity(self.qpos[ids])
        self._ctrl[ids] = self.task.hold(self.qpos[ids])
        self._batch.forward(ids)
        self.ticks[ids] = self._held[ids] = 0
        self.success[ids] = False

    def step(
        self, action: np.ndarray, ids: Sequence[int] | np.ndarray | None = None
    ) -> None:
        """One control tick with action (n, A); only scenes `ids` move, if given.

        UserError if an action is NaN or infinite; nothing moves then.
        """
        rows = slice(None) if ids is None else np.asarray(ids)
        action = np.asarray(action)
        if not np.isfinite(action[rows]).all():
            raise UserError(
                f"the action is {action[rows].tolist()}, expected finite numbers"
            )
        self._ctrl[rows] = self.task.ctrl(action)[rows]
        self._batch.step(ids, nstep=self.task.substeps)
        placed = self.task.placed(self.qpos[rows], self.qvel[rows])
        self._held[rows] = np.where(placed, self._held[rows] + 1, 0)
        self.success[rows] |= self._held[rows] >= HOLD_TICKS
        self.ticks[rows] += 1

    def observe(
        self,
        cameras: Sequence[str] = (),
        size: tuple[int, int] | Mapping[str, tuple[int, int]] = (96, 128),
        ids: Sequence[int] | np.ndarray | None = None,
    ) -> dict[str, np.ndarray]:
        """What the arm knows now, n first.

        Args:
            size: (H, W) of the images, or one such pair for each camera.
            ids: scenes that are drawn; by default all. Images of others are black.

        Returns:
            qpos (n, S) rad and gripper opening, qvel (n, S), effort (n, S) N·m,
            env_state (n, E), and `images/<camera>` (n, H, W, 3) uint8.
        """
        observation = {
            "qpos": self.task.state(self.qpos).astype(np.float32),
            "qvel": self.task.velocity(self.qvel).astype(np.float32),
            "effort": np.asarray(self._force, np.float32).copy(),
            "env_state": self.task.env_state(self.qpos).astype(np.float32),
        }
        rows = range(self.n) if ids is None else ids
        sizes = {c: size[c] if isinstance(size, Mapping) else size for c in cameras}
        images = {c: np.zeros((self.n, *sizes[c], 3), np.uint8) for c in cameras}
        for i in rows if cameras else ():
            self._load(int(i))
            for camera in cameras:
                self._draw(camera, sizes[camera], out=images[camera][int(i)])
        return observation | {f"images/{c}": image for c, image in images.items()}

    def render(self, camera: str, size: tuple[int, int], scene: int = 0) -> np.ndarray:
        """One picture (H, W, 3) uint8 of one scene."""
        self._load(scene)
        return self._draw(camera, size)

    def close(self) -> None:
        for renderer in self._renderers.values():
            renderer.close()
        self._renderers.clear()

    def _load(self, scene: int) -> None:
        self._batch.get_data(scene, self._data)
        mujoco.mj_kinematics(self.model, self._data)
        mujoco.mj_comPos(self.model, self._data)
        mujoco.mj_camlight(self.model, self._data)

    def _draw(self, camera: str, size: tuple[int, int], out=None) -> np.ndarray:
        names = [self.model.camera(i).name for i in range(self.model.ncam)]
        if camera not in names:
            raise UserError(f"no camera '{camera}' in {self.task.name}; it has {names}")
        if size not in self._renderers:
            height, width = size
            # A buffer larger than the picture costs time at every frame.
            self.model.vis.global_.offheight = height
            self.model.vis.global_.offwidth = width
            self._renderers[size] = open_renderer(self.model, height, width)
        renderer = self._renderers[size]
        renderer.update_scene(self._data, camera)
        renderer.scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = False
        renderer.scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = False
        return renderer.render(out=out)
