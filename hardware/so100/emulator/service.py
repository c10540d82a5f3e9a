"""The process behind a virtual arm: a port for its bus, a socket for its room.

One thread does it all, so that nothing has to be locked: it answers the bus, lets time
pass in the physics, draws what the cameras see, and serves the room. Its time stands
still while a busy computer holds it up; clients read it from a file (`clock.ArmTime`).
"""

import contextlib
import os
import selectors
from array import array
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from act_minimal.errors import SettingError, UserError
from act_minimal.settings import Whole, check_settings
from act_minimal.sim import TASKS, so100
from act_minimal.sim.world import Task, World

from ...clock import ArmTime, clock_path
from ..calibration import Calibration, middle_and_range
from ..kinematics import ARMS
from .arm import SENSE, STEPS_PER_RAD, VirtualArm
from .door import Door, Visitor, is_served, room_path, serve_until_ended
from .so101 import ALONE, AloneSO101
from .wire import Wire

TERMINALS = ("/dev/pts/", "/dev/ttys")  # where Linux and macOS keep them
TCGETS2 = 0x802C542A  # Linux: a terminal's settings with its rate as a number


@dataclass
class VirtualArmConfig:
    """A virtual SO-100 or SO-101, and where to find it."""

    port: Path = Path("virtual_so100")
    """The bus: a link to the pseudo-terminal. The room's socket is beside it."""
    task: str = "so100_pick_place"
    """The scene that the arm stands in."""
    scene: Whole = 0
    """Number of the scene's start."""
    leader: bool = False
    """A leader arm: its joints are moved by hand, through the room."""
    fresh: bool = False
    """As from the factory: every servo has id 1, and no calibration."""
    seed: Whole = 0
    """How the servos were mounted, and which answers the faults hit."""
    robot: str = "so100"
    """so100 or so101."""

    @property
    def files(self) -> list[Path]:
        """Everything that it makes; gone when it has ended."""
        return [self.port, room_path(self.port), clock_path(self.port)]

    def __post_init__(self) -> None:
        """Refuses what cannot be meant."""
        check_settings(self)


class VirtualArmService:
    """Runs a virtual arm until `stop`.

    Args:
        config: which arm, and where.

    Raises:
        UserError: this system has no pseudo-terminals, or the place is taken.
    """

    def __init__(self, config: VirtualArmConfig):
        if os.name != "posix":
            raise UserError(
                "a virtual arm needs pseudo-terminals, which this system lacks; "
                "use Linux, macOS, or WSL"
            )
        self.config = config
        self.arm, self.calibration = assemble(config)
        self.wire = Wire(self.arm.servos, config.seed)
        if config.fresh:
            self.wire.servos = []  # nothing is plugged in yet
        self.stopped = False
        self._world = World(self.arm.task, 1)
        self._noise = np.random.default_rng(config.seed)
        self._frozen: dict[str, np.ndarray] = {}
        self._hand: tuple[np.ndarray, float] | None = None
        self._tape: tuple[np.ndarray, float] | None = None
        self._tape_time = 0.0
        if config.leader:
            self._hand = self.arm.data.qpos[:6].copy(), 1.0
        self._selector = selectors.SelectSelector()  # waits to the microsecond
        self._open_port()
        with contextlib.ExitStack() as undo:
            undo.callback(config.port.unlink)
            self._time = ArmTime([clock_path(config.port)])
            undo.callback(self._time.close)
            self._door = Door(room_path(config.port), self._selector, self._do)
            undo.pop_all()

    # ------------------------------------------------------------ port and socket

    def _open_port(self) -> None:
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
        tty.setraw(self._slave)
        os.set_blocking(self._master, False)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(os.ttyname(self._slave))
        self._selector.register(self._master, selectors.EVENT_READ, self._bus_speaks)

    def close(self) -> None:
        """Leave nothing behind."""
        with contextlib.suppress(OSError):
            if os.readlink(self.config.port) == os.ttyname(self._slave):
                self.config.port.unlink()
        self._time.close()
        self._door.close()
        self._selector.close()
        os.close(self._master)
        os.close(self._slave)

    def baud(self) -> int | None:
        """The rate that the client has set; None where the system does not tell."""
        with contextlib.suppress(OSError, ImportError):
            import fcntl

            settings = array("i", [0] * 64)
            fcntl.ioctl(self._slave, TCGETS2, settings)
            return settings[9] or None
        return None

    # ------------------------------------------------------------ the loop

    def run(self) -> None:
        """Serve until `stop`."""
        try:
            self._serve()
        finally:
            self._world.close()  # by the thread that drew: GL wants it so

    def _serve(self) -> None:
        then = self._time.pass_on()
        while not self.stopped:
            now = self._time.pass_on()
            while then + self.arm.seconds <= now:
                self._move_hand()
                self.arm.step()
                then += self.arm.seconds
            self._send_answers(now)
            self._door.show(now, self._picture, self._objects)
            wait = then + self.arm.seconds - self._time.now()
            answer = self.wire.next_due()
            if answer is not None:
                wait = min(wait, answer - self._time.now())
            for key, _ in self._selector.select(max(0.0, wait)):
                key.data()

    def _bus_speaks(self) -> None:
        with contextlib.suppress(BlockingIOError):
            data = os.read(self._master, 4096)
            self.arm.powered = not self.wire.faults.no_power
            self.wire.receive(data, self._time.now(), self.baud())
            self._send_answers(self._time.now())

    def _send_answers(self, now: float) -> None:
        data = self.wire.due(now)
        if data and not self.wire.faults.unplugged:
            with contextlib.suppress(BlockingIOError):  # nobody reads: it is lost
                os.write(self._master, data)

    # ------------------------------------------------------------ the room

    def _do(self, wish: dict[str, Any], visitor: Visitor) -> dict[str, Any]:
        arm = self.arm
        for verb, value in wish.items():
            if verb == "faults":
                self.wire.faults.set(value)
                self._turn_switches()
            elif verb == "lay":
                if not arm.task.env_state_dim:
                    raise UserError(f"there is nothing to lay: it is {arm.task.name}")
                arm.lay(int(value))
            elif verb == "put":
                joints = np.clip(value, *arm.model.jnt_range[:6].T)
                arm.put(joints)
                self._tape = None
                # A leader stays in the hand that put it there.
                self._hand = (joints, 1.0) if self.config.leader else None
            elif verb == "hand":  # move there by hand, at most so fast (rad/s)
                joints, speed = value
                self._hand = np.asarray(joints, float), float(speed)
            elif verb == "play":  # rows of joint angles (T, 6), so many a second
                rows, rate = value
                self._tape = np.asarray(rows, float).reshape(-1, 6), float(rate)
                self._tape_time = 0.0
            elif verb == "plug":
                self.wire.servos = [arm.servos[int(i)] for i in value]
            elif verb == "watch":
                height, width = value["size"]
                size = int(height), int(width)
                for camera in value["cameras"]:
                    self._picture(camera, size)  # refuses one that there is not
                visitor.watch(value["cameras"], size, value["fps"])
            elif verb == "follow":
                visitor.follow(float(value))
            elif verb == "forget":
                arm.witness = type(arm.witness)()
            elif verb == "power":
                self._power(bool(value))
            elif verb == "stop":
                self.stopped = True
            elif verb != "look":
                raise UserError(f"the room knows no '{verb}'")
        return {
            "success": bool(arm.success),
            "joints": arm.data.qpos[:6].tolist(),
            "objects": self._objects(),
            "state": arm.data.qpos.tolist(),
            "torque": [s.torque_on for s in arm.servos],
            "tip_height": arm.tip_height(),
            "witness": arm.witness.to_json(),
            "time": self._time.now(),
        }

    def _turn_switches(self) -> None:
        faults = self.wire.faults
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
        self.arm.powered = on

    def _move_hand(self) -> None:
        if self._tape is not None:
            rows, rate = self._tape
            self._tape_time += self.arm.seconds
            place = self._tape_time * rate
            ticks = np.arange(len(rows))
            joints = np.array([np.interp(place, ticks, row) for row in rows.T])
            self._hand = joints, np.inf
            if place >= len(rows) - 1:
                self._tape = None
        if self._hand is None:
            return
        joints, speed = self._hand
        here = self.arm.data.qpos[:6]
        step = speed * self.arm.seconds
        self.arm.put(here + np.clip(joints - here, -step, step))

    # ------------------------------------------------------------ the cameras

    def _objects(self) -> list[float]:
        """As a policy knows them: position (m) and quaternion (wxyz) of each."""
        return self.arm.task.env_state(self.arm.data.qpos[None])[0].tolist()

    def _picture(self, camera: str, size: tuple[int, int]) -> np.ndarray:
        if camera in self._frozen:
            return self._frozen[camera]
        self._world.qpos[0] = self.arm.data.qpos
        picture = self._sensor_noise(self._world.render(camera, size))
        if camera == self.wire.faults.frozen_camera:
            self._frozen[camera] = picture
        return picture

    def _sensor_noise(self, picture: np.ndarray) -> np.ndarray:
        """A hundredth of the values one brighter: no real picture comes twice."""
        noisy = self._noise.integers(0, picture.size, picture.size // 100)
        flat = picture.reshape(-1)  # a view: the renderer gave a copy of its own
        flat[noisy] += flat[noisy] < 255
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
    arm = VirtualArm(_scene(config), mounting, config.scene, config.robot)
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


def _scene(config: VirtualArmConfig) -> Task:
    """The scene that an arm stands in.

    Raises:
        SettingError: there is none of this name with this arm.
    """
    known: dict[str, type] = {ALONE: AloneSO101}
    if config.robot == "so100":
        known = {name: t for name, t in TASKS.items() if t.joints == so100.JOINTS}
    if config.task not in known:
        raise SettingError(
            f"task is '{config.task}', expected one with a {config.robot}: "
            f"{', '.join(known)}"
        )
    return known[config.task]()


def serve(config: VirtualArmConfig) -> None:
    """Run a virtual arm until Ctrl-C, or until its room is told to stop."""
    with contextlib.suppress(OSError):  # where it may: servos never wait for a CPU
        os.nice(-10)
    kind = "leader" if config.leader else "arm"
    name = {"so100": "SO-100", "so101": "SO-101"}[config.robot]
    serve_until_ended(
        lambda: VirtualArmService(config),
        f"a virtual {name} {kind} is at {config.port}; Ctrl-C unplugs it",
    )
