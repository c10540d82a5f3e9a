"""A new OpenArm, or one that behaves oddly: a look at its motors, and their zero.

Ids and bit rates are set with the maker's tool, one motor at a time; here they are only
checked. Steps that need a person take two functions, so that tests can be the person:
`ask(text)` shows a sentence and returns when it has been done, `say(text)` shows one.
"""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from act_minimal.support.errors import UserError

from ..driver import opened
from ..errors import BusError
from .bus import Bus
from .motors import ARM_MOTORS, IDS, SIDES
from .plug import Plug
from .protocol import Command, Scale, Status

STILL = 0.15  # rad/s: faster, and somebody is still moving it
ZERO = 0.01  # rad: what a motor may say right after its zero was set


@dataclass
class Look:
    """What one motor says of itself; `status` is None if it says nothing."""

    joint: str
    id: int
    status: Status | None = None
    position: float = 0.0  # rad
    temperature: float = 0.0  # °C
    volts: float | None = None  # V; older firmware does not tell
    scale: Scale | None = None
    type: str = ""
    """As its TMAX says; empty where that is of no motor that belongs here."""

    def __str__(self) -> str:
        if self.status is None or self.scale is None:
            return f"{self.joint:8} motor {self.id}: silent"
        volts = "" if self.volts is None else f", {self.volts:.1f} V"
        type = self.type or f"unexpected type with TMAX {self.scale.torque:g} N·m"
        return (
            f"{self.joint:8} motor {self.id}: {type}, {self.status.words()}, "
            f"{self.position:+.3f} rad, {self.temperature:.0f} °C{volts}, "
            f"VMAX {self.scale.velocity:g} rad/s"
        )


def look(bus: Bus) -> list[Look]:
    """How all motors of an arm are; nothing moves, nothing is changed."""
    seen = []
    for motor in ARM_MOTORS:
        one = Look(motor.joint, motor.id)
        with contextlib.suppress(BusError):
            one.scale = bus.learn_scales([motor.id])[motor.id]
            found = motor.type_of(one.scale)
            one.type = found.name if found else ""
            feedback = bus.refresh([motor.id])[motor.id]
            one.status, one.position = feedback.status, feedback.position
            one.temperature = max(
                feedback.driver_temperature, feedback.rotor_temperature
            )
            with contextlib.suppress(BusError):
                one.volts = bus.read(motor.id, "VBus")
        seen.append(one)
    return seen


def health(plug: Plug, fd: bool | None = None) -> list[dict[str, Any]]:
    """How all motors of both arms are: a row each, with a sentence for a person.

    `fd`: speak CAN-FD; None: as the plug says.
    """
    rows = []
    for side, channel in zip(SIDES, (plug.right, plug.left), strict=True):
        speaks_fd = plug.fd if fd is None else fd
        with opened(Bus(channel, fd=speaks_fd, side=side)) as bus:
            seen = look(bus)
        for one in seen:
            fault = "silent" if one.status is None else "none"
            if one.status is not None and one.status.is_error:
                fault = one.status.words()
            rows.append(
                {
                    "joint": f"{side}_{one.joint}",
                    "id": one.id,
                    "type": one.type,
                    "fault": fault,
                    "position": one.position,
                    "celsius": one.temperature,
                    "volts": one.volts,
                    "said": f"{side} {one}",
                }
            )
    return rows


def set_zero(
    bus: Bus, ask: Callable[[str], Any], say: Callable[[str], Any] = print
) -> None:
    """Tell all motors of an arm that where they stand is 0; kept without power.

    Torque goes off first: a motor under torque would run to where its goal is now.

    Raises:
        UserError: a motor is silent, moves, or does not take it.
    """
    bus.learn_scales()
    bus.command(IDS, Command.DISABLE)
    arm = f"the {bus.side} arm" if bus.side else "the arm"
    ask(
        f"let {arm} hang straight down, elbow stretched, gripper closed, nobody "
        "touching it, then press Enter"
    )
    for id, feedback in bus.refresh().items():
        if abs(feedback.velocity) > STILL:
            raise UserError(
                f"{bus.who(id)} still turns with {feedback.velocity:.2f} rad/s; let "
                "it come to rest, and begin again"
            )
    for id in IDS:
        before = bus.latest[id].position
        bus.command([id], Command.SET_ZERO)
        after = bus.refresh([id])[id].position
        if abs(after) > ZERO:
            raise UserError(
                f"{bus.who(id)} is at {after:.3f} rad after its zero was set, expected "
                "0; switch its power off and on, and begin again"
            )
        say(f"{bus.who(id)}: {before:+.3f} rad is now 0")
