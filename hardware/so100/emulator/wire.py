"""The bus of a virtual arm: who answers what and when, and everything that goes wrong.

Answers take the time they take on a real bus: ten bits a byte, then the servo's return
delay. When one servo of a SYNC_READ is missing, the others answer without a gap where
it would have been (not documented by the maker; chosen).
"""

import random
from collections.abc import Iterable
from dataclasses import dataclass

from ...virtual.faults import Switches
from ..protocol import BROADCAST, MAX_DATA, Fault, Instruction, Packet, Parser
from ..registers import BAUD_RATES
from .servo import Servo


@dataclass
class Faults(Switches):
    """Everything that can be wrong with the bus; all off by default.

    Servos are named by id, 0 means none of them. Shares are from 0 to 1.
    """

    lost: float = 0.0  # share of answers that never arrive: a loose plug
    corrupted: float = 0.0  # share of answers with one byte changed
    late: float = 0.0  # share of answers that come only after `late_by`
    late_by: float = 0.1  # seconds; longer than any client waits
    delay: float = 0.0  # seconds that every answer takes longer: a slow USB adapter
    noise: float = 0.0  # share of answers with a few bytes of nonsense before them
    missing: int = 0  # this servo is not there
    doubled: int = 0  # two servos have this id: both answer
    wrong_model: int = 0  # this servo is of another model
    old_firmware: int = 0  # this servo has an older firmware than the others
    multi_turn: int = 0  # this servo counts positions on beyond one turn
    sag: float = 0.0
    """Volts that the supply drops when the motors pull hard; 4 is too weak a supply."""
    overload: int = 0
    """This servo says that it is overloaded, and pulls with a fifth of its force."""
    overheat: int = 0  # this servo says that it is too hot
    unplugged: bool = False  # the USB cable is out: no byte goes either way
    no_power: bool = False  # the servos' supply is off
    frozen_camera: str = ""  # this camera shows the same picture for ever


class Wire:
    """Servos on one bus. Bytes in with their time, bytes out with theirs.

    Args:
        servos: in the order in which they are plugged.
        seed: of the faults that come by chance.
    """

    def __init__(self, servos: Iterable[Servo], seed: int = 0):
        self.servos = list(servos)
        self.faults = Faults()
        self.random = random.Random(seed)
        self.parser = Parser()
        self._out: list[tuple[float, bytes]] = []  # (when, what), in order of sending

    def receive(self, data: bytes, now: float, baud: int | None = None) -> None:
        """What the client sent at `now`, s; servos of another rate hear noise."""
        if self.faults.unplugged or self.faults.no_power:
            return
        for packet in self.parser.feed(data):
            sent = 10 * (len(packet.parameters) + 6) / (baud or BAUD_RATES[0])
            self._serve(packet, now + sent, baud)

    def due(self, now: float) -> bytes:
        ready = [row for row in self._out if row[0] <= now]
        self._out = [row for row in self._out if row[0] > now]
        return b"".join(data for _, data in sorted(ready, key=lambda row: row[0]))

    def next_due(self) -> float | None:
        return min((when for when, _ in self._out), default=None)

    def _serve(self, packet: Packet, now: float, baud: int | None) -> None:
        answers: list[tuple[Servo, int, bytes]] = []
        code, p = packet.code, packet.parameters
        listening = [s for s in self.servos if self._hears(s, baud)]
        to_several = packet.id == BROADCAST and len(p) > 2
        if code == Instruction.SYNC_READ and to_several:
            for id in p[2:] if 0 < p[1] <= MAX_DATA else b"":
                answers += [
                    (s, id, s.read(p[0], p[1])) for s in listening if s.id == id
                ]
        elif code == Instruction.SYNC_WRITE and to_several:
            size = p[1] + 1  # a last row that is cut short is ignored
            for start in range(2, len(p) - size + 1, size):
                for servo in listening:
                    if servo.id == p[start]:
                        servo.write(p[0], p[start + 1 : start + size])
        else:
            for servo in listening:
                if packet.id not in (servo.id, BROADCAST):
                    continue
                level = servo.get("Response_Status_Level")
                answer = servo.obey(code, p)
                asked = code in (Instruction.PING, Instruction.READ)
                silent = packet.id == BROADCAST and code != Instruction.PING
                if answer is not None and not silent and (asked or level):
                    answers.append((servo, servo.id, answer))
                servo.id = servo.get("ID")  # the answer to this still has the old one
        for servo, id, data in answers:
            now = self._answer(servo, id, data, now, baud)

    def _hears(self, servo: Servo, baud: int | None) -> bool:
        if servo.id == self.faults.missing:
            return False
        code = servo.get("Baud_Rate")
        return baud is None or (code < len(BAUD_RATES) and BAUD_RATES[code] == baud)

    def _answer(
        self, servo: Servo, id: int, data: bytes, now: float, baud: int | None
    ) -> float:
        """Queue one status packet; returns when it will have been sent."""
        f, chance = self.faults, self.random.random
        copies = 2 if id == f.doubled else 1
        servo.refresh()
        packet = Packet(id, int(servo.faults), data).encode()
        now += 2e-6 * servo.get("Return_Delay_Time")
        now += 10 * len(packet) / (baud or BAUD_RATES[0])
        for _ in range(copies):
            reply = bytearray(packet)
            if copies == 2:  # both drive the line at once: bits are lost
                reply[self.random.randrange(len(reply))] &= self.random.randrange(256)
            if chance() < f.lost:
                continue
            if chance() < f.corrupted:
                at = self.random.randrange(len(reply))
                reply[at] ^= 1 << self.random.randrange(8)
            if chance() < f.noise:
                size = self.random.randint(1, 8)
                reply[:0] = self.random.randbytes(size)
            wait = f.late_by if chance() < f.late else 0.0
            self._out.append((now + f.delay + wait, bytes(reply)))
        return now

    def apply_faults(self) -> None:
        """Switches that live in the servos themselves."""
        f = self.faults
        for servo in self.servos:
            servo.poke("Model_Number", 1284 if servo.id == f.wrong_model else 777)
            old = servo.id == f.old_firmware
            servo.poke("Firmware_Minor_Version", 9 if old else 10)
            if servo.id == f.multi_turn:
                servo.poke("Phase", servo.get("Phase") | 0x10)
            if servo.id == f.overload:
                servo.overloaded = True
            hot = servo.id == f.overheat
            servo.forced_faults = Fault.OVERHEAT if hot else Fault(0)
