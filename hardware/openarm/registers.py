"""The registers of a Damiao motor: names, numbers, kinds, and what may be written.

Names are the maker's, so that what people read about there can be found here. Ranges
are those that the maker's tool accepts; where they differ by firmware the wider one.
"""

import math
import struct
from dataclasses import dataclass
from typing import Any

TIMEOUT_UNIT = 50e-6  # s; register 9 counts these, and 0 is never
# Codes 0 to 11 of register 35, bit/s. From 5 on they are data rates of CAN-FD; the last
# two came with later firmware. Bus and motor have to agree.
CAN_RATES = (
    *(125_000, 200_000, 250_000, 500_000, 1_000_000, 2_000_000),
    *(2_500_000, 3_200_000, 4_000_000, 5_000_000, 8_000_000, 10_000_000),
)
FD_RATE = 9  # code of 5 Mbit/s


@dataclass(frozen=True)
class Register:
    """One entry of the table: a whole number or a float, both of four bytes."""

    name: str
    number: int
    whole: bool = False
    writable: bool = True
    low: float = -math.inf
    high: float = math.inf

    def encode(self, value: float) -> bytes:
        """A number as bytes; ValueError if the register cannot hold it."""
        if not self.low <= value <= self.high or (self.whole and value != int(value)):
            kind = "a whole number" if self.whole else "a number"
            raise ValueError(
                f"{self.name} = {value}: expected {kind} from {self.low:g} to "
                f"{self.high:g}"
            )
        return struct.pack("<I", int(value)) if self.whole else _pack(value)

    def decode(self, data: bytes) -> float:
        return struct.unpack("<I" if self.whole else "<f", data[:4])[0]

    def holds(self, data: bytes) -> bool:
        return self.low <= self.decode(data) <= self.high


def _pack(value: float) -> bytes:
    try:
        return struct.pack("<f", value)
    except OverflowError as error:
        raise ValueError(f"{value} does not fit into a float of four bytes") from error


def _table() -> dict[str, Register]:
    r = Register
    id: dict[str, Any] = {"whole": True, "low": 0, "high": 0x7FF}
    count: dict[str, Any] = {"whole": True, "low": 0, "high": 2**32 - 1}
    positive: dict[str, Any] = {"low": 1e-6}
    fixed: dict[str, Any] = {"writable": False}
    rows = (
        r("UV_Value", 0, low=10.0),  # V, under-voltage
        r("KT_Value", 1, low=0.0),  # N·m/A
        r("OT_Value", 2, low=80.0, high=200.0),  # °C, over-temperature
        r("OC_Value", 3, low=0.0, high=1.0),  # share of the largest current
        r("ACC", 4, low=0.0),
        r("DEC", 5, high=0.0),
        r("MAX_SPD", 6, low=0.0),
        r("MST_ID", 7, **id),  # id of its answers
        r("ESC_ID", 8, **id),  # id of its commands
        r("TIMEOUT", 9, **count),  # 50 µs
        r("CTRL_MODE", 10, whole=True, low=1, high=4),
        r("Damp", 11, **fixed),
        r("Inertia", 12, **fixed),
        r("hw_ver", 13, **count, **fixed),
        r("sw_ver", 14, **count, **fixed),
        r("SN", 15, **count, **fixed),
        r("NPP", 16, **count, **fixed),
        r("Rs", 17, **fixed),
        r("Ls", 18, **fixed),
        r("Flux", 19, **fixed),
        r("Gr", 20, **fixed),  # gear ratio
        r("PMAX", 21, **positive),  # rad
        r("VMAX", 22, **positive),  # rad/s
        r("TMAX", 23, **positive),  # N·m
        r("I_BW", 24, low=100.0, high=10_000.0),
        r("KP_ASR", 25, low=0.0),
        r("KI_ASR", 26, low=0.0),
        r("KP_APR", 27, low=0.0),
        r("KI_APR", 28, low=0.0),
        r("OV_Value", 29, low=0.0),  # V, over-voltage
        r("GREF", 30, low=0.0, high=1.0),
        r("Deta", 31, low=1.0, high=30.0),
        r("V_BW", 32, low=0.0, high=500.0),
        r("IQ_c1", 33, low=100.0, high=10_000.0),
        r("VL_c1", 34, low=0.0, high=10_000.0),
        r("can_br", 35, whole=True, low=0, high=len(CAN_RATES) - 1),
        r("sub_ver", 36, **count, **fixed),
        r("u_off", 50, **fixed),
        r("v_off", 51, **fixed),
        r("k1", 52, **fixed),
        r("k2", 53, **fixed),
        r("m_off", 54, **fixed),
        r("dir", 55, **fixed),
        r("Imax", 59, **fixed),  # A
        r("VBus", 60, **fixed),  # V; from here to 62 in newer firmware only
        r("Tpcb", 61, **fixed),  # °C
        r("Tmtr", 62, **fixed),  # °C
        r("p_m", 80, **fixed),  # rad, of the rotor
        r("xout", 81, **fixed),  # rad, of the shaft
    )
    return {row.name: row for row in rows}


REGISTERS = _table()
BY_NUMBER = {r.number: r for r in REGISTERS.values()}


def register(name: str) -> Register:
    """The register of this name; KeyError lists the known ones."""
    if name not in REGISTERS:
        raise KeyError(f"no register '{name}'; they are: {', '.join(REGISTERS)}")
    return REGISTERS[name]
