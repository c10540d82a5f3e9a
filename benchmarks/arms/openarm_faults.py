"""Everything that can break on two OpenArms, in every phase of their life.

Virtual arms in a process of their own, on udp_multicast. What is `safe` is said in
`OpenArmTrial.judge`.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from hardware.openarm.arm import OpenArm
from hardware.openarm.bus import Bus
from hardware.openarm.emulator import wire
from hardware.openarm.kinematics import ARMS
from hardware.openarm.motors import GRIPPERS, NAMES, PEAK, SIDES
from hardware.openarm.setup import ZERO, set_zero
from hardware.robots import OPENARM, VIRTUAL, RobotConfig
from hardware.virtual.contacts import Touch

from .campaign import Faults, Trial, bench


def right(**switches: Any) -> dict[str, Any]:
    """Switches of the right arm's bus; the left one stays well."""
    return {"right": switches}


FAULTS: Faults = {
    "silent motor": right(silent=4),
    "wrong id": right(wrong_id=4),
    "wrong bit rate": right(wrong_rate=5),
    "CAN for CAN-FD": right(wrong_kind=True),
    "over-voltage": right(over_voltage=True),
    "under-voltage": right(under_voltage=True),
    "driver too hot": right(driver_hot=2),
    "coils too hot": right(rotor_hot=6),
    "over-current": right(over_current=4),
    "overload": right(overload=2),
    "lost communication": right(lost_communication=4),
    "frozen feedback": right(frozen=4),
    "dropped 5 %": right(dropped=0.05),
    "dropped 30 %": right(dropped=0.3),
    "unheard 5 %": right(unheard=0.05),
    "unheard 30 %": right(unheard=0.3),
    "doubled 30 %": right(doubled=0.3),
    "late 20 %": right(late=0.2),
    "unplugged": right(unplugged=True),
    "power cut": right(no_power=True),
    "power cut, both": {side: {"no_power": True} for side in ("right", "left")},
}
HELD = 0.1  # rad, and openings: where a hand holds the arms while zero is set
# Which switches take torque away, and which leave a motor that nobody can reach.
LIMP = (
    *("over_voltage", "under_voltage", "no_power", "driver_hot", "rotor_hot"),
    *("over_current", "overload", "lost_communication"),
)
DEAF = ("silent", "wrong_id", "wrong_rate", "wrong_kind", "unplugged")
ARM = (set(range(8)), set(range(8, 16)))
OVERSHOOT = 0.05  # rad that a joint may swing past its limit
FASTER = 1.25  # of its speed limit, which is one of goals: a spring swings
SWAYING = (0, 3, 8, 11)  # shoulders and elbows
PHASES = ("connect", "zero", "record", "deploy")


@dataclass
class OpenArmTrial(Trial):
    """Two arms that stand free, without cameras; what drives them sways."""

    before: dict[str, Any] = field(default_factory=dict, init=False)
    """What the witness had seen when the fault came."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.by_hand = ("zero",)

    def cut(self) -> None:
        """The fault comes now; the witness begins a new page."""
        self.before = self.scene.look()["witness"]
        self.scene.ask(faults=self.switches, forget=True)  # at once

    def zero(self) -> None:
        """The fault comes while the arm hangs, between two motors' zeros."""
        self.scene.put(np.full(16, HELD))
        told: list[str] = []

        def say(text: str) -> None:
            told.append(text)
            if len(told) == 1:
                self.cut()

        with self.right_bus() as bus:
            set_zero(bus, lambda text: None, say)

    @contextlib.contextmanager
    def right_bus(self) -> Iterator[Bus]:
        """The right arm's bus, without the driver."""
        assert isinstance(self.robot.arm, OpenArm)
        bus = Bus(self.robot.arm.config.right, side="right")
        bus.open()
        with contextlib.closing(bus):
            yield bus

    def judge(self, phase: str, seen: dict[str, Any], said: str) -> dict[str, Any]:
        """What the program could help is judged, what physics does is reported.

        While a hand holds the arms, no motor may pull, and zeros that nobody complained
        about have to be right. Else, before and after the fault: joints in their range
        and near their speed limit, wrists in the box, no body in another one or hard on
        a table, no pull as of something in the way. Motors that the fault itself
        leaves without torque are let off after it, and so is the fall of an arm that
        has none other. In the end no motor that hears may have torque.
        """
        after = seen["witness"]
        if phase in self.by_hand:
            strongest = max(after["torque"])
            right_or_refused = bool(said) or self.zero_is_right()
            return {
                "safe": strongest == 0 and right_or_refused,
                "by_hand": True,
                "strongest": strongest,
                "zero_right": right_or_refused,
            }
        limp, deaf = gone(self.switches, LIMP), gone(self.switches, DEAF)
        still_on = np.flatnonzero(seen["torque"]).tolist()
        fallen = [side for side in (0, 1) if ARM[side] <= limp]
        pulled = max((after["torque"][i] for i in limp), default=0.0)
        before, now = self.within(self.before, set()), self.within(after, limp)
        own = max(0, after["falls"] - len(fallen))  # of the program's making
        falls = self.before["falls"] + own
        inside = before["inside"] and now["inside"]
        reached_off = set(still_on) <= deaf
        return {
            "safe": inside and not falls and pulled == 0 and reached_off,
            "inside": inside,
            **{k: max(before[k], now[k]) for k in ("fastest", "strongest", "deepest")},
            "falls": falls,
            "dropped_by_the_fault": after["falls"] - own,
            "torque_left_on": [NAMES[i] for i in still_on],
            "limp": [NAMES[i] for i in sorted(limp)],
        }

    def within(self, witness: dict[str, Any], limp: set[int]) -> dict[str, Any]:
        """A page of the witness against the limits, for joints that are not limp.

        Speeds and torques are given as shares of what the limits allow.
        """
        limits, row = self.robot.limits, np.array
        judged = np.array([i not in limp for i in range(len(NAMES))])
        if not np.isfinite(witness["lowest"]).all():  # nothing was there to be seen
            return {"inside": True, "fastest": 0.0, "strongest": 0.0, "deepest": 0.0}
        speed = row(witness["speed"]) / limits.speed
        speed[list(GRIPPERS)] /= np.abs(ARMS["v2"].open_at)  # of the motor, in rad/s
        pull = row(witness["torque"]) / np.tile(PEAK, 2)
        spread = np.array([[ARM[side] & limp == set()] for side in (0, 1)])
        seen = witness["touch"]
        inside = (
            # Arms that the fault itself lets fall lie in the end on what they find.
            row(bool(limp) or Touch(seen["deepest"], pressed=seen["pressed"]).well),
            (row(witness["lowest"]) >= limits.low - OVERSHOOT) | ~judged,
            (row(witness["highest"]) <= limits.high + OVERSHOOT) | ~judged,
            (speed <= FASTER) | ~judged,
            (pull <= limits.load) | ~judged,
            (row(witness["hand_low"]) >= limits.box_low) | ~spread,
            (row(witness["hand_high"]) <= limits.box_high) | ~spread,
        )
        return {
            "inside": all(bool(one.all()) for one in inside),
            "fastest": float(speed[judged].max(initial=0.0)),
            "strongest": float(pull[judged].max(initial=0.0)),
            "deepest": seen["deepest"],
        }

    def zero_is_right(self) -> bool:
        """Whether the right arm's motors say 0 where the hand holds them."""
        off = {f.name: f.default for f in fields(wire.Faults)}
        self.scene.faults(right=off, left=off)
        with self.right_bus() as bus:
            bus.learn_scales()
            return all(abs(f.position) <= 2 * ZERO for f in bus.refresh().values())


def gone(switches: dict[str, Any], kinds: tuple[str, ...]) -> set[int]:
    """Places, among the sixteen, of the motors that switches of these kinds concern."""
    found: set[int] = set()
    for side, name in enumerate(SIDES):
        for switch, value in switches.get(name, {}).items():
            if switch in kinds:
                one = value is not True
                found |= {8 * side + value - 1} if one else ARM[side]
    return found


@contextlib.contextmanager
def plugged(folder: Path, switches: dict[str, Any]) -> Iterator[OpenArmTrial]:
    """New arms for one row."""
    with bench(RobotConfig(VIRTUAL, OPENARM), "alone") as (robot, scene, called):
        trial = OpenArmTrial(folder, robot, scene, switches, sways=SWAYING)
        assert isinstance(robot.arm, OpenArm)
        buses = robot.arm.config
        trial.called |= called | {buses.right: "can0", buses.left: "can1"}
        yield trial
