"""What ties a servo's steps to a joint's angle, in LeRobot's JSON layout.

The middle of the swept range is the middle of the model's range: a sweep that stops
short at one end moves every angle of its joint by half of what is missing. The wrist
roll has no stops: its middle is where the arm was held when it was homed.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from act_minimal.support.errors import UserError
from act_minimal.support.files import check_output_file, write_text

from .kinematics import JOINTS, Kinematics
from .registers import STEPS

HALF_TURN = (STEPS - 1) // 2  # the position that homing gives to where a joint is held
FULL_TURN_JOINT = "wrist_roll"
LEAST_SHARE = 0.9  # of a joint's mechanical range that a calibration has to cover
# Steps. A leader's gripper is a handle whose range no model gives; less than this, and
# it was forgotten.
HANDLE_LEAST = 300
# How to place an arm on a table so that both ends of a joint can be reached.
REACH = {
    "shoulder_pan": "clear the table around the base, and turn the raised arm to the "
    "left and to the right until its stops",
    "shoulder_lift": "fold the forearm up, lean the upper arm back until it stops, "
    "then forwards and down until it stops; put the base at the table's edge if the "
    "table is in the way",
    "elbow_flex": "hold the upper arm upright, fold the forearm onto it until it "
    "stops, then stretch it out until it stops",
    "wrist_flex": "hold the forearm level and 20 cm above the table, and bend the "
    "gripper up and down until its stops",
    "gripper": "close the jaw until it stops, then open it until it stops; a leader's "
    "handle turns less, give --leader for that",
}


@dataclass(frozen=True)
class Motor:
    """One motor's row in the file; positions in steps."""

    id: int
    drive_mode: int
    homing_offset: int
    range_min: int
    range_max: int


@dataclass(frozen=True)
class Calibration:
    """The rows of the six motors, in the order of the joints."""

    motors: dict[str, Motor]

    @classmethod
    def of_ranges(cls, rows: Sequence[tuple[int, int, int]]) -> "Calibration":
        """From (homing offset, lowest, highest) of each motor; ids 1 to 6."""
        motors = {}
        for i, (name, (offset, low, high)) in enumerate(zip(JOINTS, rows, strict=True)):
            if name == FULL_TURN_JOINT:
                low, high = 0, STEPS - 1
            motors[name] = Motor(i + 1, 0, offset, low, high)
        return cls(motors)

    def _columns(self, arm: Kinematics) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Lowest and highest step, and the sense in which steps count: 1 or -1."""
        rows = [(m.range_min, m.range_max, m.drive_mode) for m in self.motors.values()]
        low, high, reverse = np.array(rows, float).T
        return low, high, arm.sense * np.where(reverse, -1, 1)

    def state_of(self, steps: np.ndarray, arm: Kinematics) -> np.ndarray:
        """(..., 6) steps -> five angles in rad and the gripper's opening, 0 to 1.

        The opening is not clipped: a jaw squeezed beyond its sweep reads below 0.
        """
        low, high, sense = self._columns(arm)
        steps = np.asarray(steps, float)
        turned = (steps - (low + high) / 2) * sense * (2 * np.pi / STEPS)
        state = arm.middle + turned
        opening = (steps[..., 5] - low[5]) / (high[5] - low[5])
        state[..., 5] = 1 - opening if sense[5] < 0 else opening
        return state

    def steps_of(self, state: np.ndarray, arm: Kinematics) -> np.ndarray:
        """The inverse of `state_of`, rounded and clipped to the swept range."""
        low, high, sense = self._columns(arm)
        state = np.asarray(state, float)
        turned = (state - arm.middle) * sense * (STEPS / (2 * np.pi))
        steps = turned + (low + high) / 2
        opening = 1 - state[..., 5] if sense[5] < 0 else state[..., 5]
        steps[..., 5] = low[5] + opening * (high[5] - low[5])
        return np.clip(np.rint(steps), low, high).astype(int)

    def velocity_of(self, speed: np.ndarray, arm: Kinematics) -> np.ndarray:
        """(..., 6) steps/s -> rad/s, and gripper openings a second."""
        low, high, sense = self._columns(arm)
        velocity = np.asarray(speed, float) * sense * (2 * np.pi / STEPS)
        velocity[..., 5] = speed[..., 5] / (high[5] - low[5]) * sense[5]
        return velocity

    def to_json(self) -> dict[str, dict[str, int]]:
        return {name: asdict(motor) for name, motor in self.motors.items()}


def middle_and_range(offset: int, span: float) -> tuple[int, int, int]:
    """A motor's row whose joint was homed at the middle of a range of `span` rad."""
    half = span / 2 * STEPS / (2 * np.pi)
    return offset, round(HALF_TURN - half), round(HALF_TURN + half)


def check_sweep(
    calibration: Calibration, arm: Kinematics, where: str, *, leader: bool = False
) -> None:
    """Whether every joint was swept over nearly all of its mechanical range.

    Args:
        calibration: what was found.
        arm: whose ranges are expected.
        where: what holds it, for the message: a file, or the sweep.
        leader: the gripper is a leader's handle, of unknown range.

    Raises:
        UserError: names each joint that was not, and how to reach both ends.
    """
    short = []
    for joint in JOINTS:
        motor = calibration.motors[joint]
        found = max(0, motor.range_max - motor.range_min)
        least, why = least_sweep(joint, arm, leader=leader)
        if found < least:
            short.append(
                f"{joint} moved by {found} steps, expected at least {least}{why}: "
                f"{REACH[joint]}"
            )
    if short:
        raise UserError(f"{where}: {'; '.join(short)}. Calibrate again")


def least_sweep(joint: str, arm: Kinematics, *, leader: bool) -> tuple[int, str]:
    """Steps that a joint has to be swept over, and what they are, for messages."""
    if joint == FULL_TURN_JOINT:
        return 0, ""
    if joint == "gripper" and leader:
        return HANDLE_LEAST, ""
    low, high = arm.ranges[JOINTS.index(joint)]
    span = round((high - low) * STEPS / (2 * np.pi))
    why = f" ({LEAST_SHARE:.0%} of a {arm.name}'s {span})"
    return math.ceil(LEAST_SHARE * span), why


def load_calibration(path: str | Path) -> Calibration:
    """Read a file; UserError names the motor and the key that is missing or wrong."""
    path = Path(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(
            f"{path}: no such calibration file; make it with: act calibrate, or copy "
            "LeRobot's"
        ) from None
    except (ValueError, OSError) as error:
        raise UserError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(content, dict) or set(content) != set(JOINTS):
        found = ", ".join(content) if isinstance(content, dict) else "no motors"
        raise UserError(f"{path} holds {found}, expected: {', '.join(JOINTS)}")
    motors = {name: _motor(content[name], f"{path}: {name}") for name in JOINTS}
    ids = [motor.id for motor in motors.values()]
    if len(set(ids)) < len(ids):
        raise UserError(f"{path}: two motors have the same id; the ids are {ids}")
    return Calibration(motors)


def _motor(row: Any, where: str) -> Motor:
    keys = list(Motor.__dataclass_fields__)
    if not isinstance(row, dict) or set(row) != set(keys):
        raise UserError(f"{where} is {row!r}, expected the keys {', '.join(keys)}")
    for key in keys:
        if not isinstance(row[key], int) or isinstance(row[key], bool):
            raise UserError(f"{where}: {key} is {row[key]!r}, expected a whole number")
    motor = Motor(**row)
    if not 0 <= motor.id <= 253:
        raise UserError(f"{where}: id is {motor.id}, expected 0 to 253")
    if motor.drive_mode not in (0, 1):
        raise UserError(f"{where}: drive_mode is {motor.drive_mode}, expected 0 or 1")
    if abs(motor.homing_offset) > 2047:
        raise UserError(
            f"{where}: homing_offset is {motor.homing_offset}, expected at most 2047 "
            "either way; the arm was not at its middle when it was homed"
        )
    if not 0 <= motor.range_min < motor.range_max < STEPS:
        raise UserError(
            f"{where}: the range is {motor.range_min} to {motor.range_max}, expected "
            f"two positions that grow, inside 0 to {STEPS - 1}"
        )
    return motor


def save_calibration(path: str | Path, calibration: Calibration) -> None:
    """Write a file, byte for byte as LeRobot does; UserError if another is there."""
    text = json.dumps(calibration.to_json(), indent=4)
    path = Path(path)
    if path.is_file() and path.read_bytes() == text.encode():
        return
    check_free(path)
    write_text(path, text)


def check_free(path: Path) -> None:
    """Whether a new calibration may be written there; UserError if not."""
    check_output_file(path, "calibration")
    if path.exists():
        raise UserError(
            f"{path} is there already and is never replaced, because what was recorded "
            "with that arm needs it; rename it, or choose another name with "
            "--calibration"
        )
