"""A SO-101 alone on a table: the scene that the servos of a virtual one turn.

Inertias, stall torque and extents are those of the maker's `so101_new_calib`
(Apache-2.0), lengths and ranges those of `kinematics.SO101`; the meshes are replaced by
one box a body, as wide as they are. The boxes collide with the table and with each
other, but for those of `OVERLAP`.
"""

import mujoco
import numpy as np

from act_minimal.sim.so100.arm import MOTOR, PRINTED
from act_minimal.sim.world import OPTIONS_XML, JointTask

from ...virtual.scene import ALONE
from ..kinematics import JOINTS, SO101

BODIES = ("shoulder", "upper_arm", "lower_arm", "wrist", "gripper", "moving_jaw")
BASE_BOX = (".0168 0 .0336", ".0478 .0555 .0360")  # centre and half size, m
# Of each body: mass kg; centre of mass m; inertia about it, kg·m², xx yy zz xy xz yz;
# and its box, centre and half size in m.
TABLE = (
    (0.100006, "-.0307604 -1.66727e-05 -.0252713",
     "8.3759e-05 8.10403e-05 2.39783e-05 7.55525e-08 -1.16342e-06 1.54663e-07",
     "-.0192 .0012 -.0091", ".0314 .0275 .0553"),
    (0.103, "-.0898471 -.00838224 .0184089",
     "4.08002e-05 1.47318e-04 1.42487e-04 -1.97819e-05 -4.03016e-08 8.97326e-09",
     "-.0591 -.0131 .0201", ".0711 .0251 .0336"),
    (0.104, "-.0980701 .00324376 .0182831",
     "2.87438e-05 1.59844e-04 1.4529e-04 7.41152e-06 1.26409e-06 -4.90188e-08",
     "-.0665 .0035 .0202", ".0786 .0184 .0322"),
    (0.079, "-.000103312 -.0386143 .0281156",
     "3.68263e-05 2.5391e-05 2.1e-05 1.7893e-08 -5.28128e-08 3.6412e-06",
     "-.0022 -.0269 .0222", ".0178 .0389 .0312"),
    (0.087, ".000213627 .000245138 -.025187",
     "2.75087e-05 4.33657e-05 3.45059e-05 -3.35241e-07 -5.7352e-06 -5.17847e-08",
     "-.0024 -.0020 -.0517", ".0328 .0260 .0527"),
    (0.012, "-.00157495 -.0300244 .0192755",
     "6.61427e-06 1.89032e-06 5.28738e-06 -3.19807e-07 -5.90717e-09 -1.09945e-07",
     "-.0012 -.0360 .0189", ".0111 .0460 .0240"),
)  # fmt: skip
# Wider than the shapes inside them, these boxes overlap where the arm is free: at all
# times, and at rest.
OVERLAP = (("base", "shoulder"), ("upper_arm", "wrist"))
# N·m/rad of the position loop, damped critically: what the SO-100 has in MuJoCo
# Menagerie. Both have the same servos, to which the driver gives the same gain; the
# maker's 998.22 would have a servo pull with all its torque when it is 0.2° away.
STIFFNESS = 50.0
STALL = 3.35  # N·m
JOINT = 'damping=".60" frictionloss=".052" armature=".028"'
# Folded back, clear of the table, as the SO-100's scenes begin.
HOME = np.array([0.0, -0.73, 0.53, 1.2, -1.52, 0.45])  # rad
CLOSED, OPENED = SO101.ranges[5]


class AloneSO101(JointTask):
    """Nothing but the arm and a table; nothing to succeed at. See `sim.world.Task`."""

    name = ALONE
    fps = 30
    substeps = 10
    max_ticks = 500
    cameras: tuple[str, ...] = ("top", "wrist")
    joints: tuple[str, ...] = JOINTS
    env_state_dim = 0
    place_dim = 3
    action_limits = np.array([*SO101.ranges[:5], [0.0, 1.0]])

    def model(self) -> mujoco.MjModel:
        model = mujoco.MjModel.from_xml_string(scene_xml())
        model.opt.timestep = 1.0 / (self.fps * self.substeps)
        return model

    def sample(
        self, rng: np.random.Generator, place: np.ndarray | None = None
    ) -> np.ndarray:
        return HOME + rng.uniform(-0.03, 0.03, 6)

    def env_state(self, qpos: np.ndarray) -> np.ndarray:
        return qpos[:, 6:]

    def state(self, qpos: np.ndarray) -> np.ndarray:
        """Proprioception: (n, 6) -> (n, 6), rad and gripper opening."""
        state = qpos.copy()
        state[:, 5] = (state[:, 5] - CLOSED) / (OPENED - CLOSED)
        return state

    def velocity(self, qvel: np.ndarray) -> np.ndarray:
        """Joint velocity: (n, 6) -> (n, 6), rad/s and gripper openings a second."""
        velocity = qvel.copy()
        velocity[:, 5] /= OPENED - CLOSED
        return velocity

    def ctrl(self, action: np.ndarray) -> np.ndarray:
        """Servo targets in rad of actions (n, 6), inside the joint limits."""
        ctrl = np.array(action, float)
        ctrl[:, 5] = CLOSED + ctrl[:, 5] * (OPENED - CLOSED)
        return np.clip(ctrl, *SO101.ranges.T)

    def placed(self, qpos: np.ndarray, qvel: np.ndarray) -> np.ndarray:
        return np.zeros(len(qpos), bool)


def scene_xml() -> str:
    """The scene, to be compiled."""
    inner = ""
    rows = zip(
        BODIES, (*SO101.links, SO101.jaw), TABLE, JOINTS, SO101.ranges, strict=True
    )
    for name, link, body, joint, ends in reversed([*rows]):
        mass, com, inertia, centre, half = body
        pos, quat, axis = (_numbers(part) for part in link)
        extras = ""
        if name == "gripper":
            extras = f"""
        <site name="tcp" pos="{_numbers(SO101.tip)}" size=".002" group="4"/>
        <camera name="wrist" pos="0 .055 -.045" euler="-.57 0 0" fovy="75"/>"""
        inner = f"""
      <body name="{name}" pos="{pos}" quat="{quat}">
        <inertial pos="{com}" mass="{mass}" fullinertia="{inertia}"/>
        <joint name="{joint}" axis="{axis}" range="{_numbers(ends)}" {JOINT}/>
        <geom name="{name}" type="box" pos="{centre}" size="{half}" rgba="{PRINTED}"/>
        {extras}{inner}
      </body>"""
    servos = "".join(
        f'<position name="{joint}" joint="{joint}" kp="{STIFFNESS}" dampratio="1" '
        f'forcerange="-{STALL} {STALL}" ctrlrange="{_numbers(ends)}"/>'
        for joint, ends in zip(JOINTS, SO101.ranges, strict=True)
    )
    apart = "".join(f'<exclude body1="{a}" body2="{b}"/>' for a, b in OVERLAP)
    return f"""
<mujoco model="so101_{ALONE}">
{OPTIONS_XML}
  <worldbody>
    <light pos=".5 -.2 1.2" dir="-.3 .2 -1" castshadow="false" diffuse=".4 .4 .4"/>
    <camera name="top" pos=".46 .03 .42" xyaxes="0 1 0 -.84 0 .54" fovy="48"/>
    <camera name="scene" pos=".62 .42 .42" xyaxes="-.63 .78 0 -.41 -.33 .85" fovy="42"/>
    <geom name="table" type="plane" size="1 1 .1" rgba=".82 .80 .76 1"/>
    <body name="base">
      <geom name="base" type="box" pos="{BASE_BOX[0]}" size="{BASE_BOX[1]}"
            rgba="{MOTOR}"/>
      {inner}
    </body>
  </worldbody>
  <contact>{apart}</contact>
  <actuator>{servos}</actuator>
</mujoco>"""


def _numbers(values: object) -> str:
    return " ".join(str(float(x)) for x in np.asarray(values, float))
