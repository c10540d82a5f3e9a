"""What `act doctor` asks of a bus that is plugged in: who answers, and how they are."""

from typing import Literal

from act_minimal.support.errors import UserError

from ..driver import opened
from ..so100.arm import IDS
from ..so100.bus import Bus
from ..so100.setup import health

# Other machines on a serial port may start up, or reset, when it is opened.
SERVO_BOARDS = 0x1A86  # USB number of WCH, whose chips the servo boards carry


def look_at_servos(port: str) -> tuple[Literal["ok", "warning"], str]:
    """Who answers at a port; nothing moves: a status, and a sentence for a person."""
    try:
        with opened(Bus(port, tries=2)) as bus:
            found = bus.find()
            if not found:
                return "warning", "no servo answers; are they powered?"
            if found != list(IDS):
                return "warning", f"servos {found} answer, expected {list(IDS)}"
            rows = health(bus)
    except UserError as error:
        return "warning", str(error)
    volts = [row["volts"] for row in rows]
    hottest = max(row["celsius"] for row in rows)
    faults = [f"{r['joint']}: {r['fault']}" for r in rows if r["fault"] != "none"]
    said = f"six servos, {min(volts):.1f} V, at most {hottest} °C"
    return ("warning", f"{said}; {', '.join(faults)}") if faults else ("ok", said)
