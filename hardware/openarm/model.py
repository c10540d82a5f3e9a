"""Where the sixteen motors are in a MuJoCo model of the OpenArm, and what gravity asks.

The maker's models and ours name the joints alike. The gripper's motor turns the first
finger, in proportion; the second finger follows the first by an equality.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np

from act_minimal.support.errors import UserError
from act_minimal.support.extras import require

require("sim")  # the maker's model says what gravity asks of a real arm, too

import mujoco  # noqa: E402
from openarm_mujoco import v2  # noqa: E402

from .kinematics import SHOULDERS, Kinematics  # noqa: E402
from .motors import GRIPPERS, NAMES, SIDES  # noqa: E402

TIMESTEP = 0.002  # s; the arms are stable with it at their firmest gains


@dataclass(frozen=True)
class Places:
    """Places of the sixteen in a model's vectors, in the order of `motors.NAMES`."""

    qpos: np.ndarray  # (16,) int
    dof: np.ndarray  # (16,) int
    ratio: np.ndarray
    """(16,) angle of the motor over the joint's own coordinate, rad or m."""
    followers: tuple[tuple[int, int], ...]
    """(gripper's place among the sixteen, place in qpos) of the second fingers."""
    hands: tuple[int, int]
    """The bodies that the right and the left arm's last joint turn."""

    def angles_of(self, qpos: np.ndarray) -> np.ndarray:
        """A model's qpos -> (16,) angles of the motors, rad."""
        return qpos[self.qpos] * self.ratio

    def velocities_of(self, qvel: np.ndarray) -> np.ndarray:
        """A model's qvel -> (16,) speeds of the motors, rad/s."""
        return qvel[self.dof] * self.ratio

    def set_angles(self, qpos: np.ndarray, angles: np.ndarray) -> None:
        """Write angles of the motors (16,) rad into a model's qpos."""
        joints = angles / self.ratio
        qpos[self.qpos] = joints
        for gripper, follower in self.followers:
            qpos[follower] = joints[gripper]


def places_of(model: mujoco.MjModel, kinematics: Kinematics) -> Places:
    """Find the sixteen motors' joints; UserError if one of them is not there."""
    names = [model.joint(i).name for i in range(model.njnt)]

    def find(ending: str) -> int | None:
        found = [i for i, name in enumerate(names) if name.endswith(ending)]
        return found[0] if len(found) == 1 else None

    joints, ratio, followers, hands = [], np.ones(len(NAMES)), [], []
    for index, name in enumerate(NAMES):
        side = SIDES[index // 8]
        gripper = index in GRIPPERS
        ending = f"{side}_finger_joint1" if gripper else name
        joint = find(ending)
        if joint is None:
            raise UserError(
                f"the model has no joint, or several, whose name ends in '{ending}', "
                "so it is no OpenArm with two arms"
            )
        joints.append(joint)
        if gripper:
            low, high = model.jnt_range[joint]
            opened = low if abs(low) > abs(high) else high
            ratio[index] = kinematics.open_at[index // 8] / opened
            second = find(f"{side}_finger_joint2")
            if second is not None:
                followers.append((index, int(model.jnt_qposadr[second])))
        elif name.endswith("joint7"):
            hands.append(int(model.jnt_bodyid[joint]))
    return Places(
        qpos=model.jnt_qposadr[joints].copy(),
        dof=model.jnt_dofadr[joints].copy(),
        ratio=ratio,
        followers=tuple(followers),
        hands=(hands[0], hands[1]),
    )


@cache  # its meshes take a second; whoever changes it copies it first
def load_alone() -> mujoco.MjModel:
    """Both arms of version 2; z = 0 is the ground, below the pedestal they stand on."""
    spec = mujoco.MjSpec.from_file(v2.openarm_bimanual_xml())
    for body in spec.worldbody.bodies:
        body.pos = body.pos + SHOULDERS
    spec.option.timestep = TIMESTEP
    return spec.compile()


def gravity_of(
    model: mujoco.MjModel, kinematics: Kinematics
) -> Callable[[np.ndarray], np.ndarray]:
    """What the motors have to give so that the arms float, at rest.

    Returns:
        A function: state (16,), angles in rad and openings -> torques (16,), N·m. The
        grippers get none: their fingers are light, and a friction holds them.
    """
    places = places_of(model, kinematics)
    data = mujoco.MjData(model)
    torque = np.zeros(model.nv)

    def gravity(state: np.ndarray) -> np.ndarray:
        places.set_angles(data.qpos, kinematics.angles_of(state))
        mujoco.mj_kinematics(model, data)
        mujoco.mj_comPos(model, data)
        mujoco.mj_comVel(model, data)  # of a velocity of zero
        mujoco.mj_rne(model, data, 0, torque)
        wanted = torque[places.dof] / places.ratio
        wanted[list(GRIPPERS)] = 0.0
        return wanted

    return gravity
