"""What ties a servo's steps to a joint's angle, in LeRobot's JSON layout.

One file an arm, as LeRobot writes it: for each motor its id, drive mode, homing offset
and the lowest and highest position that it reached when it was swept by hand. An arm
that was calibrated with LeRobot works here with the same file, and the other way round.

Where an angle is 0 follows from the mechanical stops: the middle of the swept range is
the middle of the model's range, so that a sweep that stops short at both ends does no
harm. LeRobot calls that middle 0 degrees. The wrist roll has no stops: its middle is
where the arm was held when it was homed.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from act_minimal.errors import UserError
from act_minimal.files import atomic_file

from .kinematics import JOINTS, Kinematics
from .registers import STEPS

HALF_TURN = (STEPS - 1) // 2  # the position that homing gives to where a joint is held
FULL_TURN_JOINT = "wrist_roll"


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

    def _columns(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Lowest and highest step, and whether each motor is driven backwards."""
        rows = self.motors.values()
        return (
            np.array([m.range_min for m in rows], float),
            np.array([m.range_max for m in rows], float),
            np.array([m.drive_mode for m in rows], bool),
        )

    def state_of(self, steps: np.ndarray, arm: Kinematics) -> np.ndarray:
        """(..., 6) steps -> five angles in rad and the gripper's opening, 0 to 1.

        The opening is not clipped: a jaw squeezed beyond its sweep reads below 0.
        """
        low, high, reverse = self._columns()
        steps = np.asarray(steps, float)
        sense = arm.sense * np.where(reverse, -1, 1)
        turned = (steps - (low + high) / 2) * sense * (2 * np.pi / STEPS)
        state = arm.middle + turned
        opening = (steps[..., 5] - low[5]) / (high[5] - low[5])
        state[..., 5] = 1 - opening if reverse[5] else opening
        return state

    def steps_of(self, state: np.ndarray, arm: Kinematics) -> np.ndarray:
        """The inverse of `state_of`, rounded and clipped to the swept range."""
        low, high, reverse = self._columns()
        state = np.asarray(state, float)
        sense = arm.sense * np.where(reverse, -1, 1)
        turned = (state - arm.middle) * sense * (STEPS / (2 * np.pi))
        steps = turned + (low + high) / 2
        opening = np.where(reverse[5], 1 - state[..., 5], state[..., 5])
        steps[..., 5] = low[5] + opening * (high[5] - low[5])
        return np.clip(np.rint(steps), low, high).astype(int)

    def velocity_of(self, speed: np.ndarray, arm: Kinematics) -> np.ndarray:
        """(..., 6) steps/s -> rad/s, and gripper openings a second."""
        low, high, reverse = self._columns()
        sense = arm.sense * np.where(reverse, -1, 1)
        velocity = np.asarray(speed, float) * sense * (2 * np.pi / STEPS)
        velocity[..., 5] = speed[..., 5] / (high[5] - low[5])
        velocity[..., 5] *= -1 if reverse[5] else 1
        return velocity

    def to_json(self) -> dict[str, dict[str, int]]:
        """LeRobot's layout."""
        return {name: asdict(motor) for name, motor in self.motors.items()}


def middle_and_range(offset: int, span: float) -> tuple[int, int, int]:
    """A motor's row whose joint was homed at the middle of a range of `span` rad."""
    half = span / 2 * STEPS / (2 * np.pi)
    return offset, round(HALF_TURN - half), round(HALF_TURN + half)


def load_calibration(path: str | Path) -> Calibration:
    """Read a calibration file.

    Raises:
        UserError: Names the file, the motor and the key that is missing or wrong.
    """
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
    """Write a calibration file, byte for byte as LeRobot lays it out."""
    with atomic_file(path) as temporary:
        temporary.write_text(
            json.dumps(calibration.to_json(), indent=4), encoding="utf-8"
        )
