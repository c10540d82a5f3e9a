"""The client's end of one arm's CAN bus, on python-can.

Why no driver: `openarm-can` and `openarm-driver` need a C++ library and SocketCAN;
`damiao-motor` reads in a thread that nobody can wait for, and sorts answers by four
bits of their content, so that a bus which shows it its own frames (udp_multicast does)
leads it astray. Both keep a silent motor's last value without saying how old it is.
python-can carries the frames, over everything that there is:

    can0, socketcan:can0                       a real bus on Linux
    slcan:/dev/ttyACM0                         an adapter on a serial port, classic only
    udp_multicast:239.74.163.2:43113           between processes, without any hardware
    virtual:right                              inside one process, for tests
"""

import contextlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from act_minimal.support.errors import SettingError
from act_minimal.support.extras import require

require("arms")

import can  # noqa: E402

from ..clock import Clock, clock_of  # noqa: E402
from ..errors import BusError  # noqa: E402
from . import protocol  # noqa: E402
from .motors import ARM_MOTORS, IDS  # noqa: E402
from .protocol import (  # noqa: E402
    Command,
    Feedback,
    Frame,
    Mit,
    Mode,
    Scale,
)
from .registers import register  # noqa: E402

BITRATE, DATA_BITRATE = 1_000_000, 5_000_000  # bit/s; the second in CAN-FD only
PATIENCE = 0.1  # s for an answer when nothing is in a hurry: a busy computer's pauses
# Where virtual arms are, if nobody says otherwise: two ports, because two groups on one
# port would hear each other.
VIRTUAL_RIGHT = "udp_multicast:239.74.163.2:43113"
VIRTUAL_LEFT = "udp_multicast:239.74.163.2:43114"
INTERFACES = ("socketcan", "slcan", "udp_multicast", "virtual")


@dataclass
class Traffic:
    """What the bus went through; for reports."""

    sent: int = 0
    received: int = 0
    echoes: int = 0  # own frames that came back
    repeated: int = 0  # answers that came once more than they were asked for
    late: int = 0
    """Answers that came after their exchange was over; they were thrown away."""
    retries: int = 0
    strangers: set[int] = field(default_factory=set)
    """Ids of frames that none of this arm's motors sends."""


class Bus:
    """One CAN bus with an arm's eight motors.

    Args:
        channel: where it is, as in this module's first lines.
        fd: speak CAN-FD; the motors have to, too.
        side: "right" or "left", for messages.
        tries: exchanges in all before an answer is given up.

    Raises:
        SettingError: there is no such kind of bus.
        BusError: from every other method, naming motor and bus.
    """

    def __init__(
        self, channel: str, *, fd: bool = True, side: str = "", tries: int = 3
    ):
        self.channel, self.fd, self.side, self.tries = channel, fd, side, tries
        self._how = parse_channel(channel, fd)
        self._can: Any = None
        self.clock = Clock()
        """Whose seconds count; of virtual arms their own, once the bus is open."""
        self.traffic = Traffic()
        self.scales: dict[int, Scale] = {m.id: m.type.scale for m in ARM_MOTORS}
        self.latest: dict[int, Feedback] = {}
        """Newest feedback of each motor; `age` says how new that is."""
        self._heard: dict[int, float] = {}
        self._unanswered: dict[int, tuple[float, int]] = {}  # since when, how many
        self._bytes: dict[int, bytes] = {}
        self._changed: dict[int, float] = {}
        self._ids = {m.master: m.id for m in ARM_MOTORS}
        self._joints = {m.id: m.joint for m in ARM_MOTORS}
        self._own = {id + offset for id in IDS for offset in protocol.OFFSETS.values()}
        self._own.add(protocol.REGISTER_FRAME)

    def open(self) -> None:
        if self._can:
            return
        try:
            self._can = can.Bus(**self._how)
        except (can.CanError, OSError, ValueError, ImportError) as error:
            raise BusError(self._why_closed(error)) from error
        if self._how["interface"] in ("udp_multicast", "virtual"):
            self.clock = clock_of(self.channel)

    def close(self) -> None:
        if self._can:
            with contextlib.suppress(can.CanError, OSError):
                self._can.shutdown()
        self._can = None

    # ------------------------------------------------------------ motors

    def command(self, ids: Iterable[int], what: Command) -> dict[int, Feedback]:
        """Enable, disable, set zero or clear errors; what the motors say to it."""
        return self._ask({id: protocol.command(id, what) for id in ids})

    def refresh(self, ids: Iterable[int] = IDS) -> dict[int, Feedback]:
        return self._ask({id: protocol.refresh(id) for id in ids})

    def read(self, id: int, name: str) -> float:
        r = register(name)
        return r.decode(self._register(protocol.read(id, r.number), id))

    def write(self, id: int, name: str, value: float) -> None:
        """Write one register of one motor, and look whether it took the value.

        Raises:
            BusError: also when it did not, or when the register cannot hold it.
        """
        r = register(name)
        try:
            data = r.encode(value)
        except ValueError as error:
            raise BusError(f"{self.who(id)}: {error}") from error
        found = self._register(protocol.write(id, r.number, data), id)
        if found != data:
            raise BusError(
                f"{self.who(id)} keeps {name} at {r.decode(found):g}, instead of "
                f"{value:g}"
            )

    def set_mode(self, id: int, mode: Mode) -> None:
        if self.read(id, "CTRL_MODE") != mode:
            self.write(id, "CTRL_MODE", mode)

    def learn_scales(self, ids: Iterable[int] = IDS) -> dict[int, Scale]:
        """Read from each motor how wide its ranges are, and count with those."""
        for id in ids:
            ends = [self.read(id, name) for name in ("PMAX", "VMAX", "TMAX")]
            if not all(math.isfinite(end) and end > 0 for end in ends):
                raise BusError(
                    f"{self.who(id)} has PMAX, VMAX and TMAX {ends}, expected numbers "
                    "above 0; set them with the maker's tool"
                )
            self.scales[id] = Scale(*ends)
        return {id: self.scales[id] for id in ids}

    # ------------------------------------------------------------ a tick

    def send(self, goals: Mapping[int, Mit]) -> None:
        """Send a goal to each of these motors; `gather` then waits for their answers.

        Raises:
            BusError: also when a goal is NaN; then none is sent.
        """
        try:
            frames = [protocol.mit(id, g, self.scales[id]) for id, g in goals.items()]
        except ValueError as error:
            raise BusError(
                f"the {self.side} arm's goal is no number: {error}"
            ) from error
        self._begin(goals, frames)

    def ask_feedback(self) -> None:
        """Ask all motors how they are; `gather` then waits for their answers."""
        self._begin(IDS, [protocol.refresh(id) for id in IDS])

    def _begin(self, ids: Iterable[int], frames: Iterable[Frame]) -> None:
        self._drain()
        now = self.clock.now()
        for id in ids:
            since, count = self._unanswered.get(id, (now, 0))
            self._unanswered[id] = since, count + 1
        self._send(frames)

    def gather(self, ids: Iterable[int], seconds: float) -> list[int]:
        """Wait for one feedback of each of these motors, at most so long.

        What has already arrived is taken even if the time is over: the other arm may
        have used it up.

        Returns:
            The ids that were silent; what they said before is still in `latest`.
        """
        waiting = set(ids)
        deadline = self.clock.now() + seconds
        while waiting:
            found = self._next(max(0.0, deadline - self.clock.now()))
            if found is None:
                break
            id, data = found
            if id in waiting:
                waiting.discard(id)
            elif data:
                self.traffic.repeated += 1
        return sorted(waiting)

    def age(self, id: int) -> float:
        """Seconds since this motor's last feedback; infinite if there was none."""
        return self.clock.now() - self._heard.get(id, -math.inf)

    def has_lost(self, id: int, seconds: float, frames: int) -> bool:
        """Whether a motor has not answered for so long, and so many frames in a row."""
        since, count = self._unanswered.get(id, (math.inf, 0))
        return self.clock.now() - since > seconds and count >= frames

    def unchanged(self, id: int) -> float:
        """Seconds for which this motor has said the very same, bit by bit."""
        now = self.clock.now()
        return now - self._changed.get(id, now)

    # ------------------------------------------------------------ the wire

    def _ask(self, requests: Mapping[int, Frame]) -> dict[int, Feedback]:
        """Send one frame to each, until each has answered with feedback."""
        left = list(requests)
        for attempt in range(self.tries):
            self.traffic.retries += attempt > 0
            self._drain()
            self._send([requests[id] for id in left])
            left = self.gather(left, PATIENCE)
            if not left:
                return {id: self.latest[id] for id in requests}
        raise BusError(self.silence(left, list(requests)), left)

    def _register(self, request: Frame, id: int) -> bytes:
        """Send a register frame until its answer comes; the value in it."""
        for attempt in range(self.tries):
            self.traffic.retries += attempt > 0
            self._drain()
            self._send([request])
            deadline = self.clock.now() + PATIENCE
            while (left := deadline - self.clock.now()) > 0:
                who, data = self._next(left) or (0, b"")
                # An answer differs from its question in nothing but the value.
                if who == id and data[:4] == request.data[:4]:
                    return data[4:]
        raise BusError(self.silence([id], [id]), [id])

    def _next(self, seconds: float) -> tuple[int, bytes] | None:
        """The next answer of a motor, its id and bytes; feedback is kept in `latest`.

        (0, b"") if the next frame was no such thing, None if there was none in time.
        """
        message = self._receive(seconds)
        if message is None:
            return None
        id = self._ids.get(message.arbitration_id)
        data = bytes(message.data)
        odd = message.is_extended_id or (message.is_fd and not self.fd)
        if id is None or odd or len(data) != protocol.SIZE:
            if message.arbitration_id in self._own:
                self.traffic.echoes += 1
            elif not message.is_error_frame:
                self.traffic.strangers.add(message.arbitration_id)
            return 0, b""
        self.traffic.received += 1
        if protocol.is_answer_of_register(data, id):
            return id, data
        feedback = Feedback.decode(data, self.scales[id])
        if feedback.id != id:  # another device answers on this motor's id
            self.traffic.strangers.add(message.arbitration_id)
            return 0, b""
        now = self.clock.now()
        if data[:6] != self._bytes.get(id):  # temperatures change too seldom to count
            self._bytes[id], self._changed[id] = data[:6], now
        self.latest[id], self._heard[id] = feedback, now
        self._unanswered.pop(id, None)
        return id, data

    def _drain(self) -> None:
        """Throw away what came too late: it must not pass for the next answer."""
        while (message := self._receive(0)) is not None:
            self.traffic.late += message.arbitration_id in self._ids

    def _send(self, frames: Iterable[Frame]) -> None:
        line = self._connected()
        try:
            for frame in frames:
                line.send(message_of(frame, fd=self.fd))
                self.traffic.sent += 1
        except (can.CanError, OSError) as error:
            raise BusError(self._why_lost(error)) from error

    def _receive(self, seconds: float) -> can.Message | None:
        deadline = self.clock.now() + seconds
        try:
            while (message := self._connected().recv(seconds)) is None:
                seconds = deadline - self.clock.now()
                if seconds <= 0:
                    break
                seconds = max(seconds, 0.001)  # time may stand still: see ArmClock
            return message
        except (can.CanError, OSError, ValueError) as error:
            raise BusError(self._why_lost(error)) from error

    def _connected(self) -> Any:
        if self._can is None:
            raise BusError(f"{self.channel} is not open")
        return self._can

    # ------------------------------------------------------------ sentences

    def who(self, id: int) -> str:
        joint = " ".join(filter(None, (self.side, self._joints.get(id, ""))))
        return f"motor {id} ({joint})" if joint else f"motor {id}"

    def silence(self, silent: Sequence[int], asked: Sequence[int]) -> str:
        """The sentence for motors that did not answer, and what to look at."""
        if fault := self.clock.fault():
            return f"{self.channel}: {fault}"
        known = {f"0x{id:02X}" for id in self.traffic.strangers}
        strange = f"; something answers as {', '.join(sorted(known))}" if known else ""
        speak = "CAN-FD" if self.fd else "classic CAN"
        if len(silent) == len(asked) > 1:
            arm = f" of the {self.side} arm" if self.side else ""
            return (
                f"no motor{arm} on {self.channel} answers; check the 24 V supply and "
                "the emergency stop, the cable and its 120 Ω at both ends, and that "
                f"the motors speak {speak}, as this side does{strange}"
            )
        who = ", ".join(self.who(id) for id in silent)
        verb = "does" if len(silent) == 1 else "do"
        return (
            f"{who} on {self.channel} {verb} not answer; check the plug before it, its "
            f"id, and that its rate is that of the others{strange}"
        )

    def _why_closed(self, error: Exception) -> str:
        interface, channel = self._how["interface"], self._how["channel"]
        says = str(error).strip() or type(error).__name__
        if interface == "socketcan":
            return (
                f"the bus {channel} cannot be opened ({says}); plug in its adapter, "
                f"then: {ip_link(channel, self.fd)}"
            )
        if interface == "udp_multicast":
            return (
                f"{self.channel} cannot be opened ({says}); this computer needs a way "
                "for multicast: sudo ip route add 239.0.0.0/8 dev lo"
            )
        return f"the bus {self.channel} cannot be opened ({says})"

    def _why_lost(self, error: Exception) -> str:
        number = getattr(error, "error_code", None) or getattr(error, "errno", None)
        if number == 100 or "Network is down" in str(error):
            return f"{self.channel} is down; {ip_link(self._how['channel'], self.fd)}"
        if number == 105 or "No buffer space" in str(error):
            return (
                f"frames pile up on {self.channel} and nobody takes them; check the "
                "24 V supply, the cable and its 120 Ω at both ends"
            )
        return f"the connection to {self.channel} is lost: {error}"


def message_of(frame: Frame, *, fd: bool) -> can.Message:
    """A frame as python-can sends it."""
    return can.Message(
        arbitration_id=frame.id, data=frame.data, is_extended_id=False, is_fd=fd
    )


def ip_link(channel: str, fd: bool) -> str:
    """The line that brings a bus up on Linux."""
    rates = f"bitrate {BITRATE}"
    if fd:
        rates += f" dbitrate {DATA_BITRATE} fd on"
    return f"sudo ip link set {channel} up type can {rates} restart-ms 100"


def parse_channel(text: str, fd: bool) -> dict[str, Any]:
    """What python-can is asked to open; SettingError if there is no such bus."""
    interface, found, channel = text.partition(":")
    if not found:
        interface, channel = "socketcan", text
    if interface not in INTERFACES or not channel:
        raise SettingError(
            f"channel is '{text}', expected a name such as can0, or one of "
            f"{', '.join(f'{name}:...' for name in INTERFACES)}"
        )
    how: dict[str, Any] = {"interface": interface, "channel": channel}
    if interface == "socketcan":
        how["fd"] = fd
    elif interface == "slcan":
        if fd:
            raise SettingError(
                f"channel is '{text}', but adapters of that kind speak no CAN-FD; set "
                "the motors to classic CAN, and fd to False"
            )
        how["bitrate"] = BITRATE
    elif interface == "udp_multicast":
        group, _, port = channel.rpartition(":")
        if not group or not port.isdigit():
            raise SettingError(
                f"channel is '{text}', expected a group and a port, such as "
                "udp_multicast:239.74.163.2:43113"
            )
        # No hop: frames stay on this computer, two classmates' arms never meet.
        how |= {"channel": group, "port": int(port), "hop_limit": 0, "fd": True}
    return how
