"""The task `so100_pick_place`: a cube from a random pose into a bin."""

import mujoco
import numpy as np

from ...datasets.embodiment import JOINTS
from ..visuals import dress
from ..world import OPTIONS_XML
from . import arm as so100

CUBE_SIZE = 0.025  # m, edge
ZONE_CENTRE = np.array([-0.025, -0.225])  # m, where cubes are laid
ZONE_SIZE = 0.15  # m, edge of the square zone
BIN_CENTRE = np.array([0.165, -0.20])  # m
BIN_INNER = 0.09  # m, edge
BIN_WALL = 0.035  # m, height

RELEASED_JAW = 0.25  # rad: the jaw is open this wide when the cube is let go
IN_BIN_HEIGHT = 0.03  # m: the cube's centre lies below
AT_REST = 0.05  # m/s


class PickPlace:
    """Scene, reset and strict success of the pick-and-place task.

    The cube lies in a 15 × 15 cm zone, turned by up to 45° either way (all that a
    cube's symmetry leaves); the arm starts near its home pose.
    """

    name = "so100_pick_place"
    robot = "so100"
    fps = 30
    substeps = 10
    max_ticks = 500
    cameras: tuple[str, ...] = ("top", "wrist")
    film_cameras: tuple[str, ...] = ("scene", "side")
    tips: tuple[str, ...] = ("grasp",)  # sites whose path a film draws
    joints: tuple[str, ...] = JOINTS
    action_dim = 6
    env_state_dim = 7
    place_dim = 3

    _low, _high = so100.joint_limits().T
    action_limits = np.array([*so100.joint_limits()[:5], [0.0, 1.0]])

    def spec(self) -> mujoco.MjSpec:
        """The scene before it is compiled."""
        spec = mujoco.MjSpec.from_string(self._xml())
        spec.option.timestep = 1.0 / (self.fps * self.substeps)
        return spec

    def model(self) -> mujoco.MjModel:
        return self.spec().compile()

    def film_model(self) -> mujoco.MjModel:
        spec = self.spec()
        dress(spec, horns=(0.011, 0.028))
        side = spec.worldbody.add_camera(name="side", pos=[-0.62, -0.2, 0.2])
        side.alt.type = mujoco.mjtOrientation.mjORIENTATION_XYAXES
        side.alt.xyaxes = [0, -1, 0, 0.17, 0, 0.985]
        side.fovy = 42
        return spec.compile()

    def sample(
        self, rng: np.random.Generator, place: np.ndarray | None = None
    ) -> np.ndarray:
        """A start: joint angles (6,) rad, then the cube's pose (7,), as qpos (13,).

        `place` (3,) is x and y over the zone, and yaw.
        """
        joints = so100.HOME + rng.uniform(-0.03, 0.03, 6)
        place = rng.random(3) if place is None else place
        xy = ZONE_CENTRE + (place[:2] - 0.5) * ZONE_SIZE
        yaw = (place[2] - 0.5) * np.pi / 2
        cube = [*xy, CUBE_SIZE / 2, np.cos(yaw / 2), 0.0, 0.0, np.sin(yaw / 2)]
        return np.concatenate([joints, cube])

    def env_state(self, qpos: np.ndarray) -> np.ndarray:
        """The cube's position (m) and quaternion (wxyz): (n, 13) -> (n, 7)."""
        return qpos[:, 6:13]

    def state(self, qpos: np.ndarray) -> np.ndarray:
        """Proprioception: (n, 13) -> (n, 6), rad and gripper opening."""
        state = qpos[:, :6].copy()
        state[:, 5] = so100.jaw_to_gripper(state[:, 5])
        return state

    def velocity(self, qvel: np.ndarray) -> np.ndarray:
        """Joint velocity: (n, 12) -> (n, 6), rad/s and gripper openings a second."""
        velocity = qvel[:, :6].copy()
        velocity[:, 5] /= so100.JAW_OPEN - so100.JAW_CLOSED
        return velocity

    def ctrl(self, action: np.ndarray) -> np.ndarray:
        """Servo targets in rad of actions (n, 6), inside the joint limits."""
        ctrl = np.array(action, dtype=np.float64)
        ctrl[:, 5] = so100.gripper_to_jaw(ctrl[:, 5])
        return np.clip(ctrl, self._low, self._high, out=ctrl)

    def hold(self, qpos: np.ndarray) -> np.ndarray:
        return qpos[:, :6]

    def placed(self, qpos: np.ndarray, qvel: np.ndarray) -> np.ndarray:
        """(n,) whether the cube now rests in the bin with the jaw open."""
        cube, jaw = qpos[:, 6:9], qpos[:, 5]
        offset = np.abs(cube[:, :2] - BIN_CENTRE)
        inside = (offset < BIN_INNER / 2).all(1) & (cube[:, 2] < IN_BIN_HEIGHT)
        if not inside.any():  # nearly always: this runs at every tick
            return inside
        return (
            inside
            & (np.linalg.norm(qvel[:, 6:9], axis=1) < AT_REST)
            & (jaw > RELEASED_JAW)
        )

    def _xml(self) -> str:
        half, wall = BIN_INNER / 2, 0.003
        x, y = BIN_CENTRE
        z = BIN_WALL / 2
        long, height = half + 2 * wall, BIN_WALL / 2
        sides = [
            (x - half - wall, y, wall, long),
            (x + half + wall, y, wall, long),
            (x, y - half - wall, long, wall),
            (x, y + half + wall, long, wall),
        ]
        walls = "".join(
            f'<geom type="box" pos="{px} {py} {z}" size="{sx} {sy} {height}" '
            f'rgba=".16 .35 .75 1" {so100.TABLE_CONTACT}/>'
            for px, py, sx, sy in sides
        )
        edge = CUBE_SIZE / 2
        return f"""
<mujoco model="{self.name}">
  {OPTIONS_XML}
  <worldbody>
    <light pos="-.2 -.5 1.2" dir=".2 .3 -1" castshadow="false" diffuse=".4 .4 .4"/>
    <camera name="top" pos=".03 -.46 .42" xyaxes="1 0 0 0 .84 .54" fovy="48"/>
    <camera name="scene" pos=".42 -.62 .42" xyaxes=".78 .63 0 -.33 .41 .85"
            fovy="42"/>
    <geom name="table" type="plane" size="1 1 .1" rgba=".82 .80 .76 1"
          {so100.TABLE_CONTACT} friction="1 .005 .0001"/>
    <geom type="box" pos="{x} {y} .0005" size="{half} {half} .0005"
          rgba=".10 .22 .5 1" contype="0" conaffinity="0"/>
    {walls}
    {so100.arm_xml()}
    <body name="cube" pos="0 -.25 {edge}">
      <freejoint name="cube"/>
      <geom name="cube" type="box" size="{edge} {edge} {edge}" mass=".02"
            rgba=".86 .15 .12 1" {so100.OBJECT_CONTACT} friction="1.2 .005 .0001"
            condim="4"/>
    </body>
  </worldbody>
  <actuator>
    {so100.actuators_xml()}
  </actuator>
</mujoco>"""
