"""Two SO-100 side by side as one robot of 12 joints, the left arm's first.

Each arm has a bus and a calibration file of its own. Seen along the arms, which point
to -y, the left one stands `apart` / 2 to the left of the middle (+x).
"""

import contextlib
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from act_minimal.datasets.embodiment import joint_names
from act_minimal.support.errors import UserError

from ..cameras import Camera
from ..chain import Frames
from ..driver import ArmDriver
from ..errors import BusError
from ..safety.governor import Limits
from ..safety.guard import Guard
from ..safety.safe_robot import so100_limits
from .arm import SO100, ServoHealth, SO100Config
from .bodies import BOXES, PAIRS
from .kinematics import JOINTS, LINKS
from .kinematics import SO100 as KINEMATICS

SIDES = ("left", "right")
# m that the two arms stay from each other, and their jaws, which hand things over. Both
# arms lag behind their targets, each in its own way: more than within one arm.
APART, MEET = 0.02, 0.006
JAWS = ("fixed_jaw", "moving_jaw")
FADING = 20  # steps in which the torque fades


def of_side(path: Path, side: str) -> Path:
    """An arm's own file: calibration.json -> calibration_left.json."""
    return path.with_stem(f"{path.stem}_{side}")


class SO100Pair(ArmDriver):
    """The driver of two SO-100; see `ArmDriver`.

    Args:
        left: the left arm.
        right: the right arm, driven at the left one's rate.
        cameras: by name.

    Raises:
        BusError: from every method, naming the servo and the port.
    """

    name = "so100"
    action_dim = 2 * len(JOINTS)
    joints = tuple(joint_names(name, action_dim))

    def __init__(
        self,
        left: SO100Config,
        right: SO100Config,
        cameras: dict[str, Camera] | None = None,
    ):
        super().__init__(left.fps, cameras)
        self.arms = (SO100(left), SO100(right))
        self.buses = tuple(arm.bus for arm in self.arms)

    def start(self) -> None:
        """Both arms as `SO100.start`, the left one first."""
        for side, arm in zip(SIDES, self.arms, strict=True):
            try:
                arm.start()
            except BusError:
                raise
            except UserError as error:
                raise UserError(
                    f"{side} arm: {error}. First make sure that the ports are not "
                    "swapped: the left arm's comes first"
                ) from error
            finally:
                self.torque |= arm.torque
        for camera in self.sources.values():
            camera.open()

    def measure(self) -> tuple[np.ndarray, np.ndarray, ServoHealth]:
        """State (12,) rad and openings, velocity (12,), and health."""
        state, velocity, health = self.arms[0].measure()
        then = self.clock.now()
        state_right, velocity_right, health_right = self.arms[1].measure()
        health.age[:] = self.clock.now() - then
        return (
            np.concatenate([state, state_right]),
            np.concatenate([velocity, velocity_right]),
            _joined((health, health_right)),
        )

    def send(self, state: np.ndarray) -> None:
        """Joint targets (12,), rad and openings."""
        for arm, part in zip(self.arms, np.split(state, 2), strict=True):
            arm.send(part)

    def soften(self, seconds: float = 2.0) -> None:
        """Let the torque of both fade, then off; one that is lost holds up no other."""
        for share in np.linspace(1.0, 0.0, FADING + 1)[1:]:
            self._weaken(float(share))
            self.clock.wait_until(self.clock.now() + seconds / FADING)
        self.disable()
        self._weaken(1.0)

    def _weaken(self, share: float) -> None:
        for arm in self.arms:
            with contextlib.suppress(BusError):  # the other arm all the same
                arm.weaken(share)

    def disable(self) -> None:
        """Torque off, whatever it takes; every servo of both is tried.

        Raises:
            BusError: some servo did not confirm it.
        """
        failures: list[BusError] = []
        for arm in self.arms:
            if not arm.torque:
                continue
            try:
                arm.disable()
            except BusError as error:
                failures.append(error)
        self.torque = bool(failures)
        if failures:
            raise BusError(
                "; ".join(str(error) for error in failures),
                [id for error in failures for id in error.silent],
            )


def _joined(healths: tuple[ServoHealth, ...]) -> ServoHealth:
    arrays: dict[str, Any] = {
        key: np.concatenate([getattr(health, key) for health in healths])
        for key in vars(healths[0])
        if key != "faults"
    }
    faults = {
        f"{side}_{joint}": fault
        for side, health in zip(SIDES, healths, strict=True)
        for joint, fault in health.faults.items()
    }
    return ServoHealth(faults=faults, **arrays)


def pair_limits(apart: float) -> Limits:
    """Limits for two SO-100 on one table, kept from each other too.

    Args:
        apart: m between the axes about which the two shoulders turn.
    """
    one = so100_limits()
    both = {
        key: np.tile(getattr(one, key), 2)
        for key in (
            *("low", "high", "speed", "acceleration"),
            *("step", "press", "ready", "rest"),
        )
    }
    aside = np.array([apart / 2, 0, 0])
    jaw = one.grippers[0]
    return replace(
        one,
        **both,
        closing=4.0,  # found with random wishes, as those of one arm
        bow=1.2,
        box_low=one.box_low - aside,
        box_high=one.box_high + aside,
        guard=pair_guard(apart),
        grippers=(jaw, jaw + len(JOINTS)),
        arms=2,
    )


@cache
def pair_guard(apart: float) -> Guard:
    """The boxes of both arms, in a frame midway between their bases."""
    links = tuple(f"{side}_{link}" for side in SIDES for link in LINKS)
    boxes = [
        box._replace(link=f"{side}_{box.link}")
        for side in SIDES
        for box in BOXES["so100"]
    ]
    pairs = [(f"{s}_{a}", f"{s}_{b}", margin) for s in SIDES for a, b, margin in PAIRS]
    pairs += [
        (f"left_{a}", f"right_{b}", MEET if {a, b} <= set(JAWS) else APART)
        for a in LINKS
        for b in LINKS
    ]
    shift = np.array([[apart / 2, 0, 0], [-apart / 2, 0, 0]])  # (arms, 3)

    def frames_of(state: np.ndarray) -> Frames:
        """Of states (..., 12): both arms' links (..., 2 L)."""
        state = np.asarray(state, float)
        arms = state.reshape(*state.shape[:-1], 2, len(JOINTS))
        points, turns = KINEMATICS.frames_of(arms)  # (..., 2, L, 3), (..., 2, L, 3, 3)
        points = points + shift[:, None]
        lead = state.shape[:-1]
        return points.reshape(*lead, -1, 3), turns.reshape(*lead, -1, 3, 3)

    return Guard(links, frames_of, boxes, pairs)
