"""From a box of servos to a calibrated arm: ids, homing, sweep, and a look at health.

Each step talks to a person through two functions, so that tests and the virtual arm can
be the person: `ask(text)` shows a sentence and returns when it has been done.
"""

import contextlib
import time
from collections.abc import Callable, Mapping
from typing import Any

from act_minimal.support.errors import UserError

from ..errors import BusError
from .arm import IDS
from .bus import Bus
from .calibration import (
    FULL_TURN_JOINT,
    HALF_TURN,
    Calibration,
    check_sweep,
    least_sweep,
)
from .kinematics import JOINTS, SO100, Kinematics
from .protocol import Fault
from .registers import BAUD_RATES, MODEL_NUMBER, MULTI_TURN, STEPS

WRITTEN = ("Homing_Offset", "Min_Position_Limit", "Max_Position_Limit")


def assign_ids(bus: Bus, ask: Callable[[str], Any], say: Callable[[str], Any]) -> None:
    """Give the servos ids 6 to 1, plugged in one at a time, gripper first.

    A servo out of the box has id 1 and 1 000 000 baud; one that was set differently is
    found at any id and rate.

    Raises:
        UserError: none or several servos are plugged in, or one of another model.
    """
    for id, joint in sorted(zip(IDS, JOINTS, strict=True), reverse=True):
        ask(f"plug in only the servo of {joint}, then press Enter")
        found, baud = find_one(bus)
        bus.set_baud(baud)
        model = bus.read(found, "Model_Number")
        if model != MODEL_NUMBER:
            raise UserError(
                f"the servo of {joint} is of model {model}, expected {MODEL_NUMBER} "
                "(STS3215)"
            )
        bus.write(found, "Torque_Enable", 0)
        bus.write(found, "Lock", 0)
        if found != id:
            bus.write(found, "ID", id)
        # The answer to this write comes at the new rate, or not at all.
        if baud != BAUD_RATES[0]:
            with contextlib.suppress(BusError):
                bus.write(id, "Baud_Rate", 0)
            bus.set_baud(BAUD_RATES[0])
        bus.write(id, "Lock", 1)
        if not bus.ping(id):
            raise BusError(f"the servo of {joint} does not answer at its new id {id}")
        say(f"{joint}: id {found} is now {id}")


def find_one(bus: Bus) -> tuple[int, int]:
    """The id and rate of the only servo that is plugged in; else UserError."""
    for baud in BAUD_RATES:
        bus.set_baud(baud)
        found = bus.find()
        if len(found) > 1:
            bus.set_baud(BAUD_RATES[0])
            raise UserError(
                f"{len(found)} servos answer on {bus.port} (ids {found}); plug in one"
            )
        if found:
            return found[0], baud
    bus.set_baud(BAUD_RATES[0])
    raise UserError(
        f"no servo answers on {bus.port} at any rate; check its plug and the power "
        "supply, and that only one is plugged in: two of one id spoil each other"
    )


def calibrate(
    bus: Bus,
    ask: Callable[[str], Any],
    say: Callable[[str], Any],
    *,
    arm: Kinematics = SO100,
    leader: bool = False,
    seconds: float | None = None,
    moving: Callable[[], bool] = lambda: True,
    save: Callable[[Calibration], None] = lambda calibration: None,
) -> Calibration:
    """Home every joint at its middle, sweep it by hand, write the servos.

    Nothing moves by itself: torque is off throughout. If it is not finished, for
    whatever reason, the servos get back what they held before.

    Args:
        bus: open.
        ask: shows a sentence, returns when it has been done.
        say: shows progress.
        arm: whose ranges the joints are swept over.
        leader: its gripper is a handle; see `check_sweep`.
        seconds: the sweep lasts so long; None: as long as `moving`.
        moving: asked during the sweep whether it goes on.
        save: keeps what was found; if it fails, nothing was calibrated.

    Raises:
        UserError: a joint was not at its middle, or was not swept from end to end.
    """
    for id in IDS:
        bus.write(id, "Torque_Enable", 0)
        bus.write(id, "Lock", 0)
        bus.write(id, "Operating_Mode", 0)
        phase = bus.read(id, "Phase")
        if phase & MULTI_TURN:
            bus.write(id, "Phase", phase & ~MULTI_TURN)
    before = {id: {name: bus.read(id, name) for name in WRITTEN} for id in IDS}
    try:
        ask(
            "hold the arm with every joint in the middle of its range, then press Enter"
        )
        offsets = _home(bus)
        ask(
            f"press Enter, then move every joint but {FULL_TURN_JOINT} to both ends of "
            "its range" + (f", within {seconds:g} s" if seconds else "; a key ends it")
        )
        least = [least_sweep(joint, arm, leader=leader)[0] for joint in JOINTS]
        least_of = dict(zip(IDS, least, strict=True))
        low, high = _sweep(bus, seconds, moving, least_of, say)
        found = [(offsets[id], low[id], high[id]) for id in IDS]
        calibration = Calibration.of_ranges(found)
        for joint, motor in calibration.motors.items():
            say(f"{joint}: {motor.range_min} to {motor.range_max}")
        check_sweep(calibration, arm, "the sweep", leader=leader)
        restore(bus, calibration)
        save(calibration)
    except BaseException:
        for id, values in before.items():
            with contextlib.suppress(BusError):  # a silent one, and not all that follow
                _keep(bus, id, values)
        raise
    return calibration


def _home(bus: Bus) -> dict[int, int]:
    """Make each present position the middle; returns the offsets."""
    for id in IDS:
        bus.write(id, "Homing_Offset", 0)
        bus.write(id, "Min_Position_Limit", 0)
        bus.write(id, "Max_Position_Limit", STEPS - 1)
    offsets = {}
    for id, position in bus.read_all(IDS, "Present_Position").items():
        offset = position - HALF_TURN
        if abs(offset) > 2047:
            raise UserError(
                f"{bus.who(id)} would need an offset of {offset}, expected at most "
                "2047 either way: turn its horn by half a turn, or hold the joint "
                "nearer to its middle"
            )
        bus.write(id, "Homing_Offset", offset)
        offsets[id] = offset
    return offsets


def _sweep(
    bus: Bus,
    seconds: float | None,
    moving: Callable[[], bool],
    least: Mapping[int, int],
    say: Callable[[str], Any],
) -> tuple[Mapping[int, int], Mapping[int, int]]:
    """Lowest and highest position of each servo while it is moved by hand."""
    short = {id for id, steps in least.items() if steps}
    low = dict.fromkeys(IDS, STEPS)
    high = dict.fromkeys(IDS, -1)
    last: dict[int, int] = {}
    end = None if seconds is None else time.monotonic() + seconds
    while moving() if end is None else time.monotonic() < end:
        for id, position in bus.read_all(IDS, "Present_Position").items():
            joint = JOINTS[IDS.index(id)]
            jump = abs(position - last.get(id, position))
            if jump > STEPS // 2 and joint != FULL_TURN_JOINT:
                raise UserError(
                    f"{joint} passed the end of its servo's turn during the sweep; "
                    "begin again with every joint nearer to its middle"
                )
            last[id] = position
            low[id] = min(low[id], position)
            high[id] = max(high[id], position)
            if id in short and high[id] - low[id] >= least[id]:
                short.remove(id)
                say(f"{joint}: swept, {len(short)} to go")
        time.sleep(0.02)
    return low, high


def restore(bus: Bus, calibration: Calibration) -> None:
    """Write a calibration into the servos, so that it outlives the power."""
    for motor in calibration.motors.values():
        values = (motor.homing_offset, motor.range_min, motor.range_max)
        _keep(bus, motor.id, dict(zip(WRITTEN, values, strict=True)))


def _keep(bus: Bus, id: int, values: Mapping[str, int]) -> None:
    """Write registers of one servo that it keeps without power."""
    bus.write(id, "Torque_Enable", 0)
    bus.write(id, "Lock", 0)
    for name, value in values.items():
        bus.write(id, name, value)
    bus.write(id, "Lock", 1)


def health(bus: Bus) -> list[dict[str, Any]]:
    """What every servo says about itself; one row each, silent ones too."""
    rows = []
    for id, joint in zip(IDS, JOINTS, strict=True):
        row: dict[str, Any] = {"id": id, "joint": joint}
        try:
            row |= {
                "firmware": f"{bus.read(id, 'Firmware_Major_Version')}."
                f"{bus.read(id, 'Firmware_Minor_Version')}",
                "model": bus.read(id, "Model_Number"),
                "volts": bus.read(id, "Present_Voltage") / 10,
                "celsius": bus.read(id, "Present_Temperature"),
                "load": bus.read(id, "Present_Load") / 1000,
                "position": bus.read(id, "Present_Position"),
                "torque": bool(bus.read(id, "Torque_Enable")),
                "fault": bus.traffic.faults.get(id, Fault(0)).words(),
            }
        except BusError:
            row["fault"] = "silent"
        rows.append(row)
    return rows
