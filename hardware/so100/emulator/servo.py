"""One STS3215: its memory, its rules, its motor. No bytes on a wire, no physics.

What the maker does not publish is chosen here, and said where it is chosen: the
profile of motion is a speed limit and an acceleration limit; the position loop itself
is the arm's (`arm.py`); load is the motor's torque over its stall torque.
"""

from dataclasses import dataclass, field

from ..protocol import MAX_DATA, Fault, Instruction, decode_signed
from ..registers import (
    CURRENT_UNIT,
    EPROM_END,
    MEMORY_SIZE,
    MULTI_TURN,
    REGISTERS,
    STEPS,
    Register,
)

TOP_SPEED = 3400  # steps/s, the 7.4 V servo without load (50 rpm)
STALL_CURRENT = 2.4  # A at full load; chosen, so that 3.25 A is never reached
AMBIENT = 25.0  # °C
HEATING = 0.25  # °C/s at full load; chosen: 70 °C after some minutes of stalling
COOLING = 1 / 300  # 1/s
NO_FAULT = Fault(0)
_SPANS = sorted(REGISTERS.values(), key=lambda r: r.address)
_WRITABLE = {
    a for r in _SPANS if r.writable for a in range(r.address, r.address + r.size)
}


@dataclass
class Servo:
    """Memory and rules of one servo.

    Attributes:
        encoder: Position of the output shaft in steps, counted without end; set by
            the arm's physics, as are `speed` (steps/s) and `effort`.
        effort: Torque of the motor over its stall torque, -1 to 1.
        supply: Voltage at the plug, V.
        setpoint: Where the motion profile is now, in steps of the shaft.
    """

    id: int = 1
    encoder: float = 2048.0
    speed: float = 0.0
    effort: float = 0.0
    supply: float = 7.4
    setpoint: float = 2048.0
    setpoint_speed: float = 0.0
    temperature: float = AMBIENT
    waiting: tuple[int, bytes] | None = None
    memory: bytearray = field(default_factory=lambda: bytearray(MEMORY_SIZE))
    saved: bytearray = field(default_factory=lambda: bytearray(EPROM_END))
    faults: Fault = NO_FAULT
    forced_faults: Fault = NO_FAULT
    overload_seconds: float = 0.0
    overloaded: bool = False
    _values: dict[str, int] = field(default_factory=dict, repr=False)
    """What `get` has decoded since the memory was written."""

    def __post_init__(self) -> None:
        self.factory_reset()
        self.poke("ID", self.id)
        self.saved[:] = self.memory[:EPROM_END]
        self.power_up()

    # ------------------------------------------------------------- memory

    def get(self, name: str) -> int:
        value = self._values.get(name)
        if value is None:
            r = REGISTERS[name]
            value = r.decode(bytes(self.memory[r.address : r.address + r.size]))
            self._values[name] = value
        return value

    def poke(self, name: str, value: int) -> None:
        r = REGISTERS[name]
        self.memory[r.address : r.address + r.size] = r.encode(value)
        self._values.pop(name, None)

    def factory_reset(self) -> None:
        """RESET: all defaults; the id stays, so that the servo can still be found."""
        id = self.memory[5]
        for r in _SPANS:
            self.memory[r.address : r.address + r.size] = r.encode(r.default)
        self.memory[5] = id
        self._values.clear()
        self.saved[:] = self.memory[:EPROM_END]

    def power_up(self) -> None:
        """What was not saved is lost; torque is off; the limit is copied."""
        self.memory[:EPROM_END] = self.saved
        for r in _SPANS:
            if r.address >= EPROM_END:
                self.memory[r.address : r.address + r.size] = r.encode(r.default)
        self._values.clear()
        self.poke("Torque_Limit", self.get("Max_Torque_Limit"))
        self.overloaded, self.overload_seconds = False, 0.0
        self.waiting = None
        self.setpoint, self.setpoint_speed = self.encoder, 0.0
        self.refresh()
        self.poke("Goal_Position", _fit(self.position))

    def read(self, address: int, size: int) -> bytes:
        """Bytes of memory; beyond its end there are zeros."""
        self.refresh()
        data = bytes(self.memory[address : address + size])
        return data + bytes(size - len(data))

    def write(self, address: int, data: bytes) -> None:
        """Write bytes; read-only ones and numbers out of range are left as they are.

        The EPROM keeps what is written while Lock is 0; with Lock at 1 it holds until
        the power goes.
        """
        torque = self.get("Torque_Enable")
        span = range(address, min(address + len(data), MEMORY_SIZE))
        before = bytes(self.memory)
        for a in span:
            if a in _WRITABLE:
                self.memory[a] = data[a - address]
        for r in _SPANS:
            end = r.address + r.size
            touched = r.address < span.stop and span.start < end
            if r.writable and touched and not _holds(r, self.memory):
                self.memory[r.address : end] = before[r.address : end]
        self._values.clear()
        if not self.memory[REGISTERS["Lock"].address]:
            for a in span:
                if a < EPROM_END:
                    self.saved[a] = self.memory[a]
        if address <= REGISTERS["Torque_Enable"].address < address + len(data):
            self._torque_written(torque)

    def _torque_written(self, before: int) -> None:
        now = self.get("Torque_Enable")
        if now == 128:  # call the present position the middle
            middle = STEPS // 2
            offset = round(self.encoder) - middle
            offset = (offset + STEPS // 2) % STEPS - STEPS // 2
            self.poke("Homing_Offset", max(-2047, min(2047, offset)))
            if not self.get("Lock"):
                self.saved[:] = self.memory[:EPROM_END]
            now = before
        elif now not in (0, 1):
            now = before
        self.poke("Torque_Enable", now)
        if now:  # commanded again: the protection starts afresh
            self.overloaded, self.overload_seconds = False, 0.0
        if now and not before:
            self.setpoint, self.setpoint_speed = self.encoder, 0.0

    def obey(self, instruction: int, parameters: bytes) -> bytes | None:
        """Carry out one instruction; the parameters of the answer, None for silence.

        Silence is for what is malformed or unknown, as the servo's own manual has no
        error for it. Whether an answer is sent at all is the wire's business.
        """
        if instruction == Instruction.PING:
            return b""
        if instruction == Instruction.READ and len(parameters) == 2:
            address, size = parameters
            return self.read(address, size) if 0 < size <= MAX_DATA else None
        if instruction == Instruction.WRITE and len(parameters) > 1:
            self.write(parameters[0], parameters[1:])
            return b""
        if instruction == Instruction.REG_WRITE and len(parameters) > 1:
            self.waiting = parameters[0], parameters[1:]
            self.poke("Async_Write_Flag", 1)
            return b""
        if instruction == Instruction.ACTION:
            if self.waiting:
                self.write(*self.waiting)
            self.waiting = None
            self.poke("Async_Write_Flag", 0)
            return b""
        if instruction == Instruction.RESET:
            self.factory_reset()
            return b""
        return None

    # ------------------------------------------------------------- motor

    @property
    def position(self) -> int:
        """Present_Position: the shaft, from the homing offset on."""
        steps = round(self.encoder)
        if self.get("Phase") & MULTI_TURN:
            return steps - self.get("Homing_Offset")
        return (steps - self.get("Homing_Offset")) % STEPS

    @property
    def torque_on(self) -> bool:
        return self.get("Torque_Enable") == 1

    @property
    def strength(self) -> float:
        """Share of the stall torque that the motor may use now, 0 to 1."""
        if not self.torque_on:
            return 0.0
        share = min(self.get("Torque_Limit"), self.get("Max_Torque_Limit")) / 1000
        if self.overloaded:
            share = min(share, self.get("Protective_Torque") / 100)
        return share

    def goal(self) -> float:
        """Goal_Position in steps of the shaft, inside the limits, on the near side."""
        goal = self.get("Goal_Position")
        low, high = self.get("Min_Position_Limit"), self.get("Max_Position_Limit")
        if high > low:
            goal = max(low, min(high, goal))
        if self.get("Phase") & MULTI_TURN:
            return goal + self.get("Homing_Offset")
        return self.encoder + (
            goal - (self.encoder - self.get("Homing_Offset")) % STEPS
        )

    def advance(self, seconds: float) -> None:
        """Move the setpoint, heat up, and look after overload, for a short while."""
        if self.torque_on and self.get("Operating_Mode") == 0:
            self._follow(self.goal(), seconds)
        else:
            self.setpoint, self.setpoint_speed = self.encoder, 0.0
        load = abs(self.effort)
        self.temperature += seconds * (
            HEATING * load**2 - COOLING * (self.temperature - AMBIENT)
        )
        if self.torque_on and not self.overloaded:
            over = 100 * load > self.get("Overload_Torque")
            self.overload_seconds = self.overload_seconds + seconds if over else 0.0
            if self.overload_seconds > self.get("Protection_Time") / 100:
                self.overloaded = True

    def _follow(self, goal: float, seconds: float) -> None:
        """A trapezoid: never above the speed, never above the acceleration."""
        top = min(abs(self.get("Goal_Velocity")) or TOP_SPEED, TOP_SPEED)
        way = goal - self.setpoint
        acceleration = 100 * self.get("Acceleration")
        if acceleration:  # the speed from which it can still stop in time
            top = min(top, (2 * acceleration * abs(way)) ** 0.5)
        speed = top if way > 0 else -top
        if acceleration:
            change, before = acceleration * seconds, self.setpoint_speed
            speed = before + max(-change, min(change, speed - before))
        step = speed * seconds
        if abs(step) >= abs(way) and step * way >= 0:
            self.setpoint, self.setpoint_speed = goal, 0.0
        else:
            self.setpoint += step
            self.setpoint_speed = speed

    def refresh(self) -> None:
        self.faults = self._look()
        self.poke("Present_Position", _fit(self.position))
        self.poke("Present_Velocity", _fit(round(self.speed)))
        load = max(-1000, min(1000, round(1000 * self.effort)))
        self.poke("Present_Load", load)
        self.poke("Present_Voltage", max(0, min(255, round(10 * self.supply))))
        self.poke("Present_Temperature", max(0, min(255, round(self.temperature))))
        self.poke("Status", int(self.faults))
        self.poke("Moving", int(abs(self.speed) > 10))
        current = round(abs(self.effort) * STALL_CURRENT / CURRENT_UNIT)
        self.poke("Present_Current", current)
        self.poke("Goal_Position_2", self.get("Goal_Position"))

    def _look(self) -> Fault:
        faults = self.forced_faults
        tenths = 10 * self.supply
        low, high = self.get("Min_Voltage_Limit"), self.get("Max_Voltage_Limit")
        if not low <= tenths <= high:
            faults |= Fault.VOLTAGE
        if self.temperature > self.get("Max_Temperature_Limit"):
            faults |= Fault.OVERHEAT
        if self.overloaded:
            faults |= Fault.OVERLOAD
        return faults


def _fit(steps: int) -> int:
    return max(-32767, min(32767, steps))


def _holds(r: Register, memory: bytearray) -> bool:
    """Whether what is in memory is a number that this register takes."""
    raw = int.from_bytes(memory[r.address : r.address + r.size], "little")
    if r.sign_bit is None:
        return r.low <= raw <= r.high
    return raw < 2 << r.sign_bit and abs(decode_signed(raw, r.sign_bit)) <= r.high
