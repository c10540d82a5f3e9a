"""A look, a zero and a first movement: `python -m hardware.openarm look`."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import tyro

from act_minimal.support.console import prepare_output
from act_minimal.support.errors import UserError

from ..driver import opened
from ..safety.keys import ask
from ..safety.safe_robot import SafeRobot
from ..safety.stop import EmergencyStop
from .arm import OpenArm, OpenArmConfig
from .bus import VIRTUAL_LEFT, VIRTUAL_RIGHT, Bus
from .limits import openarm_limits
from .model import gravity_of, load_alone
from .motors import SIDES
from .setup import look, set_zero


@dataclass
class Buses:
    """Where both arms are."""

    right: str = "can0"
    """The right arm's bus; see hardware/openarm/bus.py for what there is."""
    left: str = "can1"
    """The left arm's."""
    fd: bool = True
    """Speak CAN-FD."""


@dataclass
class Look(Buses):
    """How every motor is; nothing moves."""

    def run(self) -> None:
        for side, channel in zip(SIDES, (self.right, self.left), strict=True):
            with opened(Bus(channel, fd=self.fd, side=side)) as bus:
                print(f"{side} arm, {channel}")
                for one in look(bus):
                    print(f"  {one}")


@dataclass
class Zero:
    """Tell the motors of one arm that they stand at 0; torque goes off."""

    channel: str
    """The arm's bus."""
    side: Literal["right", "left"]
    """Which arm that is."""
    fd: bool = True
    """Speak CAN-FD."""

    def run(self) -> None:
        with opened(Bus(self.channel, fd=self.fd, side=self.side)) as bus:
            set_zero(bus, ask)


@dataclass
class Move(Buses):
    """A first movement: forearms slowly forwards, a while there, and down again."""

    gains: Literal["gentle", "firm"] = "gentle"
    """gentle at first; firm is what policies are run with."""
    table: float | None = None
    """Height of the table's top over the pedestal's ground, m; without it there has to
    be nothing below the hands."""
    seconds: float = 3.0
    """To stay there."""

    def run(self) -> None:
        config = OpenArmConfig(self.right, self.left, fd=self.fd, gains=self.gains)
        arm = OpenArm(config)
        arm.gravity = gravity_of(load_alone(), arm.kinematics)
        limits = openarm_limits(config.version, self.table)
        with EmergencyStop() as stop:
            robot = SafeRobot(arm, limits, None, stop)
            robot.connect()
            try:
                robot.go(limits.ready)
                for _ in range(round(self.seconds * robot.fps)):
                    robot.observe()
                    robot.act(limits.ready[None])
                state = robot.observe()["qpos"][0]
                far = float(np.abs(state - limits.ready).max())
                print(f"there, {far:.3f} rad off at most; laying the arms down")
            finally:
                robot.close()


@dataclass
class Virtual:
    """Two virtual arms, on buses like real ones; Ctrl-C unplugs them."""

    port: Path = Path("virtual_openarm")
    """Its name; its scene's socket is beside it."""
    right: str = VIRTUAL_RIGHT
    """The right arm's bus."""
    left: str = VIRTUAL_LEFT
    """The left arm's bus."""
    fd: bool = True
    """The motors speak CAN-FD; if not, classic CAN."""
    scene: str = "alone"
    """What is around the arms: alone, or a simulated task such as openarm_handover."""

    def run(self) -> None:
        from .emulator.service import VirtualOpenArmConfig, serve

        serve(
            VirtualOpenArmConfig(
                self.port, self.right, self.left, self.fd, scene=self.scene
            )
        )


def main() -> None:
    """Run one of the commands."""
    prepare_output()
    commands = {"look": Look, "zero": Zero, "move": Move, "virtual": Virtual}
    chosen = tyro.extras.subcommand_cli_from_dict(commands)
    try:
        chosen.run()
    except UserError as error:
        sys.exit(f"{error}")


if __name__ == "__main__":
    main()
