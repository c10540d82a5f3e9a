"""Which arm, on which port, with which cameras: one set of flags for every command."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import tyro

from act_minimal.errors import SettingError

from .cameras import parse_cameras
from .safety import EmergencyStop, SafeRobot, so100_limits

VIRTUAL = "virtual"  # as a port: plug in a virtual arm for as long as the command runs


@dataclass(frozen=True)
class RobotConfig:
    """An arm as it is plugged in."""

    port: str
    """Serial port of its bus; `act ports` finds it. 'virtual' plugs in a virtual arm
    for as long as the command runs."""
    robot: Literal["so100", "so101"] = "so100"
    """Which arm; one driver for both."""
    calibration: Path = Path("calibration.json")
    """Its calibration file, ours or LeRobot's."""
    cameras: Annotated[
        tuple[str, ...],
        tyro.conf.arg(
            help="name=source, such as top=0 wrist=/dev/video2; virtual:PORT is a "
            "virtual arm's. Fixed settings follow: top=0,exposure=150,"
            "white_balance=4600,rotate=180."
        ),
    ] = ()


@contextmanager
def plugged_in(config: RobotConfig) -> Iterator[RobotConfig]:
    """The same settings, with a real port in place of 'virtual'."""
    if config.port != VIRTUAL:
        yield config
        return
    if config.robot != "so100":
        raise SettingError(f"the virtual arm is a so100, not a {config.robot}")
    from .so100.calibration import save_calibration
    from .so100.emulator.room import VirtualArmProcess
    from .so100.emulator.service import VirtualArmConfig, assemble

    with tempfile.TemporaryDirectory() as folder:
        arm = VirtualArmConfig(Path(folder) / "arm")
        calibration = Path(folder) / "arm.json"
        save_calibration(calibration, assemble(arm)[1])
        with VirtualArmProcess(arm) as process:
            cameras = config.cameras or ("top", "wrist")
            yield replace(
                config,
                port=process.port,
                calibration=calibration,
                cameras=tuple(
                    f"{c.partition('=')[0]}=virtual:{process.port}" for c in cameras
                ),
            )


def make_robot(
    config: RobotConfig,
    size: tuple[int, int],
    stop: EmergencyStop,
    log: Path | None = None,
) -> SafeRobot:
    """The arm behind its limits, not yet connected.

    Args:
        config: which arm; `port` names a real one.
        size: (H, W) of the pictures.
        stop: its emergency stop.
        log: file for interventions.
    """
    from .so100.arm import SO100, SO100Config

    eyes = parse_cameras(config.cameras, size)
    arm = SO100(SO100Config(config.port, config.calibration, config.robot), eyes)
    return SafeRobot(arm, so100_limits(config.robot), log, stop)
