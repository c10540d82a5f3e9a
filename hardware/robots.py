"""Which arm, on which port, with which cameras: one set of flags for every command."""

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from act_minimal.support.errors import SettingError
from act_minimal.support.validation import Bounds, Positive, check_settings

from .cameras import (
    USUAL_SIZE,
    VIRTUAL_CAMERA,
    Camera,
    CameraConfig,
    StreamCamera,
    open_opencv,
)
from .objects import Tracker
from .safety.safe_robot import SafeRobot, so100_limits
from .safety.stop import EmergencyStop

VIRTUAL = "virtual"  # as a port: plug in a virtual arm for as long as the command runs
OPENARM = "openarm"
# The simulated task that a virtual arm stands in, if nobody says otherwise.
TASKS = {"so100": "so100_pick_place", "so101": "alone", OPENARM: "openarm_handover"}


@dataclass(frozen=True)
class RobotConfig:
    """An arm as it is plugged in."""

    port: str
    """Serial port of its bus; `act ports` finds it. For OpenArms two buses, the right
    arm's first, such as can0,can1, or a file that names them. 'virtual' plugs in a
    virtual arm for as long as the command runs."""
    robot: Literal["so100", "so101", "openarm"] = "so100"
    """Which arm."""
    fps: Positive | None = None
    """Control ticks a second; without this 30, OpenArm 50. A policy whose card names
    another rate is refused, unless this says at which it shall drive."""
    calibration: Path = Path("calibration.json")
    """Its calibration file, ours or LeRobot's; OpenArms keep their zero themselves."""
    cameras: Annotated[
        tuple[str, ...],
        tyro.conf.arg(
            help="name=source, such as top=0 wrist=/dev/video2; virtual:PORT is a "
            "virtual arm's. Fixed settings follow: top=0,exposure=150,"
            "white_balance=4600,rotate=180."
        ),
    ] = ()
    objects: str | None = None
    """Who knows where the objects are, for policies without cameras: virtual:PORT, the
    scene of a virtual arm, in place of a motion tracker."""
    fd: bool | None = None
    """OpenArm: speak CAN-FD, or not; without this as its port says, or CAN-FD."""
    table: Annotated[float, Bounds(-1, 2)] | None = None
    """OpenArm: height of the table's top over the pedestal's ground, m; without this
    as its port says, or there is none."""
    gains: Literal["firm", "gentle"] = "firm"
    """OpenArm: firm for policies, gentle for first movements."""
    version: Literal["v2", "v1"] = "v2"
    """OpenArm: which. v1 gets no help against gravity: its model is not at hand."""

    def __post_init__(self) -> None:
        """Refuses what cannot be meant, in what is made of this too."""
        check_settings(self)


@contextmanager
def plugged_in(
    config: RobotConfig, task: str | None = None, scene: int = 0
) -> Iterator[RobotConfig]:
    """The same settings, with a real port in place of 'virtual'.

    Args:
        config: which arm.
        task: the scene that a virtual arm stands in; by default the arm's usual one.
        scene: number of its start.

    Raises:
        SettingError: there is no such virtual arm.
    """
    if config.port != VIRTUAL:
        yield config
        return
    if config.robot == OPENARM and config.version != "v2":
        raise SettingError(f"a virtual OpenArm is a v2, not a {config.version}")
    task = task or TASKS[config.robot]
    with (
        tempfile.TemporaryDirectory() as folder,
        _process(config.robot, Path(folder) / "arm", task, scene) as process,
    ):
        here = f"virtual:{process.port}"
        cameras = config.cameras or (
            ("top", "wrist") if config.robot != OPENARM else ()
        )
        told = config.objects or _has_objects(config.robot, task)
        yield replace(
            config,
            port=process.port,
            calibration=Path(folder) / "arm.json",
            cameras=tuple(f"{c.partition('=')[0]}={here}" for c in cameras),
            objects=here if told else None,
        )


def _has_objects(robot: str, task: str) -> bool:
    """Whether a policy without cameras is told of what lies in the scene."""
    return robot == OPENARM and task != "alone"


def _process(robot: str, port: Path, task: str, scene: int) -> Any:
    """A virtual arm in a process of its own, not yet started."""
    from .virtual.client import VirtualArmProcess

    if robot == OPENARM:
        from .openarm.emulator.service import virtual_openarm

        return VirtualArmProcess(virtual_openarm(port, task, number=scene))
    from .so100.calibration import save_calibration
    from .so100.emulator.service import VirtualArmConfig, assemble

    arm = VirtualArmConfig(port, task, scene, robot=robot)
    save_calibration(port.with_suffix(".json"), assemble(arm)[1])
    return VirtualArmProcess(arm)


def make_robot(
    config: RobotConfig,
    size: tuple[int, int] | Mapping[str, tuple[int, int]],
    stop: EmergencyStop,
    log: Path | None = None,
) -> SafeRobot:
    """The arm behind its limits, not yet connected.

    Args:
        config: which arm; `port` names a real one.
        size: (H, W) of the pictures, or one such pair by camera; a camera that is not
            in it has the usual size.
        stop: its emergency stop.
        log: file for interventions.

    Raises:
        SettingError: the port or a camera is not as expected.
    """
    eyes = parse_cameras(config.cameras, size)
    tracker = Tracker(config.objects) if config.objects else None
    if config.robot == OPENARM:
        from .openarm.limits import openarm_limits

        arm, table = make_openarm(config, eyes)
        limits = openarm_limits(config.version, table)
    else:
        from .so100.arm import SO100, SO100Config

        settings = SO100Config(config.port, config.calibration, config.robot)
        if config.fps is not None:
            settings = replace(settings, fps=config.fps)
        arm, limits = SO100(settings, eyes), so100_limits(config.robot)
    return SafeRobot(arm, limits, log, stop, tracker)


def make_openarm(
    config: RobotConfig, eyes: dict[str, Any] | None = None, flag: str = "port"
) -> tuple[Any, float | None]:
    """Two OpenArms without limits, and the height of their table."""
    from .openarm.arm import OpenArm, OpenArmConfig
    from .openarm.model import gravity_of, load_alone
    from .openarm.plug import find_plug

    plug = find_plug(config.port, flag)
    settings = OpenArmConfig(
        plug.right,
        plug.left,
        fd=plug.fd if config.fd is None else config.fd,
        version=config.version,
        gains=config.gains,
    )
    if config.fps is not None:
        settings = replace(settings, fps=config.fps)
    arm = OpenArm(settings, eyes)
    if config.version == "v2":
        arm.gravity = gravity_of(load_alone(), arm.kinematics)
    return arm, plug.table if config.table is None else config.table


# ---------------------------------------------------------------- cameras


def make_camera(name: str, config: CameraConfig) -> StreamCamera:
    """A camera by its source."""
    if config.source.startswith(VIRTUAL_CAMERA):
        from .virtual.client import open_virtual_camera

        return StreamCamera(name, config, lambda c: open_virtual_camera(name, c))
    return StreamCamera(name, config, open_opencv)


def parse_cameras(
    words: tuple[str, ...], size: tuple[int, int] | Mapping[str, tuple[int, int]]
) -> dict[str, Camera]:
    """Cameras from lines like ``top=0`` or ``wrist=/dev/video2,exposure=150``.

    Args:
        words: the lines.
        size: (H, W) of the pictures, or one such pair by camera; a camera that is not
            in it has the usual size.

    Raises:
        SettingError: a line is not name=source, a name comes twice, or a setting is
            not known or no number.
    """
    cameras: dict[str, Camera] = {}
    for word in words:
        first, *more = word.split(",")
        name, equals, source = first.partition("=")
        if not (name and equals and source) or name in cameras:
            raise SettingError(
                f"camera '{word}': expected name=source with each name once, such as "
                "top=0 wrist=/dev/video2"
            )
        fixed = dict(_setting(word, setting) for setting in more)
        of_this = size.get(name, USUAL_SIZE) if isinstance(size, Mapping) else size
        try:
            config = CameraConfig(source, size=of_this, **fixed)
        except SettingError as error:
            raise SettingError(f"camera '{word}': {error}") from None
        cameras[name] = make_camera(name, config)
    return cameras


def _setting(word: str, setting: str) -> tuple[str, Any]:
    key, _, value = setting.partition("=")
    kinds = {"exposure": float, "white_balance": float, "fps": float, "rotate": int}
    try:
        return key, kinds[key](value)
    except (KeyError, ValueError):
        raise SettingError(
            f"camera '{word}': '{setting}' is no setting, expected one of "
            f"{', '.join(kinds)}, with a number, such as exposure=150"
        ) from None
