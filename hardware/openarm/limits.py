"""What two OpenArms may do: standing free, or at a table.

They are kept from each other, from themselves and from the pillar; only the fingers of
both hands may meet.
"""

from dataclasses import replace

import numpy as np

from act_minimal.support.errors import SettingError

from ..safety.governor import TOUCHES, Limits
from .bodies import guard_of
from .kinematics import ARMS, Kinematics
from .motors import GRIPPERS, NAMES

MARGIN = np.radians(1.0)
# rad/s, joint 1 to 7, and openings/s of the gripper: not above what the maker's driver
# allows (2, 2, 3.3, 3.3, 6.3). People who show a task are as fast for moments.
SPEED = np.array([2.0, 2.0, 3.0, 3.0, 4.0, 4.0, 4.0, 5.0])
# rad/s²: the fastest is reached in an eighth of a second. With more the springs swing
# past what they are told, at twice the speed.
ACCELERATION = 8 * SPEED
# rad, and openings: at the firm gains this far a spring pulls with about the motor's
# peak torque. A joint that is held up by something does not wind up farther.
STEP = np.array([0.15] * 4 + [0.35] * 3 + [1.0])
# rad: at the firm gains about 1.2 N·m of the upper joints, 0.6 N·m of the wrist's. With
# 2 and 1 N·m, all together held 17 N on a table for as long as the arm stood there.
PRESS = np.array([0.007] * 4 + [0.021] * 3 + [1.0])
# Joints that lift an arm sideways, turn it outwards, and bend it.
ASIDE, TURN, ELBOW = 1, 2, 3
# At a table: rad, the right arm; both hands over its outer parts. It is where the
# simulated tasks begin, and a policy has to begin where its demonstrations did.
READY = np.array([0.0, 0.8, 0.3, 2.1, -0.1, 0.2, 0.2])
OUTWARDS = 0.9  # rad that the resting forearms are turned, away from what lies there
# At rest nothing is so near that an arm which still lags would count as pressing on it:
# rad that hanging arms are lifted aside, and lying ones; m of the fingertips over the
# table; and m that everything is clear at least.
HANGING, LIFTED, LYING, CLEAR = 0.015, 0.12, 0.045, TOUCHES + 0.002


def openarm_limits(version: str = "v2", table: float | None = None) -> Limits:
    """Limits for two arms on their pedestal.

    Free, they rest hanging down, where they keep still without torque, and are ready
    with their forearms forwards. At a table they rest with the forearms close
    above it, turned outwards: without torque they fall some centimetres onto it.

    Args:
        version: v2 or v1.
        table: height of its top over the pedestal's ground, m; None for no table.

    Raises:
        SettingError: unknown version, or the arms cannot rest at such a table.
    """
    if version not in ARMS:
        raise SettingError(
            f"version is '{version}', expected one of: {', '.join(ARMS)}"
        )
    arm = ARMS[version]
    low, high = arm.ranges.T + [[MARGIN], [-MARGIN]]
    low[list(GRIPPERS)], high[list(GRIPPERS)] = 0.0, 1.0
    ready = np.clip(np.zeros(len(NAMES)), low, high)
    rest = _aside(ready, HANGING)
    ready[[ELBOW, 8 + ELBOW]] = np.pi / 2
    ready[list(GRIPPERS)] = 0.3
    limits = Limits(
        low=low,
        high=high,
        speed=np.tile(SPEED, 2),
        acceleration=np.tile(ACCELERATION, 2),
        closing=4.5,
        bow=0.5,
        step=np.tile(STEP, 2),
        press=np.tile(PRESS, 2),
        box_low=np.array([-0.5, -0.9, 0.02]),
        box_high=np.array([0.8, 0.9, 1.5]),
        guard=guard_of(arm),
        ready=ready,
        rest=rest,
        grippers=GRIPPERS,
        arms=2,
        grip=0.5,  # its spring is soft: what it is asked to squeeze is no share of it
        temperature=75.0,  # the motors themselves stop at 100
    )
    if table is None:
        return limits
    rest = _lying(arm, limits, table)
    if _can_lie(arm, limits, rest, table):
        return replace(
            limits,
            bow=1.5,  # a table does not give way as another arm does
            ready=both(READY, gripper=0.3),
            rest=rest,
            box_low=_box_low(table),
        )
    heights = [i / 100 for i in range(60)]
    can = [h for h in heights if _can_lie(arm, limits, _lying(arm, limits, h), h)]
    raise SettingError(
        f'table is {table} m (--table, or "table" in the port\'s file), expected '
        f"from {min(can):.2f} to {max(can):.2f} m over the pedestal's ground: "
        "elsewhere the arms cannot lie down on it"
    )


def _box_low(table: float) -> np.ndarray:
    return np.array([-0.3, -0.9, table])


def _lying(arm: Kinematics, limits: Limits, table: float) -> np.ndarray:
    """(16,) with the elbows bent until the fingertips are `LYING` over the table."""
    rest = _aside(limits.rest, LIFTED)
    rest[[TURN, 8 + TURN]] = OUTWARDS, -OUTWARDS
    least, most = limits.low[ELBOW], np.pi / 2
    for _ in range(30):
        rest[[ELBOW, 8 + ELBOW]] = middle = (least + most) / 2
        if _lowest(arm, rest) < table + LYING:
            least = middle
        else:
            most = middle
    return rest


def _aside(state: np.ndarray, angle: float) -> np.ndarray:
    """A state (16,) with both upper arms lifted aside by an angle, rad."""
    state = state.copy()
    state[[ASIDE, 8 + ASIDE]] = angle, -angle
    return state


def _lowest(arm: Kinematics, state: np.ndarray) -> float:
    return float(arm.watched_of(state)[:, 2].min())


def _can_lie(arm: Kinematics, limits: Limits, rest: np.ndarray, table: float) -> bool:
    """Whether the rest pose is where it should be, and touches nothing."""
    over = _lowest(arm, rest) - table
    clear = limits.guard.clearance(rest, _box_low(table), limits.box_high).min()
    return bool(abs(over - LYING) < 1e-3 and clear > CLEAR)


def both(right: np.ndarray, gripper: float) -> np.ndarray:
    """A state (16,): the right arm's seven joints, and the left arm in its mirror."""
    left = -right
    left[ELBOW] = right[ELBOW]
    return np.concatenate([right, [gripper], left, [gripper]])
