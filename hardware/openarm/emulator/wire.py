"""The CAN bus of one virtual arm: who answers what and when, and all that goes wrong.

One frame is on the wire at a time, for as long as on a real bus: one of 8 bytes has
some 130 bits with its stuffing, at 1 Mbit/s (CAN-FD, too: without a switch of the rate,
as the usual drivers send).
"""

import bisect
import random
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from ...virtual.faults import Switches
from ..protocol import (
    OFFSETS,
    REGISTER_FRAME,
    Frame,
    RegisterFrame,
    Status,
    is_answer_of_register,
)
from .motor import Motor

FRAME_SECONDS = 130e-6
WRONG_ID = 0x0F  # what a motor with the fault `wrong_id` is called


@dataclass
class Faults(Switches):
    """Everything that can be wrong with one arm's bus; all off by default.

    Motors are named by id, 0 means none of them. Shares are from 0 to 1.
    """

    silent: int = 0  # this motor is not there: a plug came out
    wrong_id: int = 0
    """This motor listens on 0x0F and answers on 0x1F, and not on its own ids."""
    wrong_rate: int = 0
    """This motor is set to another bit rate than the others: it hears nothing."""
    wrong_kind: bool = False
    """The motors speak classic CAN where the bus was said to be CAN-FD, or the other
    way round."""
    over_voltage: bool = False  # the supply gives 36 V
    under_voltage: bool = False  # the supply gives 12 V
    driver_hot: int = 0  # this motor's transistors are too hot
    rotor_hot: int = 0  # this motor's coils are too hot
    over_current: int = 0  # this motor says that it draws too much
    overload: int = 0  # this motor says that it is overloaded
    lost_communication: int = 0  # this motor says that its commands stopped coming
    frozen: int = 0  # this motor answers for ever what it answered when the fault began
    dropped: float = 0.0  # share of answers that never arrive
    unheard: float = 0.0  # share of commands that never arrive
    doubled: float = 0.0  # share of answers that arrive twice
    late: float = 0.0  # share of answers that come only after `late_by`
    late_by: float = 0.03  # seconds
    unplugged: bool = False
    """The cable is out: no frame goes either way, the motors have power."""
    no_power: bool = False  # the motors' supply is off: an emergency stop, or a plug


_FORCED = {
    "driver_hot": Status.DRIVER_TOO_HOT,
    "rotor_hot": Status.ROTOR_TOO_HOT,
    "over_current": Status.OVER_CURRENT,
    "overload": Status.OVERLOAD,
    "lost_communication": Status.LOST_COMMUNICATION,
}


class Wire:
    """Motors on one bus. Frames in with their time, frames out with theirs.

    Args:
        motors: of one arm.
        fd: whether they speak CAN-FD; what is sent in the other kind they do not hear.
        seed: of the faults that come by chance.
    """

    def __init__(self, motors: Iterable[Motor], *, fd: bool = True, seed: int = 0):
        self.motors = list(motors)
        self.fd = fd
        self.faults = Faults()
        self.random = random.Random(seed)
        self._free = 0.0  # when the wire is free again
        self._out: deque[tuple[float, Frame]] = deque()  # by time
        self._frozen: dict[int, bytes] = {}

    @property
    def speaks_fd(self) -> bool:
        """Whether the motors send and hear CAN-FD, with what is wrong with them."""
        return self.fd != self.faults.wrong_kind

    def receive(self, frame: Frame, now: float, *, fd: bool) -> None:
        """What a client sent at `now`, s, of any clock that does not run backwards."""
        f = self.faults
        if f.unplugged or f.no_power or fd != self.speaks_fd:
            return
        if self.random.random() < f.unheard:
            return
        self._free = max(self._free, now) + FRAME_SECONDS
        for motor in self.motors:
            if motor.id in (f.silent, f.wrong_rate):
                continue
            heard = self._as_heard(motor, frame)
            answer = motor.obey(heard) if heard else None
            if answer is not None:
                self._answer(motor, answer)

    def due(self, now: float) -> list[Frame]:
        ready = []
        while self._out and self._out[0][0] <= now:
            ready.append(self._out.popleft()[1])
        return [] if self.faults.unplugged or self.faults.no_power else ready

    def next_due(self) -> float | None:
        return self._out[0][0] if self._out else None

    def _as_heard(self, motor: Motor, frame: Frame) -> Frame | None:
        """The frame as this motor understands it; None if it is not for it."""
        if motor.id != self.faults.wrong_id:
            return frame
        offset = frame.id - WRONG_ID
        if offset in OFFSETS.values():
            return Frame(motor.id + offset, frame.data)
        asked = RegisterFrame.decode(frame.data)
        if frame.id == REGISTER_FRAME and asked and asked.id == WRONG_ID:
            return Frame(frame.id, bytes([motor.id, 0]) + frame.data[2:])
        return None

    def _answer(self, motor: Motor, data: bytes) -> None:
        f, chance = self.faults, self.random.random
        id = motor.master
        if motor.id == f.frozen and data == motor.feedback():
            data = self._frozen.setdefault(motor.id, data)
        if motor.id == f.wrong_id:
            id = 0x10 + WRONG_ID
            whole = is_answer_of_register(data, motor.id)
            data = bytes([WRONG_ID if whole else data[0] | WRONG_ID]) + data[1:]
        for _ in range(2 if chance() < f.doubled else 1):
            self._free += FRAME_SECONDS
            if chance() < f.dropped:
                continue
            late = f.late_by if chance() < f.late else 0.0
            row = self._free + late, Frame(id, data)
            bisect.insort(self._out, row, key=lambda row: row[0])

    def apply_faults(self) -> None:
        """Switches that live in the motors themselves."""
        f = self.faults
        if not f.frozen:
            self._frozen.clear()
        for motor in self.motors:
            motor.supply = 36.0 if f.over_voltage else 12.0 if f.under_voltage else 24.0
            motor.forced = None
            for name, status in _FORCED.items():
                if getattr(f, name) == motor.id:
                    motor.forced = status
