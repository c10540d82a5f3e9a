"""The client's end of the servo bus, on pyserial.

Why not an SDK: `feetech-servo-sdk` 1.0.0 is no longer maintained, takes late answers
for those of the next call, stops a group read at the first silent servo, and stays "in
use" after an interrupted call; `rustypot` hides the error byte, in which a servo says
that it is overloaded or starved.
"""

import contextlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from act_minimal.support.extras import require

require("arms")

import serial  # noqa: E402
from serial.tools import list_ports  # noqa: E402

from ..clock import GONE, ArmClock, Clock, clock_of  # noqa: E402
from ..errors import BusError  # noqa: E402
from . import protocol  # noqa: E402
from .protocol import BROADCAST, Fault, Packet, Parser  # noqa: E402
from .registers import BAUD_RATES, register  # noqa: E402

# Where Linux and macOS keep pseudo-terminals; no real arm is behind one.
TERMINALS = ("/dev/pts/", "/dev/ttys")
PATIENCE = 0.02  # s beyond the bytes' own time; an FTDI adapter alone takes 0.016
STEADY = 0.06  # s, the same for a virtual arm, which looks at its bus every 0.02
PINGED = 0.25  # s to wait for all answers to a broadcast ping
# What pyserial raises when the cable is pulled; the last is where there are terminals.
LOST: tuple[type[Exception], ...] = (serial.SerialException, OSError, TypeError)
with contextlib.suppress(ImportError):
    import termios

    LOST += (termios.error,)


@dataclass
class Traffic:
    """What the bus went through."""

    retries: int = 0
    faults: dict[int, Fault] = field(default_factory=dict)
    """Error byte of each servo's last answer."""


class Bus:
    """A serial port with servos on it.

    Args:
        port: its device file, such as /dev/ttyACM0.
        baud: of the servos; 1 000 000 unless somebody changed them.
        names: what each id is called in messages.
        tries: calls in all before an answer is given up.

    Raises:
        BusError: from every method.
    """

    def __init__(
        self,
        port: str,
        *,
        baud: int = BAUD_RATES[0],
        names: Mapping[int, str] | None = None,
        tries: int = 3,
    ):
        self.port, self.baud, self.tries = str(port), baud, tries
        self.names = dict(names or {})
        self.traffic = Traffic()
        self.clock = Clock()
        """Whose seconds count; of a virtual arm its own, once the port is open."""
        self._patience = PATIENCE
        self._serial: serial.Serial | None = None
        self._parser = Parser()

    def open(self) -> None:
        if self._serial:
            return
        try:
            self._serial = serial.Serial(
                self.port,
                self.baud,
                timeout=0.002,  # of one read; calls have deadlines of their own
                write_timeout=0.5,
                exclusive=True,
            )
        except (serial.SerialException, OSError, ValueError) as error:
            raise BusError(_why_closed(self.port, error)) from error
        if os.path.realpath(self.port).startswith(TERMINALS):
            self.clock = clock_of(self.port)
        if isinstance(self.clock, ArmClock):
            self._patience, self._serial.write_timeout = STEADY, GONE

    def close(self) -> None:
        """Close the port; torque stays as it is."""
        if self._serial:
            with contextlib.suppress(*LOST):
                self._serial.close()
        self._serial = None

    def set_baud(self, baud: int) -> None:
        self.baud = baud
        if self._serial:
            self._serial.baudrate = baud

    # ------------------------------------------------------------ single servos

    def ping(self, id: int) -> bool:
        with contextlib.suppress(BusError):
            self._ask(lambda ids: protocol.ping(id), [id], 0)
            return True
        return False

    def find(self) -> list[int]:
        """The ids of all servos that answer a broadcast ping, each once.

        Two servos of one id answer at the same time and spoil each other's bytes, so
        that they look like none, or like one.
        """
        answers = self._exchange(protocol.ping(BROADCAST), lambda got: False, PINGED)
        return sorted({p.id for p in answers if not p.parameters})

    def read(self, id: int, name: str) -> int:
        r = register(name)
        request = protocol.read(id, r.address, r.size)
        return r.decode(self._ask(lambda ids: request, [id], r.size)[id])

    def write(self, id: int, name: str, value: int) -> None:
        """Write one register of one servo, and wait for its word that it was done.

        Raises:
            BusError: also when the register cannot hold the value.
        """
        try:
            data = register(name).encode(value)
        except ValueError as error:
            raise BusError(f"{self.who(id)}: {error}") from error
        request = protocol.write(id, register(name).address, data)
        self._ask(lambda ids: request, [id], 0)

    # ------------------------------------------------------------ many servos

    def sync_read(
        self, ids: Sequence[int], address: int, size: int
    ) -> dict[int, bytes]:
        """The same bytes of several servos, in one exchange."""
        return self._ask(lambda ids: protocol.sync_read(ids, address, size), ids, size)

    def read_all(self, ids: Sequence[int], name: str) -> dict[int, int]:
        r = register(name)
        data = self.sync_read(ids, r.address, r.size)
        return {id: r.decode(data[id]) for id in ids}

    def write_all(self, name: str, values: Mapping[int, int]) -> None:
        """Write one register of several servos at once; nobody confirms it."""
        r = register(name)
        try:
            data = {id: r.encode(value) for id, value in values.items()}
        except ValueError as error:
            raise BusError(str(error)) from error
        self._send(protocol.sync_write(r.address, data))

    # ------------------------------------------------------------ the wire

    def _ask(
        self, request: Callable[[list[int]], Packet], ids: Sequence[int], size: int
    ) -> dict[int, bytes]:
        """One answer of `size` bytes from each of `ids`; who is silent is asked again.

        `request` makes the packet that asks the given ids.
        """
        got: dict[int, bytes] = {}
        left = list(ids)

        def complete(packets: list[Packet]) -> bool:
            for p in packets:
                if p.id in left and len(p.parameters) == size:
                    got[p.id] = p.parameters
                    self.traffic.faults[p.id] = Fault(p.code & 0x2F)
            return all(id in got for id in left)

        for attempt in range(self.tries):
            self.traffic.retries += attempt > 0
            # Answers take ten bits a byte; six bytes frame each of them.
            expected = 10 * len(left) * (size + 6) / self.baud
            self._exchange(request(left), complete, expected + self._patience)
            left = [id for id in left if id not in got]
            if not left:
                return got
        raise BusError(self.silence(left, list(ids)), left)

    def _exchange(
        self, packet: Packet, complete: Callable[[list[Packet]], bool], seconds: float
    ) -> list[Packet]:
        """Send, then gather answers until `complete` or until the time is over."""
        port, request = self._connected(), packet.encode()
        self._parser.clear()
        found: list[Packet] = []
        try:
            port.reset_input_buffer()  # a late answer must not pass for this one's
            port.write(request)
            leaving = 10 * len(request) / self.baud
            deadline = self.clock.now() + leaving + seconds
            while True:
                # Looked at after each read: a program that was held up beyond the
                # deadline finds the answer waiting for it.
                over = self.clock.now() > deadline
                data = port.read(max(1, port.in_waiting))
                found += self._parser.feed(data)
                if (data and complete(found)) or (over and not data):
                    break
        except LOST as error:
            raise BusError(f"the connection to {self.port} is lost: {error}") from error
        return found

    def _send(self, packet: Packet) -> None:
        try:
            self._connected().write(packet.encode())
        except LOST as error:
            raise BusError(f"the connection to {self.port} is lost: {error}") from error

    def _connected(self) -> serial.Serial:
        if self._serial is None:
            raise BusError(f"{self.port} is not open")
        return self._serial

    def who(self, id: int) -> str:
        name = self.names.get(id)
        return f"servo {id} ({name})" if name else f"servo {id}"

    def silence(self, silent: list[int], asked: list[int]) -> str:
        """The sentence for servos that did not answer, and what to look at."""
        if fault := self.clock.fault():
            return f"{self.port}: {fault}"
        who = ", ".join(self.who(id) for id in silent)
        tries = f"after {self.tries} tries" if self.tries > 1 else "in time"
        if len(silent) == len(asked) > 1:
            return (
                f"no servo on {self.port} answers {tries}; check the servos' power "
                f"supply, the cable from the board to the first servo, and the rate "
                f"({self.baud} baud)"
            )
        verb = "does" if len(silent) == 1 else "do"
        return (
            f"{who} on {self.port} {verb} not answer {tries}; check the plugs on both "
            "sides, the power supply, and that no two servos have one id"
        )


def _why_closed(port: str, error: Exception) -> str:
    text = str(error)
    if "Permission" in text or getattr(error, "errno", None) == 13:
        return (
            f"{port} may not be opened by you; on Linux: sudo usermod -aG dialout "
            "$USER, then log out and in"
        )
    if "exclusively lock" in text or "busy" in text.lower():
        return f"{port} is in use by another program; end that first"
    if port == "virtual":
        return (
            "this command needs a port; plug in a virtual arm first, which has one: "
            "act virtual --port arm"
        )
    found = ", ".join(p.device for p in list_ports.comports()) or "none"
    return (
        f"no serial port {port} could be opened ({text.split(':')[0]}); the ports here "
        f"are: {found}. Find yours with: act ports"
    )
