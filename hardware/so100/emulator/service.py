"""A virtual SO-100 or SO-101 on a pseudo-terminal; see `virtual.service`."""

import contextlib
import os
import selectors
from array import array
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from act_minimal.sim import TASKS
from act_minimal.sim.world import MovingTask
from act_minimal.support.errors import SettingError, UserError
from act_minimal.support.validation import Whole

from ...virtual.scene import ALONE, VirtualScene
from ...virtual.server import is_served
from ...virtual.service import VirtualConfig, VirtualService, serve_until_ended
from ..bus import TERMINALS
from ..calibration import Calibration, middle_and_range
from ..kinematics import ARMS
from .arm import SENSE, STEPS_PER_RAD, VirtualArm
from .so101 import AloneSO101
from .wire import Wire

TCGETS2 = 0x802C542A  # Linux: a terminal's settings with its rate as a number


@dataclass
class VirtualArmConfig(VirtualConfig):
    """A virtual SO-100 or SO-101, and where to find it."""

    port: Path = Path("virtual_so100")
    """The bus: a link to the pseudo-terminal. The scene's socket is beside it."""
    task: str = "so100_pick_place"
    """The scene that the arm stands in."""
    scene: Whole = 0
    """Number of the scene's start."""
    leader: bool = False
    """A leader arm: its joints are moved by hand, through that socket."""
    fresh: bool = False
    """As from the factory: every servo has id 1, and no calibration."""
    seed: Whole = 0
    """How the servos were mounted, and which answers the faults hit."""
    robot: str = "so100"
    """so100 or so101."""


class VirtualArmService(VirtualService):
    """Runs a virtual SO-100 or SO-101; see `VirtualService`."""

    arm: VirtualArm

    def __init__(self, config: VirtualArmConfig):
        self.config = config
        arm, self.calibration = assemble(config)
        self.wire = Wire(arm.servos, config.seed)
        if config.fresh:
            self.wire.servos = []  # nothing is plugged in yet
        self._frozen: dict[str, np.ndarray] = {}
        if config.leader:
            arm.move(arm.data.qpos[:6].copy(), 1.0)
        super().__init__(config, arm, arm.scene)
        self.requests |= {
            "faults": self._set_faults,
            "lay": lambda number: arm.lay(int(number)),
            "put": self._put,
            "move": lambda value: arm.move(*value),  # angles (6,) rad, and rad/s
            "play": lambda value: arm.play(*value),  # angles (T, 6), so many a second
            "plug": self._plug,
            "power": self._power,
        }

    # ------------------------------------------------------------ the bus

    def open_buses(self, undo: contextlib.ExitStack) -> None:
        import tty

        path = self.config.port
        # Of a virtual arm that was killed: its terminal is gone, or somebody else's by
        # now. Others' links stay.
        ours = path.is_symlink() and os.readlink(path).startswith(TERMINALS)
        if ours and not is_served(path):
            path.unlink()
        if path.exists() or path.is_symlink():
            raise UserError(
                f"{path} is there already; another virtual arm may run on it: end "
                "that, or choose another --port"
            )
        # The slave stays open here: without anybody at that end the master would fail.
        self._master, self._slave = os.openpty()
        undo.callback(os.close, self._slave)
        undo.callback(os.close, self._master)
        tty.setraw(self._slave)
        os.set_blocking(self._master, False)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(os.ttyname(self._slave))
        undo.callback(self.remove_port)
        self.selector.register(self._master, selectors.EVENT_READ, self._receive)

    def remove_port(self) -> None:
        with contextlib.suppress(OSError):
            if os.readlink(self.config.port) == os.ttyname(self._slave):
                self.config.port.unlink()

    def baud(self) -> int | None:
        """The rate that the client has set; None where the system does not tell."""
        with contextlib.suppress(OSError, ImportError):
            import fcntl

            settings = array("i", [0] * 64)
            fcntl.ioctl(self._slave, TCGETS2, settings)
            return settings[9] or None
        return None

    def _receive(self) -> None:
        with contextlib.suppress(BlockingIOError):
            data = os.read(self._master, 4096)
            self.arm.powered = not self.wire.faults.no_power
            self.wire.receive(data, self.time.now(), self.baud())
            self.answer(self.time.now())

    def answer(self, now: float) -> float | None:
        data = self.wire.due(now)
        if data and not self.wire.faults.unplugged:
            with contextlib.suppress(BlockingIOError):  # nobody reads: it is lost
                os.write(self._master, data)
        return self.wire.next_due()

    # ------------------------------------------------------------ clients

    def look(self) -> dict[str, Any]:
        return {
            "joints": self.arm.data.qpos[:6].tolist(),
            "torque": [servo.torque_on for servo in self.arm.servos],
        }

    def _put(self, joints: list[float]) -> None:
        inside = np.clip(joints, *self.arm.model.jnt_range[:6].T)
        self.arm.release()
        self.arm.put(inside)
        if self.config.leader:
            self.arm.move(inside, 1.0)

    def _plug(self, numbers: list[int]) -> None:
        self.wire.servos = [self.arm.servos[int(number)] for number in numbers]

    def _set_faults(self, switches: dict[str, Any]) -> None:
        faults = self.wire.faults
        faults.set(switches)
        self.arm.sag = faults.sag
        self.wire.apply_faults()
        self._power(not faults.no_power)
        if faults.frozen_camera not in self._frozen:
            self._frozen.clear()

    def _power(self, on: bool) -> None:
        if on and not self.arm.powered:
            for servo in self.arm.servos:
                servo.power_up()
        elif not on:
            for servo in self.arm.servos:
                servo.poke("Torque_Enable", 0)
        self.arm.powered = bool(on)

    def picture(self, camera: str, size: tuple[int, int]) -> np.ndarray:
        """What a camera sees, (H, W, 3) uint8; for ever the same if it is frozen."""
        if camera in self._frozen:
            return self._frozen[camera]
        picture = super().picture(camera, size)
        if camera == self.wire.faults.frozen_camera:
            self._frozen[camera] = picture
        return picture


def assemble(config: VirtualArmConfig) -> tuple[VirtualArm, Calibration]:
    """An arm with servos mounted as the seed says, and its true calibration.

    The servos hold the calibration's offsets and limits, unless the arm is fresh.
    """
    ranges = ARMS[config.robot].ranges
    middle = ranges.mean(axis=1)
    rng = np.random.default_rng([config.seed, 100])
    offsets = rng.integers(-800, 800, 6)
    # At the middle of its range a joint shows 2047 once its offset is taken off.
    mounting = 2047 + offsets - SENSE[config.robot] * middle * STEPS_PER_RAD
    arm = VirtualArm(_scene(config), mounting, config.robot)
    calibration = Calibration.of_ranges(
        [
            middle_and_range(int(offset), float(high - low))
            for offset, (low, high) in zip(offsets, ranges, strict=True)
        ]
    )
    for i, servo in enumerate(arm.servos):
        servo.poke("Lock", 0)
        if config.fresh:
            servo.poke("ID", 1)
            servo.id = 1
        else:
            motor = list(calibration.motors.values())[i]
            servo.poke("ID", i + 1)
            servo.poke("Homing_Offset", motor.homing_offset)
            servo.poke("Min_Position_Limit", motor.range_min)
            servo.poke("Max_Position_Limit", motor.range_max)
        servo.saved[:] = servo.memory[: len(servo.saved)]
        servo.power_up()
    return arm, calibration


def _scene(config: VirtualArmConfig) -> VirtualScene:
    known: dict[str, type] = {ALONE: AloneSO101}
    if config.robot == "so100":
        stays = {name: t for name, t in TASKS.items() if not issubclass(t, MovingTask)}
        known = {name: t for name, t in stays.items() if t.robot == "so100"}
    if config.task not in known:
        raise SettingError(
            f"task is '{config.task}', expected one with a {config.robot}: "
            f"{', '.join(known)}"
        )
    return VirtualScene(known[config.task](), config.scene, config.seed)


def serve(config: VirtualArmConfig) -> None:
    """Run a virtual arm until Ctrl-C, or until a client stops it."""
    kind = "leader" if config.leader else "arm"
    name = {"so100": "SO-100", "so101": "SO-101"}[config.robot]
    serve_until_ended(
        lambda: VirtualArmService(config),
        f"a virtual {name} {kind} is at {config.port}; Ctrl-C unplugs it",
    )
