"""Everything that can break on a virtual SO-100, in every phase of its life.

What is `safe` is said in `SO100Trial.judge`.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from act_minimal.checkpoint import load_policy
from act_minimal.sim.so100.arm import joint_limits
from hardware.robots import VIRTUAL, RobotConfig
from hardware.so100.arm import IDS, SO100
from hardware.so100.bus import Bus
from hardware.so100.calibration import save_calibration
from hardware.so100.kinematics import JOINTS
from hardware.so100.setup import calibrate
from hardware.virtual.contacts import Touch

from .bus import VISION
from .campaign import Faults, Trial, bench

OVERSHOOT = 0.05  # rad that a joint may swing past its target
FAULTS: Faults = {
    "lost 2 %": {"lost": 0.02},
    "lost 30 %": {"lost": 0.3},
    "corrupted 2 %": {"corrupted": 0.02},
    "late": {"late": 0.2},
    "delay 5 ms": {"delay": 0.005},
    "noise": {"noise": 0.5},
    "missing servo": {"missing": 3},
    "doubled id": {"doubled": 3},
    "wrong model": {"wrong_model": 2},
    "old firmware": {"old_firmware": 5},
    "multi-turn": {"multi_turn": 3},
    "voltage sag": {"sag": 4.0},
    "overload": {"overload": 2},
    "overheat": {"overheat": 4},
    "unplugged": {"unplugged": True},
    "no power": {"no_power": True},
    "frozen camera": {"frozen_camera": "top"},
}


@dataclass
class SO100Trial(Trial):
    """An SO-100 on the bench, with two cameras and the vision policy."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.by_hand = ("calibrate",)

    def calibrate(self) -> None:
        """The fault comes while the joints are swept by hand."""
        assert isinstance(self.robot.arm, SO100)
        bus = Bus(self.robot.arm.config.port, names=dict(zip(IDS, JOINTS, strict=True)))
        bus.open()
        looks = 0

        def moving() -> bool:
            nonlocal looks
            looks += 1
            if looks == 20:
                self.cut()
            low, high = joint_limits().T
            share = min(1.0, abs((looks % 40) / 20 - 1))
            self.scene.put(low + share * (high - low))
            return looks < 60

        def ask(text: str) -> None:
            self.scene.put(joint_limits().mean(axis=1))

        with contextlib.closing(bus):
            found = calibrate(bus, ask, lambda text: None, moving=moving)
            (self.folder / "new.json").unlink(missing_ok=True)  # of the trial before
            save_calibration(self.folder / "new.json", found)

    def judge(self, phase: str, seen: dict[str, Any], said: str) -> dict[str, Any]:
        """Against the limits; while a hand moves the arm, torque must never come on."""
        witness = seen["witness"]
        if phase in self.by_hand:
            pulled = max(witness["torque"])
            return {"safe": pulled == 0, "by_hand": True, "strongest": pulled}
        limits = self.robot.limits
        low, high = np.array(witness["lowest"]), np.array(witness["highest"])
        inside = bool(
            (low[:5] >= limits.low[:5] - OVERSHOOT).all()
            and (high[:5] <= limits.high[:5] + OVERSHOOT).all()
        )
        fastest, pull = max(witness["speed"][:5]), max(witness["pull"][:5])
        touch = Touch(witness["touch"]["deepest"], pressed=witness["touch"]["pressed"])
        safe = (
            inside
            and fastest <= float(limits.speed[0]) + 0.5
            and pull <= float(limits.step[0]) + OVERSHOOT
            and touch.well
            and not witness["falls"]
        )
        return {
            "safe": safe,
            "inside_joint_limits": inside,
            "fastest": fastest,
            "farthest_pull": pull,
            "deepest": touch.deepest,
            "pressed_for": touch.pressed,
            "falls": witness["falls"],
        }


PHASES = ("connect", "calibrate", "record", "deploy")


@contextlib.contextmanager
def plugged(folder: Path, switches: dict[str, Any]) -> Iterator[SO100Trial]:
    """A new arm for one row."""
    config = RobotConfig(VIRTUAL, cameras=("top", "wrist"))
    with bench(config) as (robot, scene, called):
        policy = partial(load_policy, VISION)
        trial = SO100Trial(folder, robot, scene, switches, policy, ("top",))
        trial.called |= called
        yield trial
