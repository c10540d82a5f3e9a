"""What two OpenArms may do when they stand free, with nothing below their hands.

At a table, replace `box_low`, `ready` and `rest`: hanging arms would be inside it.
Nothing here keeps the two arms from each other.
"""

import numpy as np

from act_minimal.errors import SettingError

from ..safety import Limits
from .kinematics import ARMS
from .motors import GRIPPERS, NAMES

MARGIN = np.radians(1.0)
# rad/s, joint 1 to 7, and openings/s of the gripper: below what the maker's driver
# allows (2 to 6.3), because two arms meet faster than one meets a table.
SPEED = np.array([1.6, 1.6, 2.0, 2.0, 3.0, 3.0, 3.0, 4.0])
# rad, and openings: at the firm gains this far a spring pulls with about the motor's
# peak torque. A joint that is held up by something does not wind up farther.
STEP = np.array([0.15] * 4 + [0.35] * 3 + [1.0])
ELBOW = 3


def openarm_limits(version: str = "v2") -> Limits:
    """Limits for two arms on their pedestal.

    They rest hanging straight down, where they keep still without torque, and are ready
    with their forearms forwards.

    Raises:
        SettingError: unknown version.
    """
    if version not in ARMS:
        raise SettingError(
            f"version is '{version}', expected one of: {', '.join(ARMS)}"
        )
    arm = ARMS[version]
    low, high = arm.ranges.T.copy()
    low, high = low + MARGIN, high - MARGIN
    low[list(GRIPPERS)], high[list(GRIPPERS)] = 0.0, 1.0
    rest = np.clip(np.zeros(len(NAMES)), low, high)
    ready = rest.copy()
    ready[[ELBOW, 8 + ELBOW]] = np.pi / 2
    ready[list(GRIPPERS)] = 0.3
    return Limits(
        low=low,
        high=high,
        speed=np.tile(SPEED, 2),
        acceleration=np.tile(8 * SPEED, 2),
        step=np.tile(STEP, 2),
        box_low=np.array([-0.5, -0.9, 0.02]),
        box_high=np.array([0.8, 0.9, 1.5]),
        points_of=arm.watched_of,
        ready=ready,
        rest=rest,
        grippers=GRIPPERS,
        grip=0.5,  # its spring is soft: what it is asked to squeeze is no share of it
        temperature=75.0,  # the motors themselves stop at 100
    )
