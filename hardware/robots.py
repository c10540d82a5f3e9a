"""Which arm, on which port, with which cameras: one set of flags for every command."""

import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from act_minimal.support.errors import SettingError
from act_minimal.support.plugins import load_class
from act_minimal.support.validation import (
    CLASS_PATH,
    Bounds,
    ClassPath,
    Positive,
    check_settings,
)

from .cameras import (
    USUAL_SIZE,
    VIRTUAL_CAMERA,
    Camera,
    CameraConfig,
    StreamCamera,
    open_opencv,
    open_own,
)
from .driver import ArmDriver
from .objects import make_tracker
from .safety.safe_robot import SafeRobot, so100_limits
from .safety.stop import EmergencyStop

VIRTUAL = "virtual"  # as a port: plug in a virtual arm for as long as the command runs
OPENARM = "openarm"
PAIR = "so100_pair"
# The simulated task that a virtual arm stands in, if nobody says otherwise; of a pair
# each arm stands in one of its own.
TASKS = {"so100": "so100_pick_place", "so101": "alone", OPENARM: "openarm_handover"}
TASKS |= {PAIR: TASKS["so100"]}
VIRTUAL_APART = 1.0  # m between the virtual arms of a pair: out of each other's reach


@dataclass(frozen=True)
class RobotConfig:
    """An arm as it is plugged in."""

    port: str
    """Serial port of its bus; `act ports` finds it. For OpenArms two buses, the right
    arm's first, such as can0,can1, or a file that names them; for so100_pair two ports,
    the left arm's first, as seen from behind the bases. 'virtual' plugs in a virtual
    arm for as long as the command runs."""
    robot: Literal["so100", "so101", "openarm", "so100_pair"] | ClassPath = "so100"
    """Which arm; one of your own as module:Class."""
    fps: Positive | None = None
    """Control ticks a second; without this 30, OpenArm 50. A policy whose card names
    another rate is refused, unless this says at which it shall drive."""
    calibration: Path = Path("calibration.json")
    """Its calibration file, ours or LeRobot's; a pair's are called so with _left and
    _right at the end. OpenArms keep their zero themselves."""
    cameras: Annotated[
        tuple[str, ...],
        tyro.conf.arg(
            help="name=source, such as top=0 wrist=/dev/video2; virtual:PORT is a "
            "virtual arm's, module:Class one of your own. Fixed settings follow: "
            "top=0,exposure=150,white_balance=4600,rotate=180."
        ),
    ] = ()
    objects: str | None = None
    """Who knows where the objects are, for policies without cameras: virtual:PORT, the
    scene of a virtual arm, in place of a motion tracker; of two virtual:LEFT,RIGHT."""
    apart: Annotated[float, Bounds(0.2, 3)] | None = None
    """so100_pair: m between the axes about which the two shoulders turn, so that the
    arms are kept from each other."""
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
    if ":" in config.robot:
        raise SettingError(
            f"port is '{VIRTUAL}', but there is no virtual {config.robot}; expected "
            "the port of a real one"
        )
    task = task or TASKS[config.robot]
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        processes = [
            stack.enter_context(process)
            for process in virtual_arms(
                config.robot,
                Path(folder) / "arm",
                task,
                scene,
                calibration=Path(folder) / "arm.json",
            )
        ]
        ports = ",".join(process.port for process in processes)
        told = config.objects or (config.robot == OPENARM and task != "alone")
        yield replace(
            config,
            port=ports,
            calibration=Path(folder) / "arm.json",
            cameras=_virtual_cameras(config, [process.port for process in processes]),
            objects=f"virtual:{ports}" if told else None,
            apart=(config.apart or VIRTUAL_APART) if config.robot == PAIR else None,
        )


def _virtual_cameras(config: RobotConfig, ports: list[str]) -> tuple[str, ...]:
    """Cameras by name, in the virtual arms at these ports; all where none is named."""
    names = tuple(word.partition("=")[0] for word in config.cameras)
    if config.robot != PAIR:
        names = names or (("top", "wrist") if config.robot != OPENARM else ())
        return tuple(f"{name}=virtual:{ports[0]}" for name in names)
    sources = {
        f"{side}_{name}": f"{side}_{name}=virtual:{port}#{name}"
        for side, port in zip(("left", "right"), ports, strict=True)
        for name in ("top", "wrist")
    }
    if unknown := [name for name in names if name not in sources]:
        raise SettingError(
            f"camera '{unknown[0]}': a virtual {PAIR} has {', '.join(sources)}"
        )
    return tuple(sources[name] for name in names or sources)


def virtual_arms(
    robot: str,
    port: Path,
    task: str,
    scene: int = 0,
    *,
    leader: bool = False,
    seed: int = 0,
    calibration: Path | None = None,
) -> list[Any]:
    """Virtual arms in processes of their own, not yet started; of a pair two.

    Args:
        robot: which arm.
        port: its name; of a pair, with _left and _right at the end.
        task: the scene that each stands in.
        scene: number of its start.
        leader: leader arms.
        seed: how the servos of a SO-100 are mounted.
        calibration: written for arms with servos, if given.
    """
    from .virtual.client import OTHER_SCENES, VirtualArmProcess

    if robot == OPENARM:
        from .openarm.emulator.service import virtual_openarm

        config = virtual_openarm(port, task, leader=leader, number=scene)
        return [VirtualArmProcess(config)]
    from .so100.calibration import save_calibration
    from .so100.emulator.service import VirtualArmConfig, assemble
    from .so100.pair import SIDES, of_side

    arms = [(port, calibration)]
    if robot == PAIR:
        arms = [
            (of_side(port, side), calibration and of_side(calibration, side))
            for side in SIDES
        ]
    processes = []
    for number, (place, file) in enumerate(arms):
        config = VirtualArmConfig(
            place,
            task,
            scene + number * OTHER_SCENES,
            leader,
            seed=seed + number,
            robot="so100" if robot == PAIR else robot,
        )
        if file:
            save_calibration(file, assemble(config)[1])
        processes.append(VirtualArmProcess(config))
    return processes


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
    if config.apart is not None and config.robot in ("so100", "so101", OPENARM):
        raise SettingError(f"apart is of a {PAIR}, and robot is '{config.robot}'")
    cameras = parse_cameras(config.cameras, size)
    tracker = make_tracker(config.objects) if config.objects else None
    if ":" in config.robot:
        arm = own_arm(config, cameras)
        return SafeRobot(arm, arm.limits, log, stop, tracker)
    if config.robot == OPENARM:
        from .openarm.limits import openarm_limits

        arm, table = make_openarm(config, cameras)
        limits = openarm_limits(config.version, table)
    elif config.robot == PAIR:
        arm, limits = make_pair(config, cameras)
    else:
        from .so100.arm import SO100, SO100Config

        model = "so101" if config.robot == "so101" else "so100"
        settings = SO100Config(config.port, config.calibration, model)
        if config.fps is not None:
            settings = replace(settings, fps=config.fps)
        arm, limits = SO100(settings, cameras), so100_limits(model)
    return SafeRobot(arm, limits, log, stop, tracker)


def own_arm(config: RobotConfig, cameras: dict[str, Any]) -> Any:
    """An arm of the user's own, as module:Class, without limits.

    Raises:
        SettingError: there is no such class, or it is no driver.
    """
    own: Any = load_class(config.robot, ("limits", "name", "joints", "action_dim"))
    if ArmDriver not in own.__mro__:
        raise SettingError(
            f"{config.robot} is no hardware.driver.ArmDriver; see "
            "docs/bring_your_own.md"
        )
    methods = ("start", "measure", "send", "disable")
    if missing := [m for m in methods if getattr(own, m) is getattr(ArmDriver, m)]:
        raise SettingError(
            f"{config.robot} lacks {', '.join(missing)}; see docs/bring_your_own.md"
        )
    arm: Any = own(config, cameras)
    for key, entries in (("joints", arm.joints), ("limits.low", arm.limits.low)):
        if len(entries) != arm.action_dim:
            raise SettingError(
                f"{config.robot}: {key} has {len(entries)} entries, expected its "
                f"action_dim, {arm.action_dim}"
            )
    limits, guard = arm.limits, arm.limits.guard
    for name in ("ready", "rest"):
        pose = getattr(limits, name)
        if not guard.clearance(pose, limits.box_low, limits.box_high).min() >= 0:
            raise SettingError(
                f"{config.robot}: limits.{name} is a pose in which its boxes are too "
                "near each other or outside box_low to box_high"
            )
    return arm


def make_pair(config: RobotConfig, cameras: dict[str, Any] | None = None) -> Any:
    """Two SO-100 without limits, and the limits.

    Raises:
        SettingError: there are not two ports, or nobody said how far they are apart.
    """
    from .so100.arm import SO100Config
    from .so100.pair import SIDES, SO100Pair, of_side, pair_limits

    if config.apart is None:
        raise SettingError(
            "apart is not given: measure how many m the left and the right arm's "
            "shoulders stand apart, as in --apart 0.5"
        )
    left, right = (
        SO100Config(
            port, of_side(config.calibration, side), fps=config.fps or SO100Config.fps
        )
        for port, side in zip(two_ports(config.port), SIDES, strict=True)
    )
    return SO100Pair(left, right, cameras), pair_limits(config.apart)


def two_ports(port: str, flag: str = "port") -> list[str]:
    """The left and the right arm's port of "left,right".

    Raises:
        SettingError: these are not two different ones.
    """
    ports = port.split(",")
    if len(ports) != 2 or "" in ports or len(set(ports)) != 2:
        raise SettingError(
            f"{flag} is '{port}', expected the left arm's and the right arm's, such as "
            "/dev/ttyACM0,/dev/ttyACM1"
        )
    return ports


def make_openarm(
    config: RobotConfig, cameras: dict[str, Any] | None = None, flag: str = "port"
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
    arm = OpenArm(settings, cameras)
    if config.version == "v2":
        arm.gravity = gravity_of(load_alone(), arm.kinematics)
    return arm, plug.table if config.table is None else config.table


# ---------------------------------------------------------------- cameras


def make_camera(name: str, config: CameraConfig) -> StreamCamera:
    """A camera by its source."""
    if config.source.startswith(VIRTUAL_CAMERA):
        from .virtual.client import open_virtual_camera

        return StreamCamera(name, config, lambda c: open_virtual_camera(name, c))
    if re.fullmatch(CLASS_PATH, config.source):
        return StreamCamera(name, config, lambda c: open_own(c.source, c))
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
