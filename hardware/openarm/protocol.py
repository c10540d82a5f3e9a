"""Frames of Damiao motors on a CAN bus, as bytes.

    command      id             FF FF FF FF FF FF FF xx         xx: enable, disable ...
    MIT          id             position, velocity, kp, kd, torque, packed into 8 bytes
    POS_VEL      id + 0x100     position, speed limit, as floats
    VEL          id + 0x200     velocity, as a float
    POS_FORCE    id + 0x300     position, speed limit, torque limit
    register     0x7FF          id (2 bytes)  operation  register  value (4 bytes)

A motor answers on an id of its own, its master id: with feedback, or with a copy of a
register frame that holds the value. Answers carry 8 bytes and an 11-bit id, and so do
commands, but for VEL, and register frames without a value: the maker's own examples
send four bytes of those, other programs pad them to eight. In MIT and feedback frames a
number is a share of its range (registers 21 to 23, `Scale`), cut off to 16 or 12 bits.
"""

import math
from dataclasses import dataclass
from enum import IntEnum

REGISTER_FRAME = 0x7FF  # id of every register frame
KP_MAX, KD_MAX = 500.0, 5.0  # N·m/rad and N·m·s/rad, the same for all motors
SPEED_STEPS, FORCE_STEPS = 100, 10_000  # of POS_FORCE: a rad/s, a whole torque
SIZE = 8  # bytes of every answer, and of most commands
SHORT = 4  # bytes of a float, and of a register frame without its value


class Command(IntEnum):
    """The last byte of a frame whose other seven are FF."""

    CLEAR_ERROR = 0xFB
    ENABLE = 0xFC
    DISABLE = 0xFD
    SET_ZERO = 0xFE


class Mode(IntEnum):
    """What a motor follows; register 10."""

    MIT = 1
    POS_VEL = 2
    VEL = 3
    POS_FORCE = 4


# A frame of each mode comes on the motor's id plus this.
OFFSETS = {Mode.MIT: 0, Mode.POS_VEL: 0x100, Mode.VEL: 0x200, Mode.POS_FORCE: 0x300}
# Bytes that a goal of each mode may have.
GOAL_SIZES = {mode: (SIZE,) for mode in Mode} | {Mode.VEL: (SHORT, SIZE)}


class Operation(IntEnum):
    """What a register frame asks for."""

    READ = 0x33
    WRITE = 0x55
    SAVE = 0xAA
    REFRESH = 0xCC


class Status(IntEnum):
    """How a motor is, in every feedback frame. From 2 on it gives no torque."""

    DISABLED = 0x0
    ENABLED = 0x1
    SENSOR_ERROR = 0x5
    PARAMETER_ERROR = 0x6
    OVER_VOLTAGE = 0x8
    UNDER_VOLTAGE = 0x9
    OVER_CURRENT = 0xA
    DRIVER_TOO_HOT = 0xB
    ROTOR_TOO_HOT = 0xC
    LOST_COMMUNICATION = 0xD
    OVERLOAD = 0xE
    UNKNOWN_ERROR = 0xF

    @classmethod
    def _missing_(cls, value: object) -> "Status":
        """A code that nobody has published is an error, too."""
        return cls.UNKNOWN_ERROR

    @property
    def is_error(self) -> bool:
        """Whether the motor has shut itself off."""
        return self > Status.ENABLED

    def words(self) -> str:
        return self.name.lower().replace("_", " ")


@dataclass(frozen=True)
class Frame:
    """One frame on the bus, command or answer."""

    id: int
    data: bytes


@dataclass(frozen=True)
class Scale:
    """Ends of a motor's ranges: from minus this to plus this."""

    position: float  # PMAX, rad
    velocity: float  # VMAX, rad/s
    torque: float  # TMAX, N·m


@dataclass(frozen=True)
class Mit:
    """A goal in MIT mode: torque = kp (position - q) + kd (velocity - dq) + torque."""

    position: float = 0.0  # rad
    velocity: float = 0.0  # rad/s
    kp: float = 0.0  # N·m/rad
    kd: float = 0.0  # N·m·s/rad
    torque: float = 0.0  # N·m

    def encode(self, scale: Scale) -> bytes:
        """The eight bytes; what is beyond its range is cut off, NaN is a ValueError."""
        position = quantise(self.position, -scale.position, scale.position, 16)
        velocity = quantise(self.velocity, -scale.velocity, scale.velocity, 12)
        kp = quantise(self.kp, 0.0, KP_MAX, 12)
        kd = quantise(self.kd, 0.0, KD_MAX, 12)
        torque = quantise(self.torque, -scale.torque, scale.torque, 12)
        packed = position << 48 | velocity << 36 | kp << 24 | kd << 12 | torque
        return packed.to_bytes(SIZE, "big")

    @classmethod
    def decode(cls, data: bytes, scale: Scale) -> "Mit":
        packed = _whole(data)
        return cls(
            position=restore(packed >> 48, -scale.position, scale.position, 16),
            velocity=restore(packed >> 36, -scale.velocity, scale.velocity, 12),
            kp=restore(packed >> 24, 0.0, KP_MAX, 12),
            kd=restore(packed >> 12, 0.0, KD_MAX, 12),
            torque=restore(packed, -scale.torque, scale.torque, 12),
        )


@dataclass(frozen=True)
class Feedback:
    """What a motor says of itself; `id` is the low four bits of its id."""

    id: int
    status: Status
    position: float  # rad
    velocity: float  # rad/s
    torque: float  # N·m
    driver_temperature: int = 0  # °C, of the transistors
    rotor_temperature: int = 0  # °C, of the coils

    def encode(self, scale: Scale) -> bytes:
        position = quantise(self.position, -scale.position, scale.position, 16)
        velocity = quantise(self.velocity, -scale.velocity, scale.velocity, 12)
        torque = quantise(self.torque, -scale.torque, scale.torque, 12)
        head = bytes([self.status << 4 | self.id & 0xF])
        heat = bytes([_byte(self.driver_temperature), _byte(self.rotor_temperature)])
        middle = (position << 24 | velocity << 12 | torque).to_bytes(5, "big")
        return head + middle + heat

    @classmethod
    def decode(cls, data: bytes, scale: Scale) -> "Feedback":
        """The inverse of `encode`; ValueError if there are not eight bytes."""
        packed = _whole(data) >> 16
        return cls(
            id=data[0] & 0xF,
            status=Status(data[0] >> 4),
            position=restore(packed >> 24, -scale.position, scale.position, 16),
            velocity=restore(packed >> 12, -scale.velocity, scale.velocity, 12),
            torque=restore(packed, -scale.torque, scale.torque, 12),
            driver_temperature=data[6],
            rotor_temperature=data[7],
        )


@dataclass(frozen=True)
class RegisterFrame:
    """A question about a register, or its answer, which looks the same."""

    id: int
    operation: Operation
    register: int
    value: bytes = bytes(4)

    def encode(self) -> bytes:
        head = self.id.to_bytes(2, "little")
        return head + bytes([self.operation, self.register]) + self.value

    @classmethod
    def decode(cls, data: bytes) -> "RegisterFrame | None":
        """The inverse of `encode`; None if these bytes are no register frame."""
        if len(data) not in (SHORT, SIZE) or data[2] not in _OPERATIONS:
            return None
        id, operation = int.from_bytes(data[:2], "little"), Operation(data[2])
        if operation is Operation.WRITE and len(data) == SHORT:
            return None
        return cls(id, operation, data[3], bytes(data[4:]) or bytes(4))


_OPERATIONS = frozenset(Operation)


def quantise(x: float, low: float, high: float, bits: int) -> int:
    """A number as a share of its range, cut off to so many bits, as the maker does.

    Raises:
        ValueError: it is NaN, which would pass through every comparison.
    """
    if math.isnan(x):
        raise ValueError("NaN cannot be sent to a motor")
    clamped = min(max(x, low), high)
    return int((clamped - low) / (high - low) * ((1 << bits) - 1))


def restore(step: int, low: float, high: float, bits: int) -> float:
    """The inverse of `quantise`; bits above the lowest `bits` are ignored."""
    most = (1 << bits) - 1
    return (step & most) * (high - low) / most + low


def command(id: int, what: Command) -> Frame:
    """Enable, disable, set zero, or clear an error."""
    return Frame(id, b"\xff" * 7 + bytes([what]))


def mit(id: int, goal: Mit, scale: Scale) -> Frame:
    """A goal in MIT mode."""
    return Frame(id, goal.encode(scale))


def read(id: int, register: int) -> Frame:
    """Ask for a register."""
    return Frame(REGISTER_FRAME, RegisterFrame(id, Operation.READ, register).encode())


def write(id: int, register: int, value: bytes) -> Frame:
    """Write a register; it is forgotten without power, unless saved."""
    asked = RegisterFrame(id, Operation.WRITE, register, value)
    return Frame(REGISTER_FRAME, asked.encode())


def refresh(id: int) -> Frame:
    """Ask for feedback, and command nothing."""
    return Frame(REGISTER_FRAME, RegisterFrame(id, Operation.REFRESH, 0).encode())


def is_answer_of_register(data: bytes, id: int) -> bool:
    """Whether an answer of motor `id` is of a register, or else feedback.

    By design of the protocol the two can be mistaken for each other. Feedback that
    looks like an answer would be of a disabled motor at -12.48, -12.47 or -12.43 rad
    (with PMAX 12.5), where no joint of an arm ever is.
    """
    found = RegisterFrame.decode(data)
    return (
        found is not None
        and found.id == id
        and found.operation is not Operation.REFRESH
    )


def _whole(data: bytes) -> int:
    if len(data) != SIZE:
        raise ValueError(f"{len(data)} bytes in a frame, expected {SIZE}")
    return int.from_bytes(data, "big")


def _byte(x: float) -> int:
    return max(0, min(255, round(x)))
