"""Which motors an OpenArm is made of, on which ids, and how hard they are driven.

Both arms have the same eight motors with the same ids: each arm has its own bus.

What a motor itself says in registers 21 to 23 is what holds (the DM4340's VMAX is 8
rad/s in most drivers' tables, 10 in newer ones); the ranges here are what the emulated
motors say. Joint 7 is a DM4310 or, in the maker's model of version 2, a DM3507.
"""

from dataclasses import dataclass

import numpy as np

from act_minimal.support.errors import SettingError

from .protocol import Scale

SIDES = ("right", "left")
JOINTS = tuple(f"joint{i}" for i in range(1, 8)) + ("gripper",)
# Order of the sixteen, in states and actions: right joint1 to 7, right gripper, left.
NAMES = tuple(f"{side}_{joint}" for side in SIDES for joint in JOINTS)
GRIPPERS = (7, 15)  # their places among the sixteen


@dataclass(frozen=True)
class MotorType:
    """One model of motor."""

    name: str
    scale: Scale
    peak: float  # N·m that it can give for a short while
    rated: float  # N·m that it can give for as long as one likes
    gear: float
    kt: float  # N·m of the shaft a A


DM8009 = MotorType("DM8009", Scale(12.5, 45.0, 54.0), 40.0, 20.0, 9.0, 1.2616)
DM4340 = MotorType("DM4340", Scale(12.5, 8.0, 28.0), 27.0, 9.0, 40.0, 4.074)
DM4310 = MotorType("DM4310", Scale(12.5, 30.0, 10.0), 7.0, 3.0, 10.0, 0.945)
DM3507 = MotorType("DM3507", Scale(12.5, 50.0, 5.0), 3.0, 0.8, 7.0, 0.667)
NEWER_DM4340 = Scale(12.5, 10.0, 28.0)  # as newer ones are set


@dataclass(frozen=True)
class ArmMotor:
    """One motor of an arm."""

    joint: str
    id: int  # on which it is commanded
    master: int  # on which it answers
    type: MotorType  # what it usually is
    others: tuple[MotorType, ...] = ()  # what it may be instead

    def type_of(self, scale: Scale) -> MotorType | None:
        """Which of its types a motor is that says this of its ranges; None if none."""
        for type in (self.type, *self.others):
            if type.scale.torque == scale.torque:
                return type
        return None

    def expected(self) -> str:
        """Its types and what they say of their torque, for messages."""
        types = (self.type, *self.others)
        return " or ".join(f"{t.scale.torque:g} of a {t.name}" for t in types)


_OTHERS = {"joint7": (DM3507,)}
_TYPES = (DM8009, DM8009, DM4340, DM4340, DM4310, DM4310, DM4310, DM4310)
ARM_MOTORS = tuple(
    ArmMotor(joint, id, 0x10 + id, type, _OTHERS.get(joint, ()))
    for id, (joint, type) in enumerate(zip(JOINTS, _TYPES, strict=True), start=1)
)
IDS = tuple(motor.id for motor in ARM_MOTORS)
PEAK = np.array([motor.type.peak for motor in ARM_MOTORS])  # (8,) N·m, as usual


@dataclass(frozen=True)
class Gains:
    """Stiffness and damping of an arm's eight motors in MIT mode."""

    kp: tuple[float, ...]  # N·m/rad
    kd: tuple[float, ...]  # N·m·s/rad


# `firm` is what the maker's driver calls higher_pd and what its MuJoCo model has, so
# that what works there works here; `gentle` is what it starts with.
GAINS = {
    "firm": Gains(
        kp=(230, 230, 190, 190, 30, 30, 30, 10),
        kd=(2.7, 2.7, 2.2, 2.2, 1.5, 1.5, 1.5, 0.2),
    ),
    "gentle": Gains(
        kp=(70, 70, 70, 60, 10, 10, 10, 10),
        kd=(2.75, 2.5, 2.0, 2.0, 0.7, 0.6, 0.5, 0.2),
    ),
}
# What a motor brakes with while an arm sinks: as much as it can. The wrist's inertia is
# small, and more than this would let it shake.
BRAKE = np.array([5.0, 5.0, 5.0, 5.0, 1.5, 1.5, 1.5, 0.2])


def gains_of(name: str) -> Gains:
    """The gains of this name; SettingError lists the known ones."""
    if name not in GAINS:
        raise SettingError(f"gains is '{name}', expected one of: {', '.join(GAINS)}")
    return GAINS[name]
