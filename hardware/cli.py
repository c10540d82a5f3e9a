"""The commands of `act` that touch an arm, real or virtual.

`act virtual` stands in for the arm in every one of them: only the port differs.
"""

import json as jsonlib
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from act_minimal.errors import SettingError, UserError
from act_minimal.execution import ExecutionConfig

Json = Annotated[bool, tyro.conf.arg(help="Print JSON, for machines.")]
Port = Annotated[
    str, tyro.conf.arg(help="Serial port of the arm's bus; `act ports` finds it.")
]
Calibrated = Annotated[
    Path, tyro.conf.arg(help="The arm's calibration file, ours or LeRobot's.")
]
Model = Annotated[
    Literal["so100", "so101"], tyro.conf.arg(help="Which arm; one driver for both.")
]
Cameras = Annotated[
    tuple[str, ...],
    tyro.conf.arg(
        help="name=source, such as top=0 wrist=/dev/video2; virtual:PORT is a virtual "
        "arm's."
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
class DeployConfig:
    """Which policy drives which arm, and how often it is tried."""

    policy: Path
    """A checkpoint folder, or a training run."""
    port: Port
    calibration: Calibrated = Path("calibration.json")
    robot: Model = "so100"
    cameras: Cameras = ()
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
    from act_minimal.evaluation import evaluation_scenes
    from act_minimal.policy import load_policy

    from .cameras import parse_cameras
    from .deployment import RoomJudge, check_fit, dry_run
    from .deployment import deploy as run_trials
    from .keys import Keys
    from .safety import EmergencyStop, SafeRobot, so100_limits
    from .so100.arm import SO100, SO100Config

    torch.set_num_threads(config.threads)
    policy = load_policy(find_checkpoint(config.policy))
    height, width = policy.config.image_size
    eyes = parse_cameras(config.cameras, (height, width))
    arm = SO100(SO100Config(config.port, config.calibration, config.robot), eyes)
    say = (lambda text: None) if json else print
    with EmergencyStop() as stop, Keys() as keys:
        robot = SafeRobot(
            arm, so100_limits(config.robot), config.out / "interventions.jsonl", stop
        )
        check_fit(policy, robot)
        judge: Any = None
        robot.connect()
        try:
            if config.dry_run:
                robot.go(robot.limits.ready)
                report = dry_run(policy, robot, config.execution)
                _print(report) if json else _say_dry_run(report, robot.fps)
                return 0
            if config.scenes is not None:
                scenes = evaluation_scenes(config.scenes, config.trials)
                judge = RoomJudge(config.port, scenes)
            else:
                judge = Person(keys, stop)
            tally = run_trials(
                policy,
                robot,
                judge,
                execution=config.execution,
                trials=config.trials,
                seconds=config.seconds,
                out=config.out,
                say=say,
            )
        finally:
            robot.close()
            if judge is not None and hasattr(judge, "close"):
                judge.close()
    if json:
        _print(tally.to_json() | {"interventions": dict(robot.interventions.counts)})
    else:
        print(f"interventions: {dict(robot.interventions.counts) or 'none'}")
    return 0


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


class Person:
    """The one beside the arm: lays the objects, watches, and says how it went."""

    def __init__(self, keys: Any, stop: Any):
        self.keys, self.stop = keys, stop

    def prepare(self, trial: int) -> None:
        """Wait for Enter."""
        print(f"trial {trial + 1}: lay the objects, stand back, press Enter")
        self._key("\n\r")

    def done(self) -> bool:
        """Space stops the arm, s ends the trial."""
        key = self.keys.pressed()
        if key == " ":
            self.stop.raise_flag("space bar")
        return key == "s"

    def verdict(self) -> bool:
        """Ask y or n."""
        print("did it succeed? y or n")
        return self._key("yn") == "y"

    def _key(self, wanted: str) -> str:
        while True:
            self.stop.check()
            key = self.keys.pressed(0.05)
            if key and key in wanted:
                return key
            if self.keys._old is None:
                raise UserError(
                    "this is no terminal, so nobody can be asked; for a virtual arm "
                    "give --scenes"
                )


def teleop(
    port: Port,
    calibration: Calibrated = Path("calibration.json"),
    leader: str | None = None,
    leader_calibration: Path = Path("leader.json"),
    robot: Model = "so100",
    seconds: float | None = None,
) -> int:
    """Move the arm by a leader arm, or by keys, within its limits.

    Keys, up and down for each joint: q a, w s, e d, r f, t g, and y h for the gripper;
    space ends it. The arm comes slowly to where the leader is, and rests at the end.

    $ act teleop --port /dev/ttyACM0 --leader /dev/ttyACM1

    Args:
        leader: Serial port of the leader arm; without one, the keys.
        leader_calibration: The leader's own calibration file.
        seconds: End after so long.
    """
    from .keys import Keys
    from .safety import EmergencyStop, SafeRobot, Stop, so100_limits
    from .so100.arm import SO100, SO100Config
    from .teleop import Keyboard, Leader, teleoperate

    with EmergencyStop() as stop, Keys() as keys:
        arm = SafeRobot(
            SO100(SO100Config(port, calibration, robot)),
            so100_limits(robot),
            None,
            stop,
        )
        source: Any = Keyboard(keys)
        if leader:
            source = Leader(leader, leader_calibration, robot)
        source.open()
        try:
            arm.connect()
            ticks = None if seconds is None else int(seconds * arm.fps)

            def on_tick(*_: Any) -> bool:
                # The keyboard source reads all keys itself, and hands on the others.
                return (keys.pressed() if leader else source.other()) == " "

            try:
                teleoperate(arm, source, ticks, on_tick)
            except Stop as error:
                print(error)
            timing = arm.arm.ticker.report()
        finally:
            arm.close()
            source.close()
    print(
        f"{timing['ticks']:.0f} ticks, jitter {timing.get('jitter_ms_p99', 0):.1f} ms "
        f"(99th percentile); interventions: {dict(arm.interventions.counts) or 'none'}"
    )
    return 0


def record_arm(
    out: Path,
    port: Port,
    robot: Model = "so100",
    calibration: Calibrated = Path("calibration.json"),
    leader: str | None = None,
    leader_calibration: Path = Path("leader.json"),
    cameras: Cameras = (),
    size: tuple[int, int] = (96, 128),
    n: int = 50,
    seconds: float = 60.0,
    task: str = "so100_pick_place",
) -> int:
    """Record demonstrations on an arm, by a leader arm or by keys.

    Enter begins an episode; Enter again ends and keeps it, x ends and discards it, z
    also removes the one before, and space ends the session. Episodes that were kept are
    never lost; a second call goes on.

    $ act record --robot so100 --out demos --port /dev/ttyACM0 \
          --leader /dev/ttyACM1 --cameras top=0 wrist=2

    Args:
        out: Folder for the episodes.
        leader: Serial port of the leader arm; without one, the keys.
        leader_calibration: The leader's own calibration file.
        size: Height and width of the pictures.
        n: How many episodes the folder shall hold.
        seconds: An episode lasts at most so long.
        task: Written into each episode.
    """
    from .cameras import parse_cameras
    from .keys import Keys
    from .recording import record_session
    from .safety import EmergencyStop, SafeRobot, so100_limits
    from .so100.arm import SO100, SO100Config
    from .teleop import Keyboard, Leader

    eyes = parse_cameras(cameras, size)
    words = {"\n": "keep", "\r": "keep", "x": "discard", "z": "redo", " ": "quit"}
    with EmergencyStop() as stop, Keys() as keys:
        if keys._old is None:
            raise SettingError("act record --robot needs a terminal, to be told when")
        arm = SafeRobot(
            SO100(SO100Config(port, calibration, robot), eyes),
            so100_limits(robot),
            out / "interventions.jsonl",
            stop,
        )
        source: Any = Leader(leader, leader_calibration, robot) if leader else None
        source = source or Keyboard(keys)
        source.open()
        said = "keep"

        def prepare(number: int) -> None:
            print(f"episode {number}: lay the objects, press Enter")
            while keys.pressed(0.05) not in ("\n", "\r"):
                stop.check()

        def over(tick: int) -> bool:
            nonlocal said
            key = keys.pressed() if leader else source.other()
            if key in words:
                said = words[key]
                return True
            return False

        try:
            arm.connect()
            record_session(
                arm,
                source,
                out,
                n,
                prepare=prepare,
                over=over,
                verdict=lambda: said,  # type: ignore[return-value]
                cameras=arm.cameras,
                seconds=seconds,
                attributes={"task": task, "robot": robot, "recorded": time.time()},
            )
        finally:
            arm.close()
            source.close()
    return 0


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
