"""Packets of the Feetech serial bus (STS series, "protocol 0"), as bytes.

    instruction   FF FF  ID  LEN  INSTRUCTION  parameters...  CHECKSUM
    status        FF FF  ID  LEN  ERROR        parameters...  CHECKSUM

LEN counts what follows it. The checksum is the inverted low byte of the sum from ID on.
Numbers of two bytes come low byte first; negative ones are a magnitude with a sign bit,
not two's complement. Source: Feetech's communication protocol manual, 191218.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum, IntFlag

HEADER = b"\xff\xff"
BROADCAST = 0xFE
MAX_LENGTH = 250  # the SDK sends and takes no more
MAX_DATA = MAX_LENGTH - 2  # parameters of one packet


class Instruction(IntEnum):
    """What a packet asks of a servo."""

    PING = 0x01
    READ = 0x02
    WRITE = 0x03
    REG_WRITE = 0x04
    ACTION = 0x05
    RESET = 0x06
    SYNC_READ = 0x82
    SYNC_WRITE = 0x83


class Fault(IntFlag):
    """The error byte of a status packet, and register 65."""

    VOLTAGE = 1
    SENSOR = 2
    OVERHEAT = 4
    OVERCURRENT = 8
    OVERLOAD = 32

    def words(self) -> str:
        """What a person calls it: "voltage, overload"."""
        names = [f.name.lower() for f in Fault if f & self and f.name]
        return ", ".join(names) or "none"


@dataclass(frozen=True)
class Packet:
    """One packet of either kind; `code` is the instruction or the error byte."""

    id: int
    code: int
    parameters: bytes = b""

    def encode(self) -> bytes:
        """The bytes on the wire; ValueError with more than `MAX_DATA` of parameters."""
        count = len(self.parameters)
        if count > MAX_DATA:
            raise ValueError(f"{count} bytes in a packet, at most {MAX_DATA} fit")
        body = bytes([self.id, count + 2, self.code]) + self.parameters
        return HEADER + body + bytes([checksum(body)])


def checksum(body: bytes) -> int:
    """Of everything between the header and the checksum itself."""
    return ~sum(body) & 0xFF


class Parser:
    """Finds packets in a stream of bytes; what is no packet is counted and dropped.

    `feed` takes bytes as they come, in pieces of any size. A packet with a wrong
    checksum is dropped from its first byte on, so that a good packet that begins
    inside the damage is still found.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self.dropped = 0  # bytes that belonged to no good packet

    def feed(self, data: bytes) -> Iterator[Packet]:
        self._buffer += data
        while (found := self._next()) is not None:
            yield found

    def clear(self) -> None:
        """Forget a packet that has only half arrived."""
        self.dropped += len(self._buffer)
        self._buffer.clear()

    def _next(self) -> Packet | None:
        buffer = self._buffer
        while True:
            start = buffer.find(HEADER)
            if start < 0:
                self._drop(len(buffer) - (1 if buffer[-1:] == b"\xff" else 0))
                return None
            self._drop(start)
            if len(buffer) < 4:
                return None
            number, length = buffer[2], buffer[3]
            # FF FF FF: the header may begin one byte later.
            if number == 0xFF or not 2 <= length <= MAX_LENGTH:
                self._drop(1)
                continue
            if len(buffer) < length + 4:
                return None
            body = bytes(buffer[2 : length + 3])
            if checksum(body) != buffer[length + 3]:
                self._drop(1)
                continue
            del buffer[: length + 4]
            return Packet(number, body[2], body[3:])

    def _drop(self, count: int) -> None:
        self.dropped += count
        del self._buffer[:count]


def ping(id: int) -> Packet:
    """Is anybody there? Broadcast asks everybody."""
    return Packet(id, Instruction.PING)


def read(id: int, address: int, size: int) -> Packet:
    """Ask one servo for `size` bytes from `address` on."""
    return Packet(id, Instruction.READ, bytes([address, size]))


def write(id: int, address: int, data: bytes) -> Packet:
    """Write bytes of one servo."""
    return Packet(id, Instruction.WRITE, bytes([address]) + data)


def sync_read(ids: list[int], address: int, size: int) -> Packet:
    """Ask several servos for the same bytes; they answer one after the other."""
    return Packet(BROADCAST, Instruction.SYNC_READ, bytes([address, size, *ids]))


def sync_write(address: int, data: Mapping[int, bytes]) -> Packet:
    """Write to several servos at once, each its own bytes; nobody answers."""
    sizes = {len(d) for d in data.values()}
    if len(sizes) != 1:
        raise ValueError(f"sync_write needs data of one length, got lengths {sizes}")
    rows = b"".join(bytes([id]) + d for id, d in data.items())
    return Packet(
        BROADCAST, Instruction.SYNC_WRITE, bytes([address, sizes.pop()]) + rows
    )


def encode_signed(value: int, sign_bit: int) -> int:
    """A whole number as magnitude and sign bit; ValueError if it does not fit."""
    most = (1 << sign_bit) - 1
    if abs(value) > most:
        raise ValueError(f"{value} does not fit: at most {most} either way")
    return abs(value) | (1 << sign_bit if value < 0 else 0)


def decode_signed(raw: int, sign_bit: int) -> int:
    """The inverse of `encode_signed`; bits above the sign bit are ignored."""
    magnitude = raw & ((1 << sign_bit) - 1)
    return -magnitude if raw >> sign_bit & 1 else magnitude
