"""The memory of an STS3215: names, addresses, sizes, defaults.

Sources: Feetech's memory table for the STS3215; the names are the ones LeRobot uses,
so that what people read about there can be found here. Where sources differ (registers
7, 24, 39 and 55) the default here is what recent servos are reported to hold.
"""

from dataclasses import dataclass

from .protocol import decode_signed, encode_signed

EPROM_END = 40  # below: kept without power, if Lock was 0 when it was written
MEMORY_SIZE = 128
MODEL_NUMBER = 777
STEPS = 4096  # a revolution
BAUD_RATES = (1_000_000, 500_000, 250_000, 128_000, 115_200)  # codes 0 to 4 of reg. 6
CURRENT_UNIT = 6.5e-3  # A
MULTI_TURN = 0x10  # bit of Phase: positions count on beyond one turn


@dataclass(frozen=True)
class Register:
    """One entry of the table; `sign_bit` is None where values are never negative."""

    name: str
    address: int
    size: int
    default: int = 0
    low: int = 0
    high: int = 0xFFFF
    writable: bool = True
    sign_bit: int | None = None

    def encode(self, value: int) -> bytes:
        """A number as bytes; ValueError if the register cannot hold it."""
        low = -self.high if self.sign_bit is not None else self.low
        if not low <= value <= self.high:
            raise ValueError(
                f"{self.name} = {value}: expected a number from {low} to {self.high}"
            )
        if self.sign_bit is not None:
            value = encode_signed(value, self.sign_bit)
        return value.to_bytes(self.size, "little")

    def decode(self, data: bytes) -> int:
        raw = int.from_bytes(data[: self.size], "little")
        return raw if self.sign_bit is None else decode_signed(raw, self.sign_bit)


def _table() -> dict[str, Register]:
    r, ro = Register, {"writable": False}
    rows = (
        r("Firmware_Major_Version", 0, 1, 3, **ro),
        r("Firmware_Minor_Version", 1, 1, 10, **ro),
        r("Model_Number", 3, 2, MODEL_NUMBER, **ro),
        r("ID", 5, 1, 1, high=253),
        r("Baud_Rate", 6, 1, 0, high=7),
        r("Return_Delay_Time", 7, 1, 0, high=254),  # 2 µs
        r("Response_Status_Level", 8, 1, 1, high=1),
        r("Min_Position_Limit", 9, 2, 0, high=4095),
        r("Max_Position_Limit", 11, 2, 4095, high=4095),
        r("Max_Temperature_Limit", 13, 1, 70, high=100),  # °C
        r("Max_Voltage_Limit", 14, 1, 80, high=254),  # 0.1 V
        r("Min_Voltage_Limit", 15, 1, 40, high=254),  # 0.1 V
        r("Max_Torque_Limit", 16, 2, 1000, high=1000),  # 0.1 %
        r("Phase", 18, 1, 12, high=255),
        r("Unloading_Condition", 19, 1, 44, high=255),
        r("LED_Alarm_Condition", 20, 1, 47, high=255),
        r("P_Coefficient", 21, 1, 32, high=254),
        r("D_Coefficient", 22, 1, 32, high=254),
        r("I_Coefficient", 23, 1, 0, high=254),
        r("Minimum_Startup_Force", 24, 2, 16, high=1000),
        r("CW_Dead_Zone", 26, 1, 1, high=32),
        r("CCW_Dead_Zone", 27, 1, 1, high=32),
        r("Protection_Current", 28, 2, 500, high=511),  # 6.5 mA
        r("Angular_Resolution", 30, 1, 1, high=3),
        r("Homing_Offset", 31, 2, 0, high=2047, sign_bit=11),
        r("Operating_Mode", 33, 1, 0, high=3),
        r("Protective_Torque", 34, 1, 20, high=100),  # %
        r("Protection_Time", 35, 1, 200, high=254),  # 10 ms
        r("Overload_Torque", 36, 1, 80, high=100),  # %
        r("Velocity_P", 37, 1, 10, high=100),
        r("Over_Current_Protection_Time", 38, 1, 200, high=254),  # 10 ms
        r("Velocity_I", 39, 1, 10, high=254),
        r("Torque_Enable", 40, 1, 0, high=128),
        r("Acceleration", 41, 1, 0, high=254),  # 100 steps/s², 0 = at once
        r("Goal_Position", 42, 2, 0, high=32767, sign_bit=15),
        r("Goal_Time", 44, 2, 0, high=1000),
        r("Goal_Velocity", 46, 2, 0, high=32767, sign_bit=15),  # steps/s, 0 = most
        r("Torque_Limit", 48, 2, 1000, high=1000),  # 0.1 %
        r("Lock", 55, 1, 1, high=1),
        r("Present_Position", 56, 2, sign_bit=15, **ro),
        r("Present_Velocity", 58, 2, sign_bit=15, **ro),  # steps/s
        r("Present_Load", 60, 2, sign_bit=10, **ro),  # 0.1 %
        r("Present_Voltage", 62, 1, **ro),  # 0.1 V
        r("Present_Temperature", 63, 1, **ro),  # °C
        r("Async_Write_Flag", 64, 1, **ro),
        r("Status", 65, 1, **ro),
        r("Moving", 66, 1, **ro),
        r("Present_Current", 69, 2, sign_bit=15, **ro),  # 6.5 mA
        r("Goal_Position_2", 71, 2, sign_bit=15, **ro),
        r("Moving_Velocity_Threshold", 80, 1, **ro),
        r("Maximum_Velocity_Limit", 84, 1, 74, **ro),  # 50 steps/s
        r("Maximum_Acceleration", 85, 1, 50, high=255),
    )
    return {row.name: row for row in rows}


REGISTERS = _table()


def register(name: str) -> Register:
    """The register of this name; KeyError lists the known ones."""
    if name not in REGISTERS:
        raise KeyError(f"no register '{name}'; they are: {', '.join(REGISTERS)}")
    return REGISTERS[name]
