"""One Damiao motor: its registers, its states, its torque. No bus, no physics.

What the maker does not publish is chosen here, and said where it is chosen:

* an enabled motor without a goal gives no torque;
* a goal of another mode than register 10 says is not answered;
* a register that cannot be written, or cannot hold the value, answers with what it has;
* setting the zero is allowed with torque, and then moves the arm: the goal stays;
* saving is answered, but done only without torque;
* a motor that has shut itself off stays off until its error is cleared and the cause is
  gone; then it is disabled.
"""

import struct
from dataclasses import dataclass, field

from ..motors import MotorType
from ..protocol import (
    FORCE_STEPS,
    GOAL_SIZES,
    OFFSETS,
    REGISTER_FRAME,
    SIZE,
    SPEED_STEPS,
    Command,
    Feedback,
    Frame,
    Mit,
    Mode,
    Operation,
    RegisterFrame,
    Scale,
    Status,
)
from ..registers import BY_NUMBER, FD_RATE, REGISTERS, TIMEOUT_UNIT, register

ONES = b"\xff" * 7  # what a command begins with
AMBIENT = 25.0  # °C
HEATING = 1.0  # °C/s at the peak torque; chosen: the rated torque may last for ever
COOLING = 1 / 120  # 1/s
ROTOR_LIMIT = 120.0  # °C; chosen
OVERLOAD_SHARE, OVERLOAD_SECONDS = 0.95, 3.0  # of the peak torque; chosen
# The inner loops of POS_VEL, VEL and POS_FORCE: chosen, stiff enough to follow.
POSITION_GAIN, VELOCITY_GAIN = 10.0, 0.15  # 1/s, and share of the peak torque a rad/s
DEFAULTS = {
    "UV_Value": 15.0,
    "OT_Value": 100.0,
    "OC_Value": 0.98,
    "MAX_SPD": 45.0,
    "CTRL_MODE": int(Mode.MIT),
    "hw_ver": 1,
    "sw_ver": 5013,
    "NPP": 21,
    "I_BW": 1000.0,
    "OV_Value": 32.0,
    "GREF": 1.0,
    "Deta": 4.0,
    "V_BW": 100.0,
    "IQ_c1": 100.0,
    "can_br": FD_RATE,
}


@dataclass
class Motor:
    """Registers and rules of one motor.

    Attributes:
        shaft: Angle of the output shaft, rad, from the factory's zero; set by the arm's
            physics, as is `speed` (rad/s).
        supply: Voltage at the plug, V.
        zero: Where on the shaft the angle 0 is, rad; kept without power.
        torque: What the motor gives now, N·m.
    """

    id: int
    master: int
    type: MotorType
    shaft: float = 0.0
    speed: float = 0.0
    supply: float = 24.0
    zero: float = 0.0
    torque: float = 0.0
    status: Status = Status.DISABLED
    driver_temperature: float = AMBIENT
    rotor_temperature: float = AMBIENT
    forced: Status | None = None  # a fault that is there for as long as it is forced
    goal: Mit | None = None
    silence: float = 0.0  # seconds since the last frame for this motor
    strain: float = 0.0  # seconds at full torque
    memory: dict[int, bytes] = field(default_factory=dict)
    saved: dict[int, bytes] = field(default_factory=dict)
    _limit: tuple[float, float] = (0.0, 0.0)  # rad/s and N·m, of the other modes

    def __post_init__(self) -> None:
        self.reset_registers()

    def reset_registers(self) -> None:
        """Registers as a motor of its type has them from the factory."""
        scale = self.type.scale
        own = {
            "KT_Value": self.type.kt,
            "MST_ID": self.master,
            "ESC_ID": self.id,
            "Gr": self.type.gear,
            "PMAX": scale.position,
            "VMAX": scale.velocity,
            "TMAX": scale.torque,
            "Imax": self.type.peak / self.type.kt,
        }
        for name, r in REGISTERS.items():
            value = (DEFAULTS | own).get(name, max(r.low, 0.0) if r.writable else 0.0)
            self.memory[r.number] = r.encode(min(value, r.high))
        self.saved = dict(self.memory)
        self._cache_registers()

    # ------------------------------------------------------------- registers

    def get(self, name: str) -> float:
        r = register(name)
        return r.decode(self.memory[r.number])

    def poke(self, name: str, value: float) -> None:
        self.memory[register(name).number] = register(name).encode(value)
        self._cache_registers()

    def _cache_registers(self) -> None:
        """What it needs of its registers a thousand times a second."""
        self.scale = Scale(self.get("PMAX"), self.get("VMAX"), self.get("TMAX"))
        self.mode = Mode(int(self.get("CTRL_MODE")))
        self._under_voltage = self.get("UV_Value")
        self._over_voltage = self.get("OV_Value")
        self._over_temperature = self.get("OT_Value")
        self._timeout = self.get("TIMEOUT")

    @property
    def position(self) -> float:
        return self.shaft - self.zero

    def power_up(self) -> None:
        """What was not saved is lost; it is disabled, and has no goal."""
        self.memory = dict(self.saved)
        self._cache_registers()
        self.status, self.goal, self.torque = Status.DISABLED, None, 0.0
        self.silence = self.strain = 0.0

    # ------------------------------------------------------------- frames

    def obey(self, frame: Frame) -> bytes | None:
        """Carry out one frame; the bytes of the answer, None for silence.

        Frames for others, and what is no frame, are met with silence.
        """
        # The maker's examples send commands on the mode's id, other programs on the
        # bare one; bytes that are all ones are no number, and so no goal of any mode.
        ours = (self.id, self.id + OFFSETS[self.mode])
        if frame.id == REGISTER_FRAME:
            answer = self._register(frame.data)
        elif frame.id in ours and len(frame.data) == SIZE and frame.data[:7] == ONES:
            answer = self._command(frame.data[7])
        else:
            answer = self._goal(frame)
        if answer is not None:
            self.silence = 0.0
        return answer

    def feedback(self) -> bytes:
        return Feedback(
            id=self.id,
            status=self.status,
            position=self.position,
            velocity=self.speed,
            torque=self.torque,
            driver_temperature=round(self.driver_temperature),
            rotor_temperature=round(self.rotor_temperature),
        ).encode(self.scale)

    def _command(self, what: int) -> bytes | None:
        if what == Command.ENABLE:
            if self.status is Status.DISABLED:
                self.status, self.goal, self.strain = Status.ENABLED, None, 0.0
        elif what == Command.DISABLE:
            if self.status is Status.ENABLED:
                self.status = Status.DISABLED
            self.goal, self.torque = None, 0.0
        elif what == Command.SET_ZERO:
            self.zero = self.shaft
        elif what == Command.CLEAR_ERROR:
            if self.status.is_error:
                self.status, self.goal, self.strain = Status.DISABLED, None, 0.0
                self._look()
        else:
            return None
        return self.feedback()

    def _goal(self, frame: Frame) -> bytes | None:
        mode = self.mode
        if frame.id != self.id + OFFSETS[mode]:
            return None
        if len(frame.data) not in GOAL_SIZES[mode]:
            return None
        if mode is Mode.MIT:
            goal = Mit.decode(frame.data, self.scale)
            self._limit = 0.0, self.type.peak
        elif mode is Mode.VEL:
            (velocity,) = struct.unpack_from("<f", frame.data)
            goal = Mit(velocity=velocity)
            self._limit = abs(velocity), self.type.peak
        elif mode is Mode.POS_VEL:
            position, speed = struct.unpack("<ff", frame.data)
            goal = Mit(position=position)
            self._limit = abs(speed), self.type.peak
        else:
            position, speed, share = struct.unpack("<fHH", frame.data)
            goal = Mit(position=position)
            most = self.get("TMAX") * min(share / FORCE_STEPS, 1.0)
            self._limit = speed / SPEED_STEPS, min(most, self.type.peak)
        numbers = (goal.position, goal.velocity, *self._limit)
        if not all(abs(x) < 1e6 for x in numbers):  # NaN and infinity, too
            return None
        if self.status is Status.ENABLED:
            self.goal = goal
        return self.feedback()

    def _register(self, data: bytes) -> bytes | None:
        asked = RegisterFrame.decode(data)
        if asked is None or asked.id != self.id:
            return None
        if asked.operation is Operation.REFRESH:
            return self.feedback()
        if asked.operation is Operation.SAVE:
            if self.status is not Status.ENABLED:
                self.saved = dict(self.memory)
            return asked.encode()
        r = BY_NUMBER.get(asked.register)
        if r is None:
            return None
        self._measure()
        if asked.operation is Operation.WRITE and r.writable and r.holds(asked.value):
            self.memory[r.number] = asked.value
            self._cache_registers()
            if r.name == "CTRL_MODE":
                self.goal = None
        return RegisterFrame(
            asked.id, asked.operation, r.number, self.memory[r.number]
        ).encode()

    def _measure(self) -> None:
        for name, value in (
            ("VBus", self.supply),
            ("Tpcb", self.driver_temperature),
            ("Tmtr", self.rotor_temperature),
            ("p_m", self.position * self.type.gear),
            ("xout", self.position),
        ):
            self.memory[register(name).number] = register(name).encode(value)

    # ------------------------------------------------------------- motor

    def drive(self, shaft: float, speed: float, seconds: float) -> float:
        """The torque, N·m, that it gives for the next short while; rad and rad/s."""
        self.shaft, self.speed = shaft, speed
        self.silence += seconds
        self._look()
        self.torque = 0.0
        if self.status is Status.ENABLED and self.goal is not None:
            most = self.type.peak
            self.torque = max(-most, min(most, self._wanted(self.goal)))
        load = self.torque / self.type.peak
        self._age(abs(load), seconds)
        return self.torque

    def _wanted(self, goal: Mit) -> float:
        if self.mode is Mode.MIT:
            return (
                goal.kp * (goal.position - self.position)
                + goal.kd * (goal.velocity - self.speed)
                + goal.torque
            )
        speed, torque = self._limit
        wish = goal.velocity
        if self.mode is not Mode.VEL:
            wish = POSITION_GAIN * (goal.position - self.position)
        wish = max(-speed, min(speed, wish))
        wanted = VELOCITY_GAIN * self.type.peak * (wish - self.speed)
        return max(-torque, min(torque, wanted))

    def _age(self, load: float, seconds: float) -> None:
        warmth = self.rotor_temperature - AMBIENT
        self.rotor_temperature += seconds * (HEATING * load**2 - COOLING * warmth)
        warmth = self.driver_temperature - AMBIENT
        self.driver_temperature += seconds * (HEATING / 3 * load**2 - COOLING * warmth)
        self.strain = self.strain + seconds if load > OVERLOAD_SHARE else 0.0
        if self.strain > OVERLOAD_SECONDS:
            self._shut_off(Status.OVERLOAD)

    def _look(self) -> None:
        """Whether something is wrong that it shuts itself off for."""
        timeout = self._timeout * TIMEOUT_UNIT
        if self.forced is not None:
            self._shut_off(self.forced)
        elif self.supply > self._over_voltage:
            self._shut_off(Status.OVER_VOLTAGE)
        elif self.supply < self._under_voltage:
            self._shut_off(Status.UNDER_VOLTAGE)
        elif self.driver_temperature > self._over_temperature:
            self._shut_off(Status.DRIVER_TOO_HOT)
        elif self.rotor_temperature > ROTOR_LIMIT:
            self._shut_off(Status.ROTOR_TOO_HOT)
        elif self.status is Status.ENABLED and 0 < timeout < self.silence:
            self._shut_off(Status.LOST_COMMUNICATION)

    def _shut_off(self, why: Status) -> None:
        if not self.status.is_error:
            self.status = why
        self.goal, self.torque = None, 0.0
