"""The commands of `act` that touch an arm, real or virtual.

`act virtual` stands in for the arm in every one of them: only the port differs.
"""

import contextlib
import json as jsonlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro

from act_minimal.errors import SettingError
from act_minimal.execution import ExecutionConfig

from .robots import VIRTUAL, RobotConfig

Json = Annotated[bool, tyro.conf.arg(help="Print JSON, for machines.")]
Port = Annotated[
    str, tyro.conf.arg(help="Serial port of the arm's bus; `act ports` finds it.")
]
Calibrated = Annotated[
    Path, tyro.conf.arg(help="The arm's calibration file, ours or LeRobot's.")
]
Live = Annotated[
    int,
    tyro.conf.arg(
        help="Port of a web page with the cameras' pictures; 0: a free one, -1: none."
    ),
]


def virtual(
    port: Path = Path("virtual_so100"),
    calibration: Path | None = None,
    task: str = "so100_pick_place",
    scene: int = 0,
    leader: bool = False,
    fresh: bool = False,
    seed: int = 0,
) -> int:
    """Plug in a virtual SO-100: six servos that speak the real bytes, on real physics.

    The port is a link that every other command takes for a serial port.

    $ act virtual --calibration virtual_so100.json
    $ act virtual --port leader --leader

    Args:
        port: Where the link shall be.
        calibration: Also write the arm's calibration file there.
        task: The scene that it stands in.
        scene: Number of the scene's start.
        leader: A leader arm, to be moved by hand through its room.
        fresh: As from the factory: all servos have id 1, none is plugged in.
        seed: How the servos are mounted.
    """
    from .so100.calibration import save_calibration
    from .so100.emulator.service import VirtualArmConfig, assemble, serve

    config = VirtualArmConfig(port, task, scene, leader, fresh, seed)
    if calibration:
        save_calibration(calibration, assemble(config)[1])
    serve(config)
    return 0


def ports(json: Json = False) -> int:
    """The serial ports that are here, and how to tell which one is the arm's.

    $ act ports
    """
    from act_minimal.devices import find_serial_ports

    found = [str(p) for p in find_serial_ports()]
    if json:
        _print({"ports": found})
        return 0
    for line in found or ["no serial port over USB is here"]:
        print(line)
    print("unplug the arm and ask again: the port that is gone is the arm's")
    return 0


def cameras(thumbnails: Path | None = None, json: Json = False) -> int:
    """The cameras that are plugged in, and what each of them sees.

    $ act cameras --thumbnails cameras

    Args:
        thumbnails: Also write a picture of each into this folder.
    """
    from act_minimal.devices import find_cameras

    rows = []
    for device in find_cameras():
        row: dict[str, Any] = {"path": str(device.path), "name": device.name}
        row["size"] = device.size
        if thumbnails and device.size:
            row["picture"] = str(_thumbnail(device.path, thumbnails))
        rows.append(row)
    if json:
        _print({"cameras": rows})
        return 0
    for row in rows:
        size = f"{row['size'][0]} x {row['size'][1]}" if row["size"] else "no picture"
        print(f"{row['path']}: {row['name']}, {size} {row.get('picture', '')}".rstrip())
    if not rows:
        print("no camera is plugged in")
    return 0


def _thumbnail(device: Path, folder: Path) -> Path:
    import cv2

    from .cameras import CameraConfig, make_camera

    camera = make_camera(device.name, CameraConfig(str(device), size=(240, 320)))
    camera.open()
    image = camera.read().image
    camera.close()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{device.name}.png"
    cv2.imwrite(str(path), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    return path


def setup(port: Port) -> int:
    """Give six new servos their ids, one at a time, gripper first.

    $ act setup --port /dev/ttyACM0
    """
    from .so100.bus import Bus
    from .so100.setup import assign_ids

    bus = Bus(port)
    bus.open()
    try:
        assign_ids(bus, input, print)
    finally:
        bus.close()
    return 0


def calibrate(
    port: Port,
    calibration: Calibrated = Path("calibration.json"),
    restore: bool = False,
) -> int:
    """Tie the servos' steps to the joints' angles; nothing moves by itself.

    Hold the arm at its middle, then move every joint from end to end by hand. The file
    is LeRobot's, so that an arm calibrated there needs only --restore, or nothing.

    $ act calibrate --port /dev/ttyACM0 --calibration follower.json
    $ act calibrate --port /dev/ttyACM0 --calibration follower.json --restore

    Args:
        restore: Do not calibrate: write the file into the servos.
    """
    from .keys import Keys
    from .so100 import setup
    from .so100.arm import IDS, check_servos
    from .so100.bus import Bus
    from .so100.calibration import load_calibration, save_calibration
    from .so100.kinematics import JOINTS

    bus = Bus(port, names=dict(zip(IDS, JOINTS, strict=True)))
    bus.open()
    try:
        check_servos(bus)
        if restore:
            setup.restore(bus, load_calibration(calibration))
            print(f"{calibration} is written into the servos")
            return 0
        with Keys() as keys:
            found = setup.calibrate(
                bus,
                input,
                print,
                moving=lambda: not keys.pressed(),
            )
        save_calibration(calibration, found)
        print(f"{calibration} is written; the servos hold it too")
    finally:
        bus.close()
    return 0


def health(port: Port, json: Json = False) -> int:
    """What each servo says of itself: voltage, temperature, load, firmware, faults.

    Exits with 1 if one is silent or complains.

    $ act health --port /dev/ttyACM0
    """
    from .so100.arm import IDS
    from .so100.bus import Bus
    from .so100.kinematics import JOINTS
    from .so100.setup import health as look

    bus = Bus(port, names=dict(zip(IDS, JOINTS, strict=True)))
    bus.open()
    try:
        rows = look(bus)
    finally:
        bus.close()
    if json:
        _print({"servos": rows})
    else:
        for row in rows:
            if row["fault"] == "silent":
                print(f"{row['id']} {row['joint']}: silent")
                continue
            print(
                f"{row['id']} {row['joint']}: {row['volts']:.1f} V, "
                f"{row['celsius']} °C, load {100 * row['load']:.0f} %, firmware "
                f"{row['firmware']}, position {row['position']}, torque "
                f"{'on' if row['torque'] else 'off'}, fault: {row['fault']}"
            )
    return 0 if all(row["fault"] == "none" for row in rows) else 1


@dataclass(frozen=True)
class DeployConfig(RobotConfig):
    """Which policy drives which arm, and how often it is tried."""

    policy: Path = Path("runs/real")
    """A checkpoint folder, or a training run."""
    trials: int = 10
    """How many in all; those in --out count."""
    seconds: float = 20.0
    """A trial lasts at most so long."""
    execution: ExecutionConfig = field(default_factory=ExecutionConfig)
    dry_run: bool = False
    """Only look and predict; send nothing, and say what the policy would do."""
    out: Path = Path("runs/deploy")
    """Tally and log of interventions; a second call goes on."""
    scenes: int | None = None
    """For a virtual arm: lay evaluation scenes of this seed, and let it judge."""
    live: Live = 0
    threads: int = 1
    """CPU threads of the policy; one is steadier on a busy machine."""


def deploy(config: tyro.conf.OmitArgPrefixes[DeployConfig], json: Json = False) -> int:
    """Let a policy drive an arm, trial by trial, and keep the tally.

    Begin with --dry-run. Space or Ctrl-C stops the arm; it then goes slowly to its rest
    pose. Success or failure is asked after each trial; s ends a trial early.

    $ act deploy --policy runs/vision --port /dev/ttyACM0 --cameras top=0 wrist=2 \
          --dry-run
    $ act deploy --policy runs/vision --port /dev/ttyACM0 --cameras top=0 wrist=2
    """
    import torch

    from act_minimal.checkpoint import find_checkpoint
    from act_minimal.policy import load_policy

    from .deployment import check_fit, dry_run
    from .deployment import deploy as run_trials
    from .keys import Keys
    from .robots import make_robot, plugged_in
    from .safety import EmergencyStop

    torch.set_num_threads(config.threads)
    policy = load_policy(find_checkpoint(config.policy))
    height, width = policy.config.image_size
    say = (lambda text: None) if json else print
    log = config.out / "interventions.jsonl"
    with EmergencyStop() as stop, Keys() as keys, plugged_in(config) as here:
        robot = make_robot(here, (height, width), stop, log)
        check_fit(policy, robot)
        with contextlib.ExitStack() as last:
            robot.connect()
            last.callback(robot.close)
            _look_on(last, robot, config.live, say)
            if config.dry_run:
                robot.go(robot.limits.ready)
                report = dry_run(policy, robot, config.execution)
                _print(report) if json else _say_dry_run(report, robot.fps)
                return 0
            tally = run_trials(
                policy,
                robot,
                _judge(config, here.port, keys, stop, last),
                execution=config.execution,
                trials=config.trials,
                seconds=config.seconds,
                out=config.out,
                say=say,
            )
    if json:
        _print(tally.to_json() | {"interventions": dict(robot.interventions.counts)})
    else:
        print(f"interventions: {dict(robot.interventions.counts) or 'none'}")
    return 0


def _judge(
    config: DeployConfig, port: str, keys: Any, stop: Any, last: contextlib.ExitStack
) -> Any:
    """Whoever lays the objects and says how a trial went: a person, or the room."""
    from act_minimal.evaluation import evaluation_scenes

    from .deployment import RoomJudge

    if config.scenes is None and config.port != VIRTUAL:
        from .person import Judging

        return Judging(keys, stop)
    scenes = evaluation_scenes(config.scenes or 0, config.trials)
    judge = RoomJudge(port, scenes)
    last.callback(judge.close)
    return judge


def _look_on(
    last: contextlib.ExitStack, robot: Any, port: int, say: Callable[[str], Any]
) -> None:
    """Open the live view, if there are cameras and it is wanted."""
    if port < 0 or not robot.arm.sources:
        return
    from .live import LiveView

    def said() -> dict[str, Any]:
        timing = robot.arm.ticker.report()
        return {k: round(v, 2) for k, v in timing.items()} | {
            "interventions": dict(robot.interventions.counts)
        }

    view = last.enter_context(LiveView(robot.arm.sources, said, port))
    say(f"what the cameras see: {view.address}")


def _say_dry_run(report: dict[str, Any], fps: float) -> None:
    ms = report["prediction_ms"]
    print(
        f"a prediction takes {ms['median']:.1f} ms, {ms['worst']:.1f} at worst; a tick "
        f"lasts {1000 / fps:.0f} ms"
    )
    for name, age in report["frames"].items():
        print(f"camera {name}: pictures are {age:.0f} ms old when they are used")
    print(f"the first action would be at most {report['jump']:.2f} rad from the arm")
    if report["unfamiliar"]:
        print(
            f"joints {report['unfamiliar']} are far from anything in the "
            "demonstrations: check the calibration"
        )
    print("nothing was sent; without --dry-run the arm will move")


@dataclass(frozen=True)
class TeleopConfig(RobotConfig):
    """Which arm is moved, and by what."""

    leader: str | None = None
    """Serial port of the leader arm; without one, the keys."""
    leader_calibration: Path = Path("leader.json")
    """The leader's own calibration file."""
    gamepad: bool = False
    """By the first gamepad that is plugged in."""
    seconds: float | None = None
    """End after so long; an episode lasts at most so long, or a minute."""
    size: tuple[int, int] = (96, 128)
    """Height and width of the pictures."""
    live: Live = 0


def teleop(config: tyro.conf.OmitArgPrefixes[TeleopConfig]) -> int:
    """Move the arm by a leader arm, a gamepad or keys, within its limits.

    Keys, up and down for each joint: q a, w s, e d, r f, t g, and y h for the gripper;
    space ends it. The arm comes slowly to where the leader is, and rests at the end.

    $ act teleop --port /dev/ttyACM0 --leader /dev/ttyACM1
    $ act teleop --port virtual
    """
    from .keys import Keys
    from .robots import make_robot, plugged_in
    from .safety import EmergencyStop, Stop
    from .teleop import teleoperate

    with (
        EmergencyStop() as stop,
        Keys() as keys,
        plugged_in(config) as here,
        contextlib.ExitStack() as last,
    ):
        arm = make_robot(here, config.size, stop)
        source = _source(config, keys, arm.fps)
        source.open()
        last.callback(source.close)
        arm.connect()
        last.callback(arm.close)
        _look_on(last, arm, config.live, print)
        ticks = None if config.seconds is None else int(config.seconds * arm.fps)
        try:
            teleoperate(arm, source, ticks, lambda *_: source.other() == " ")
        except Stop as error:
            print(error)
        timing = arm.arm.ticker.report()
    print(
        f"{timing['ticks']:.0f} ticks, jitter {timing.get('jitter_ms_p99', 0):.1f} ms "
        f"(99th percentile); interventions: {dict(arm.interventions.counts) or 'none'}"
    )
    return 0


def _source(config: TeleopConfig, keys: Any, fps: float) -> Any:
    from .teleop import Gamepad, Keyboard, Leader

    if config.leader:
        return Leader(config.leader, config.leader_calibration, config.robot, keys)
    return Gamepad(fps) if config.gamepad else Keyboard(keys)


@dataclass(frozen=True)
class RecordConfig(TeleopConfig):
    """Where the demonstrations go, and how many there shall be."""

    out: Path = Path("demos")
    """Folder for the episodes."""
    n: int = 50
    """How many episodes the folder shall hold."""
    task: str = "so100_pick_place"
    """Written into each episode."""
    scenes: int | None = None
    """For a virtual arm and a virtual leader: lay the demonstration scenes of this
    seed, and let a simulated hand hold the leader."""


def record_arm(config: tyro.conf.OmitArgPrefixes[RecordConfig]) -> int:
    """Record demonstrations on an arm, by a leader arm, a gamepad or keys.

    Enter begins an episode; Enter again ends and keeps it, x ends and discards it, z
    also removes the one before, and space ends the session. Episodes that were kept are
    never lost; a second call goes on.

    $ act record --robot so100 --out demos --port /dev/ttyACM0 \
          --leader /dev/ttyACM1 --cameras top=0 wrist=2
    """
    from .keys import Keys
    from .recording import record_session
    from .robots import make_robot, plugged_in
    from .safety import EmergencyStop

    with (
        EmergencyStop() as stop,
        Keys() as keys,
        plugged_in(config) as here,
        contextlib.ExitStack() as last,
    ):
        if config.scenes is None and not keys.here:
            raise SettingError(
                "act record --robot needs a terminal, to be told when; for a virtual "
                "arm and leader give --scenes"
            )
        log = config.out / "interventions.jsonl"
        arm = make_robot(here, config.size, stop, log)
        source = _source(config, keys, arm.fps)
        source.open()
        last.callback(source.close)
        who = _demonstrator(config, here.port, keys, stop, source, last)
        arm.connect()
        last.callback(arm.close)
        _look_on(last, arm, config.live, print)
        extras = {"task": config.task, "robot": config.robot}
        record_session(
            arm,
            source,
            config.out,
            config.n,
            prepare=who.prepare,
            over=who.over,
            verdict=who.verdict,
            cameras=arm.cameras,
            seconds=config.seconds or 60.0,
            attributes=lambda: extras | {"recorded": time.time(), "scene": who.number},
        )
    return 0


def _demonstrator(
    config: RecordConfig,
    port: str,
    keys: Any,
    stop: Any,
    source: Any,
    last: contextlib.ExitStack,
) -> Any:
    """Whoever shows the task: a person at the keys, or a simulated hand."""
    if config.scenes is None:
        from .person import Demonstrating

        return Demonstrating(keys, stop, source)
    if not config.leader:
        raise SettingError("--scenes needs --leader, the port of a virtual leader arm")
    from .so100.emulator.hand import Hand, scenes_left

    scenes = scenes_left(config.out, config.scenes)
    hand = Hand(port, config.leader, scenes, task=config.task)
    last.callback(hand.close)
    return hand


COMMANDS = {
    "virtual": virtual,
    "ports": ports,
    "cameras": cameras,
    "setup": setup,
    "calibrate": calibrate,
    "health": health,
    "teleop": teleop,
    "deploy": deploy,
    "record --robot": record_arm,
}


def _print(content: Any) -> None:
    print(jsonlib.dumps(content, indent=2))
