"""What the tasks of two OpenArms share: table, cameras, joints, grasps."""

import mujoco
import numpy as np

from ..visuals import dress
from ..world import OPTIONS_XML
from . import arms as openarm

SHOULDER = 0.698  # m over the floor: the official pedestal's top
TABLE = 0.40  # m over the floor, as in the official scenes
FINGERTIP = 0.025  # m from a fingertip's middle to its corners, which still grip
ARM_NQ = 18  # positions before the objects': 7 joints and 2 fingers an arm
STATE = np.array([*range(8), *range(9, 17)])  # rows of qpos that are proprioception
GRIPPERS = np.array([7, 15])  # of state and action
# Both hands over the table's outer parts, where they hide nothing from above.
HOME_ARM = np.array([0.00, 0.80, 0.30, 2.10, -0.10, 0.20, 0.20])  # rad, the right arm
HOME_GRIPPER = 0.3


class BimanualTask:
    """A scene with two OpenArms at a table; a task adds objects and success.

    Positions are in m with the floor at z = 0, x forwards and y to the left of the
    robot, whose shoulders are over the origin.
    """

    name = ""
    robot = "openarm"
    fps = 50
    substeps = 10
    max_ticks = 900
    cameras: tuple[str, ...] = ("top", "right_wrist", "left_wrist")
    film_cameras: tuple[str, ...] = ("scene", "top")
    tips: tuple[str, ...] = ("right_grasp", "left_grasp")
    joints: tuple[str, ...] = openarm.JOINTS
    action_dim = 16
    env_state_dim = 7
    place_dim = 3

    action_limits = openarm.joint_limits()

    def model(self, *, meshes: bool = False) -> mujoco.MjModel:
        """Compile the scene; a picture with full meshes costs 50 ms."""
        model = mujoco.MjModel.from_xml_string(self._xml(meshes))
        model.opt.timestep = 1.0 / (self.fps * self.substeps)
        return model

    def film_model(self) -> mujoco.MjModel:
        spec = mujoco.MjSpec.from_string(self._xml(meshes=True))
        spec.option.timestep = 1.0 / (self.fps * self.substeps)
        dress(spec)
        return spec.compile()

    def home(self, rng: np.random.Generator) -> np.ndarray:
        """The arms at the start, about their home pose, (18,)."""
        qpos = np.zeros(ARM_NQ)
        for first, mirror in ((0, 1.0), (9, openarm.MIRROR)):
            qpos[first : first + 7] = mirror * HOME_ARM + rng.uniform(-0.03, 0.03, 7)
            finger = HOME_GRIPPER * openarm.FINGER_OPEN
            qpos[first + 7 : first + 9] = -finger if first == 0 else finger
        return qpos

    def env_state(self, qpos: np.ndarray) -> np.ndarray:
        """Position (m) and quaternion (wxyz) of each object: (n, nq) -> (n, E)."""
        return qpos[:, ARM_NQ:]

    def state(self, qpos: np.ndarray) -> np.ndarray:
        """Proprioception: (n, nq) -> (n, 16), rad and gripper openings."""
        state = qpos[:, STATE]
        state[:, GRIPPERS] = openarm.finger_to_gripper(state[:, GRIPPERS])
        return state

    def velocity(self, qvel: np.ndarray) -> np.ndarray:
        """Joint velocity: (n, nv) -> (n, 16), rad/s and gripper openings a second."""
        velocity = qvel[:, STATE]
        velocity[:, GRIPPERS] *= np.array([-1.0, 1.0]) / openarm.FINGER_OPEN
        return velocity

    def ctrl(self, action: np.ndarray) -> np.ndarray:
        """Servo targets in rad of actions (n, 16), inside the joint limits."""
        low, high = self.action_limits.T
        ctrl = np.clip(np.asarray(action, dtype=np.float64), low, high)
        ctrl[:, GRIPPERS] *= np.array([-1.0, 1.0]) * openarm.FINGER_OPEN
        return ctrl

    def hold(self, qpos: np.ndarray) -> np.ndarray:
        return qpos[:, STATE]

    def _objects_xml(self) -> str:
        raise NotImplementedError

    def _xml(self, meshes: bool) -> str:
        assets = openarm.mesh_assets_xml() if meshes else ""
        return f"""
<mujoco model="{self.name}">
  {OPTIONS_XML}
  <default>{openarm.defaults_xml()}</default>
  <asset>
    <texture type="skybox" builtin="flat" rgb1=".85 .88 .9" width="16" height="16"/>
    {assets}
  </asset>
  <worldbody>
    <light pos=".2 -.5 2" dir=".1 .3 -1" castshadow="false" diffuse=".25 .25 .25"/>
    <camera name="top" pos=".27 0 1.16" xyaxes="0 -1 0 1 0 0" fovy="48"/>
    <camera name="scene" pos=".98 -.42 .98" fovy="40"
            xyaxes="0.46 0.89 0 -0.38 0.19 0.91"/>
    <geom name="floor" type="plane" size="3 3 .1" rgba=".6 .62 .64 1"
          {openarm.TABLE_CONTACT}/>
    <geom name="table" type="box" pos=".44 0 {TABLE - 0.02}" size=".32 .50 .02"
          rgba=".78 .76 .72 1" {openarm.TABLE_CONTACT} friction="1 .005 .0001"/>
    <geom type="box" pos="-.03 0 {SHOULDER / 2}" size=".07 .09 {SHOULDER / 2}"
          rgba=".45 .46 .48 1" contype="0" conaffinity="0"/>
    <frame pos="0 0 {SHOULDER}">
      {openarm.arms_xml(meshes=meshes)}
    </frame>
    {self._objects_xml()}
  </worldbody>
  <equality>
    {openarm.equality_xml()}
  </equality>
  <actuator>
    {openarm.actuators_xml()}
  </actuator>
</mujoco>"""


def in_hand(
    side: str, qpos: np.ndarray, position: np.ndarray, quaternion: np.ndarray
) -> np.ndarray:
    """(n, 3) the middle between a hand's fingertips, in m, in an object's frame.

    From qpos (n, nq), and the object's position (n, 3) m and quaternion (n, 4) wxyz.
    """
    first = 0 if side == "right" else 9
    hand, _ = openarm.hand_pose(side, qpos[:, first : first + 7])
    hand[:, 2] += SHOULDER
    return np.einsum("nji,nj->ni", rotation_of(quaternion), hand - position)


def holds(
    side: str, qpos: np.ndarray, pose: np.ndarray, middle: np.ndarray, size: np.ndarray
) -> np.ndarray:
    """(n,) whether a hand's fingertips are on a box and closed as far as it lets them.

    The object has `pose` (n, 7), its box the `middle` (3,) m in its frame and `size`
    (3,) m; the fingers close along its x.
    """
    hand = np.abs(in_hand(side, qpos, pose[:, :3], pose[:, 3:]) - middle)
    gap = np.linalg.norm(np.maximum(hand - size / 2, 0), axis=1)
    finger = qpos[:, 7 if side == "right" else 16]
    return (gap < FINGERTIP) & openarm.closed_on(size[0], finger)


def rotation_of(quaternion: np.ndarray) -> np.ndarray:
    """Rotation matrices (n, 3, 3) of unit quaternions (n, 4) wxyz."""
    w, x, y, z = quaternion.T
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.moveaxis(np.array(rows), 2, 0)


def lying(xy: np.ndarray, height: float, yaw: float) -> np.ndarray:
    """The pose (7,) of an object on the table, with its middle at `xy`, `height` m."""
    return np.array([*xy, TABLE + height, np.cos(yaw / 2), 0.0, 0.0, np.sin(yaw / 2)])
