"""The task `so100_belt`: a cube that rides past on a belt, from there into the bin."""

import mujoco
import numpy as np

from . import arm as so100
from .pick_place import CUBE_SIZE, PickPlace

BELT_Y, BELT_WIDTH, BELT_HEIGHT = -0.28, 0.06, 0.004  # m
SPEEDS = 0.02, 0.06  # m/s, along x
BEGINS = -0.15, -0.09  # m along x, where cubes lie at the start
ACROSS = 0.03  # m, edge of the zone across the belt


class Belt(PickPlace):
    """The arm and the bin of `so100_pick_place`; the cube moves.

    The belt is a body of 100 kg on a slide without friction, with its speed from the
    start on. The speed is drawn per scene, and seen in env_state beside the cube's
    pose: no policy could tell it from one picture. After 4 to 12 s the cube is out of
    the arm's reach.
    """

    name = "so100_belt"
    max_ticks = 400
    env_state_dim = 8
    place_dim = 4

    def spec(self) -> mujoco.MjSpec:
        spec = super().spec()
        belt = spec.worldbody.add_body(
            name="belt", pos=[0, BELT_Y, BELT_HEIGHT / 2], gravcomp=1
        )
        slide = belt.add_joint(name="belt", type=mujoco.mjtJoint.mjJNT_SLIDE)
        slide.axis = [1, 0, 0]
        belt.add_geom(
            name="belt",
            type=mujoco.mjtGeom.mjGEOM_BOX,
            size=[1.5, BELT_WIDTH / 2, BELT_HEIGHT / 2],
            mass=100.0,
            friction=[1.2, 0.005, 0.0001],
            rgba=[0.22, 0.24, 0.26, 1],
            contype=0,
            conaffinity=5,
        )
        # It keeps a number that is drawn with the scene: where it stands is the speed.
        speed = spec.worldbody.add_body(name="speed", pos=[0, 2, 0], gravcomp=1)
        speed.add_joint(name="speed", type=mujoco.mjtJoint.mjJNT_SLIDE, axis=[1, 0, 0])
        speed.add_geom(
            type=mujoco.mjtGeom.mjGEOM_SPHERE, size=[0.001, 0, 0], rgba=[0, 0, 0, 0]
        )
        return spec

    def sample(
        self, rng: np.random.Generator, place: np.ndarray | None = None
    ) -> np.ndarray:
        """A start: joints (6,) rad, the cube's pose (7,), belt (m), speed (m/s).

        `place` (4,) is x and y of the cube, its yaw, and the speed.
        """
        joints = so100.HOME + rng.uniform(-0.03, 0.03, 6)
        place = rng.random(4) if place is None else place
        x, speed = (
            low + p * (high - low)
            for p, (low, high) in zip(place[[0, 3]], (BEGINS, SPEEDS), strict=True)
        )
        y = BELT_Y + (place[1] - 0.5) * ACROSS
        yaw = (place[2] - 0.5) * np.pi / 2
        turn = [np.cos(yaw / 2), 0.0, 0.0, np.sin(yaw / 2)]
        cube = [x, y, BELT_HEIGHT + CUBE_SIZE / 2, *turn]
        return np.concatenate([joints, cube, [0.0, speed]])

    def start_velocity(self, qpos: np.ndarray) -> np.ndarray:
        """(n, 14) m/s and rad/s: the belt moves, and the cube on it."""
        velocity = np.zeros((len(qpos), 14))
        velocity[:, 6] = velocity[:, 12] = qpos[:, 14]
        return velocity

    def env_state(self, qpos: np.ndarray) -> np.ndarray:
        """The cube's position, m, quaternion (wxyz), and m/s: (n, 15) -> (n, 8)."""
        return qpos[:, [*range(6, 13), 14]]
