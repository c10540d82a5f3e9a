"""The process behind a virtual OpenArm: both its CAN buses, and a socket for its room.

One thread does it all, so that nothing has to be locked: it answers the buses, lets
time pass in the physics, draws what the cameras see, and serves the room. Its time
stands still while a busy computer holds it up; clients read it from a file
(`clock.ArmTime`).
"""

import contextlib
import os
import selectors
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import can
import numpy as np

from act_minimal.errors import UserError
from act_minimal.settings import Whole, check_settings

from ...clock import ArmTime, clock_path
from ...so100.emulator.door import (
    Door,
    Visitor,
    is_served,
    room_path,
    serve_until_ended,
)
from ..bus import VIRTUAL_LEFT, VIRTUAL_RIGHT, parse_channel
from ..limits import openarm_limits
from ..motors import ARM_MOTORS, DM3507, NEWER_DM4340, SIDES
from ..plug import Plug, free_channels, read_plug, write_plug
from ..protocol import Frame, Status
from .arm import VirtualOpenArm
from .scene import ALONE, Scene
from .wire import Wire

NAP = 0.0003  # s between two looks at a bus that nobody can wait for
MASTERS = {motor.master for motor in ARM_MOTORS} | {0x1F}


@dataclass
class VirtualOpenArmConfig:
    """A virtual OpenArm, and where to find it."""

    port: Path = Path("virtual_openarm")
    """Its name: a file that says where its buses are. The room's socket is beside it,
    with .room at its end."""
    right: str = VIRTUAL_RIGHT
    """The right arm's bus; two buses need two ports of a multicast group."""
    left: str = VIRTUAL_LEFT
    """The left arm's bus."""
    fd: bool = True
    """The motors speak CAN-FD; if not, classic CAN."""
    scene: str = ALONE
    """What is around the arms: nothing, or a simulated task's scene."""
    leader: bool = False
    """Leader arms: they stay in the hand that puts them somewhere, by the room."""
    number: Whole = 0
    """Number of the scene's start."""
    newer: bool = False
    """The DM4340 are set to the newer range of velocity, 10 rad/s."""
    light_wrist: bool = False
    """Joint 7 of both arms is a DM3507, and not a DM4310."""
    zeroed: bool = True
    """The motors know their zero; if not, each is off by up to half a turn."""
    seed: Whole = 0
    """Where the zeros are, if not known, and which frames the faults hit."""

    def __post_init__(self) -> None:
        """Refuses what cannot be meant."""
        check_settings(self)

    @property
    def clocks(self) -> list[Path]:
        """Where its time is kept: for those in its room, and those at its buses."""
        buses = [b for b in (self.right, self.left) if not b.startswith("virtual:")]
        return [clock_path(place) for place in (self.port, *buses)]

    @property
    def files(self) -> list[Path]:
        """Everything that it makes; gone when it has ended."""
        return [self.port, room_path(self.port), *self.clocks]


class VirtualOpenArmService:
    """Runs a virtual OpenArm until `stopped`.

    Args:
        config: which, and where.

    Raises:
        UserError: this system lacks what it needs, or the place is taken.
    """

    def __init__(self, config: VirtualOpenArmConfig):
        if os.name != "posix":
            raise UserError(
                "a virtual OpenArm needs sockets with names, which this system lacks; "
                "use Linux, macOS, or WSL"
            )
        self.config = config
        self.scene = Scene(config.scene, config.number)
        self.arm = assemble(config, self.scene)
        self.wires = [
            Wire(motors, fd=config.fd, seed=config.seed + side)
            for side, motors in enumerate(self.arm.motors)
        ]
        self.stopped = False
        _expect_free(config.port)
        self._noise = np.random.default_rng(config.seed)
        self._selector = selectors.SelectSelector()  # waits to the microsecond
        self._buses: list[Any] = []
        with contextlib.ExitStack() as undo:
            undo.callback(self._close_buses)
            for side, channel in enumerate((config.right, config.left)):
                self._open_bus(side, channel)
            plug = Plug(config.right, config.left, config.fd, self.scene.table)
            write_plug(config.port, plug)
            undo.callback(config.port.unlink)
            self._time = ArmTime(config.clocks)
            undo.callback(self._time.close)
            self._door = Door(room_path(config.port), self._selector, self._do)
            undo.pop_all()
        self._then = self._time.pass_on()

    def _open_bus(self, side: int, channel: str) -> None:
        try:
            bus = can.Bus(**parse_channel(channel, self.config.fd))
        except (can.CanError, OSError, ValueError, ImportError) as error:
            raise UserError(
                f"the {SIDES[side]} arm's bus {channel} cannot be opened: {error}"
            ) from error
        self._buses.append(bus)
        with contextlib.suppress(NotImplementedError, ValueError, OSError):
            self._selector.register(
                bus.fileno(), selectors.EVENT_READ, lambda: self._listen(side)
            )

    def close(self) -> None:
        """Leave nothing behind."""
        self.config.port.unlink(missing_ok=True)
        self._time.close()
        self._door.close()
        self._close_buses()
        self._selector.close()

    def _close_buses(self) -> None:
        for bus in self._buses:
            bus.shutdown()
        self._buses.clear()

    # ------------------------------------------------------------ the loop

    def run(self) -> None:
        """Serve until `stopped`."""
        try:
            self._serve()
        finally:
            self.scene.close()

    def _serve(self) -> None:
        watched = {key.fd for key in self._selector.get_map().values()}
        patient = all(_number(bus) in watched for bus in self._buses)
        while not self.stopped:
            wait = self.turn() - self._time.now()
            if not patient:
                time.sleep(max(0.0, min(wait, NAP)))
                self.listen()
                wait = 0.0
            for key, _ in self._selector.select(max(0.0, wait)):
                key.data()

    def turn(self) -> float:
        """Let time pass up to now, and send what is due; when to come again, s."""
        now = self._time.pass_on()
        while self._then + self.arm.seconds <= now:
            self.arm.step()
            self.scene.watch(self.arm.data)
            self._then += self.arm.seconds
        self._door.show(now, self._picture, self._objects)
        self._answer(self._time.now())
        due = [d for d in (wire.next_due() for wire in self.wires) if d is not None]
        return min([self._then + self.arm.seconds, *due])

    def listen(self) -> None:
        """Take what has come on both buses."""
        for side in range(len(SIDES)):
            self._listen(side)

    def _listen(self, side: int) -> None:
        bus, wire = self._buses[side], self.wires[side]
        while (message := bus.recv(0)) is not None:
            id = message.arbitration_id
            if id in MASTERS or message.is_extended_id or message.is_error_frame:
                continue  # our own answers, which some buses show to their sender
            frame = Frame(id, bytes(message.data))
            wire.receive(frame, self._time.now(), fd=message.is_fd)

    def _answer(self, now: float) -> None:
        for bus, wire in zip(self._buses, self.wires, strict=True):
            for frame in wire.due(now):
                with contextlib.suppress(can.CanError, OSError):  # nobody takes it
                    bus.send(
                        can.Message(
                            arbitration_id=frame.id,
                            data=frame.data,
                            is_extended_id=False,
                            is_fd=wire.speaks_fd,
                        )
                    )

    # ------------------------------------------------------------ the room

    def _do(self, wish: dict[str, Any], visitor: Visitor) -> dict[str, Any]:
        arm = self.arm
        for verb, value in wish.items():
            if verb == "faults":  # {"right": {"silent": 4}, ...}
                for side, changes in value.items():
                    self.fault(_side(side), **changes)
            elif verb == "lay":
                self._lay(int(value))
            elif verb == "put":
                arm.put(np.clip(value, *arm.kinematics.ranges.T))
            elif verb == "let_go":
                arm.let_go()
            elif verb == "forget":
                arm.witness = type(arm.witness)()
            elif verb == "power":  # {"right": false}, or both at once
                sides = (
                    value if isinstance(value, dict) else dict.fromkeys(SIDES, value)
                )
                for side, on in sides.items():
                    self.fault(_side(side), no_power=not on)
            elif verb == "watch":
                height, width = value["size"]
                size = int(height), int(width)
                for camera in value["cameras"]:
                    self._picture(camera, size)  # refuses one that there is not
                visitor.watch(value["cameras"], size, value["fps"])
            elif verb == "follow":
                visitor.follow(float(value))
            elif verb == "play":  # rows of states (T, 16), so many a second
                rows, rate = value
                arm.carry(np.asarray(rows, float), float(rate))
            elif verb == "stop":
                self.stopped = True
            elif verb != "look":
                raise UserError(f"the room knows no '{verb}'")
        motors = [motor for side in arm.motors for motor in side]
        return {
            "success": bool(self.scene.success),
            "joints": arm.state.tolist(),
            "objects": self._objects(),
            "state": arm.data.qpos.tolist(),
            "torque": [motor.status is Status.ENABLED for motor in motors],
            "status": [motor.status.words() for motor in motors],
            "witness": arm.witness.to_json(),
            "time": self._time.now(),
        }

    def fault(self, side: int, **switches: Any) -> None:
        """Turn fault switches of one arm's bus; see `wire.Faults`."""
        wire = self.wires[side]
        wire.faults.set(switches)
        wire.apply_faults()
        self.arm.power(side, not wire.faults.no_power)

    def _lay(self, number: int) -> None:
        """Lay the objects as in this start; the arms stay where they are."""
        qpos = self.scene.lay(number)
        if qpos is None:
            raise UserError("the scene 'alone' has no objects to lay")
        self.arm.lay(qpos)

    def _objects(self) -> list[float]:
        """As a policy knows them: position (m) and quaternion (wxyz) of each."""
        return self.scene.places(self.arm.data.qpos)

    def _picture(self, camera: str, size: tuple[int, int]) -> np.ndarray:
        """With some noise of a sensor: no real picture comes twice."""
        picture = self.scene.picture(camera, size, self.arm.data.qpos)
        noisy = self._noise.integers(0, picture.size, picture.size // 100)
        flat = picture.reshape(-1)  # a view: the renderer gave a copy of its own
        flat[noisy] += flat[noisy] < 255
        return picture


def assemble(config: VirtualOpenArmConfig, scene: Scene) -> VirtualOpenArm:
    """Both arms in their scene, with their motors set as the configuration says."""
    rng = np.random.default_rng([config.seed, 200])
    zeros = None if config.zeroed else rng.uniform(-np.pi, np.pi, 16)
    arm = VirtualOpenArm(
        scene.model, zeros=zeros, table=scene.table, leader=config.leader
    )
    if config.light_wrist:
        for motors in arm.motors:
            motors[6].type = DM3507
            motors[6].reset_registers()
    if config.newer:
        for motors in arm.motors:
            for motor in motors:
                if motor.type.name == "DM4340":
                    motor.poke("VMAX", NEWER_DM4340.velocity)
                    motor.saved = dict(motor.memory)
    qpos = scene.lay(config.number)
    if qpos is not None:
        arm.lay(qpos)
    limits = openarm_limits(table=scene.table)
    if config.leader:
        arm.put(limits.ready)
    elif scene.table is not None:
        arm.put(limits.rest, hold=False)
    return arm


def _expect_free(port: Path) -> None:
    """Raises UserError where another virtual arm runs, or somebody's file is."""
    if is_served(port):
        raise UserError(
            f"{port} is there already, another virtual arm runs on it: end that, or "
            "choose another --port"
        )
    if port.exists() and not read_plug(port).is_virtual:  # else of one that was killed
        raise UserError(f"{port} names the buses of real arms; choose another --port")


def virtual_openarm(
    port: Path, scene: str = ALONE, *, leader: bool = False, number: int = 0
) -> VirtualOpenArmConfig:
    """A virtual OpenArm on buses that no other one has."""
    right, left = free_channels()
    return VirtualOpenArmConfig(
        port, right, left, scene=scene, leader=leader, number=number
    )


def _side(name: str) -> int:
    if name not in SIDES:
        raise UserError(f"the side is '{name}', expected: {' or '.join(SIDES)}")
    return SIDES.index(name)


def _number(bus: Any) -> int:
    with contextlib.suppress(NotImplementedError):
        return bus.fileno()
    return -1


def serve(config: VirtualOpenArmConfig) -> None:
    """Run a virtual OpenArm until Ctrl-C, or until its room is told to stop."""
    with contextlib.suppress(OSError):  # where it may: motors never wait for a CPU
        os.nice(-10)
    serve_until_ended(
        lambda: VirtualOpenArmService(config),
        f"a virtual OpenArm{' leader' if config.leader else ''} is at {config.port} "
        f"({config.right},{config.left}); Ctrl-C unplugs it",
    )
