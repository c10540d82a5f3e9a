"""Two virtual OpenArms on two CAN buses; see `virtual.service`."""

import contextlib
import functools
import selectors
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from act_minimal.sim import make_task
from act_minimal.sim.openarm.table import TABLE, BimanualTask
from act_minimal.support.errors import SettingError, UserError
from act_minimal.support.extras import require
from act_minimal.support.validation import Whole

require("arms")

import can  # noqa: E402

from ...clock import clock_path  # noqa: E402
from ...virtual.scene import ALONE, VirtualScene  # noqa: E402
from ...virtual.server import is_served  # noqa: E402
from ...virtual.service import (  # noqa: E402
    VirtualConfig,
    VirtualService,
    serve_until_ended,
)
from ..bus import (  # noqa: E402
    VIRTUAL_LEFT,
    VIRTUAL_RIGHT,
    message_of,
    parse_channel,
)
from ..limits import openarm_limits  # noqa: E402
from ..model import load_alone  # noqa: E402
from ..motors import ARM_MOTORS, DM3507, NEWER_DM4340, SIDES  # noqa: E402
from ..plug import Plug, free_channels, read_plug, write_plug  # noqa: E402
from ..protocol import Frame, Status  # noqa: E402
from .arm import VirtualOpenArm  # noqa: E402
from .wire import Wire  # noqa: E402

PAUSE = 0.0003  # s between two looks at a bus that nobody can wait for
MASTERS = {motor.master for motor in ARM_MOTORS} | {0x1F}


@dataclass
class VirtualOpenArmConfig(VirtualConfig):
    """A virtual OpenArm, and where to find it."""

    port: Path = Path("virtual_openarm")
    """Its name: a file that says where its buses are. The scene's socket is beside it,
    with .scene at its end."""
    right: str = VIRTUAL_RIGHT
    """The right arm's bus; two buses need two ports of a multicast group."""
    left: str = VIRTUAL_LEFT
    """The left arm's bus."""
    fd: bool = True
    """The motors speak CAN-FD; if not, classic CAN."""
    scene: str = ALONE
    """What is around the arms: nothing, or a simulated task's scene."""
    leader: bool = False
    """Leader arms: they stay where a client of the scene puts them."""
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

    @property
    def clocks(self) -> list[Path]:
        """Where its time is kept: for clients of its scene, and those of its buses."""
        buses = [b for b in (self.right, self.left) if not b.startswith("virtual:")]
        return [clock_path(address) for address in (self.port, *buses)]


class VirtualOpenArmService(VirtualService):
    """Runs two virtual OpenArms; see `VirtualService`."""

    arm: VirtualOpenArm

    def __init__(self, config: VirtualOpenArmConfig):
        self.config = config
        scene = scene_of(config)
        arm = assemble(config, scene)
        self.wires = [
            Wire(motors, fd=config.fd, seed=config.seed + side)
            for side, motors in enumerate(arm.motors)
        ]
        self._buses: list[Any] = []
        self._polled = False  # a bus that nobody can wait for
        super().__init__(config, arm, scene)
        self.requests |= {
            "faults": self._set_faults,  # {"right": {"silent": 4}, ...}
            "lay": lambda number: arm.lay(scene.lay(int(number))),
            "put": lambda state: arm.put(np.clip(state, *arm.kinematics.ranges.T)),
            "play": lambda value: arm.play(*value),  # states (T, 16), so many a second
            "let_go": lambda _: arm.let_go(),
            "power": self._power,  # {"right": false}, or both at once
        }

    # ------------------------------------------------------------ the buses

    def open_buses(self, undo: contextlib.ExitStack) -> None:
        config = self.config
        _expect_free(config.port)
        for side, channel in enumerate((config.right, config.left)):
            try:
                bus = can.Bus(**parse_channel(channel, config.fd))
            except (can.CanError, OSError, ValueError, ImportError) as error:
                raise UserError(
                    f"the {SIDES[side]} arm's bus {channel} cannot be opened: {error}"
                ) from error
            undo.callback(bus.shutdown)
            self._buses.append(bus)
            listen = functools.partial(self._listen, side)
            try:
                self.selector.register(bus.fileno(), selectors.EVENT_READ, listen)
            except (NotImplementedError, ValueError, OSError):
                self._polled = True
        table = None if self.scene.task is None else TABLE
        write_plug(config.port, Plug(config.right, config.left, config.fd, table))
        undo.callback(self.remove_port)

    def remove_port(self) -> None:
        self.config.port.unlink(missing_ok=True)

    def wait(self, seconds: float) -> None:
        if self._polled:
            time.sleep(max(0.0, min(seconds, PAUSE)))
            self.listen()
            seconds = 0.0
        super().wait(seconds)

    def listen(self) -> None:
        for side in range(len(SIDES)):
            self._listen(side)

    def _listen(self, side: int) -> None:
        bus, wire = self._buses[side], self.wires[side]
        while (message := bus.recv(0)) is not None:
            id = message.arbitration_id
            if id in MASTERS or message.is_extended_id or message.is_error_frame:
                continue  # our own answers, which some buses show to their sender
            frame = Frame(id, bytes(message.data))
            wire.receive(frame, self.time.now(), fd=message.is_fd)

    def answer(self, now: float) -> float | None:
        for bus, wire in zip(self._buses, self.wires, strict=True):
            for frame in wire.due(now):
                with contextlib.suppress(can.CanError, OSError):  # nobody takes it
                    bus.send(message_of(frame, fd=wire.speaks_fd))
        due = [d for d in (wire.next_due() for wire in self.wires) if d is not None]
        return min(due, default=None)

    # ------------------------------------------------------------ clients

    def look(self) -> dict[str, Any]:
        status = [motor.status for side in self.arm.motors for motor in side]
        return {
            "joints": self.arm.state.tolist(),
            "torque": [one is Status.ENABLED for one in status],
            "status": [one.words() for one in status],
        }

    def fault(self, side: int, **switches: Any) -> None:
        """Turn fault switches of one arm's bus; see `wire.Faults`."""
        wire = self.wires[side]
        wire.faults.set(switches)
        wire.apply_faults()
        self.arm.power(side, not wire.faults.no_power)

    def _set_faults(self, switches: dict[str, dict[str, Any]]) -> None:
        for side, changes in switches.items():
            self.fault(_side(side), **changes)

    def _power(self, on: bool | dict[str, bool]) -> None:
        sides = on if isinstance(on, dict) else dict.fromkeys(SIDES, on)
        for side, is_on in sides.items():
            self.fault(_side(side), no_power=not is_on)


def scene_of(config: VirtualOpenArmConfig) -> VirtualScene:
    """What is around the arms; SettingError where there is no such task of them."""
    task = None if config.scene == ALONE else make_task(config.scene)
    if not (task is None or isinstance(task, BimanualTask)):
        raise SettingError(f"task is '{config.scene}', which is none of two OpenArms")
    return VirtualScene(task, config.number, config.seed)


def assemble(config: VirtualOpenArmConfig, scene: VirtualScene) -> VirtualOpenArm:
    """Both arms in their scene, with their motors set as the configuration says."""
    rng = np.random.default_rng([config.seed, 200])
    zeros = None if config.zeroed else rng.uniform(-np.pi, np.pi, 16)
    model = load_alone() if scene.task is None else scene.task.model()
    table = None if scene.task is None else TABLE
    arm = VirtualOpenArm(model, zeros=zeros, table=table, leader=config.leader)
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
    if scene.task is not None:
        arm.lay(scene.lay(config.number))
    limits = openarm_limits(table=table)
    if config.leader:
        arm.put(limits.ready)
    elif table is not None:
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


def serve(config: VirtualOpenArmConfig) -> None:
    """Run a virtual OpenArm until Ctrl-C, or until a client stops it."""
    serve_until_ended(
        lambda: VirtualOpenArmService(config),
        f"a virtual OpenArm{' leader' if config.leader else ''} is at {config.port} "
        f"({config.right},{config.left}); Ctrl-C unplugs it",
    )
