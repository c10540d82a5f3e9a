"""The commands of `act` that touch an arm, real or virtual.

`act virtual` stands in for the arm in every one of them: only the port differs. Those
that let it do something for long are in `drive.py`.
"""

import contextlib
import time
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from act_minimal.support.errors import SettingError
from act_minimal.support.files import check_output_file, write_bytes
from act_minimal.support.results import Json, Result
from act_minimal.support.validation import Positive, SceneName, Whole

from ..robots import OPENARM, PAIR, TASKS, virtual_arms
from .diagnose import diagnose_arm
from .drive import deploy, record_arm, teleop

Port = Annotated[
    str, tyro.conf.arg(help="Serial port of the arm's bus; `act ports` finds it.")
]
Calibrated = Annotated[
    Path, tyro.conf.arg(help="The arm's calibration file, ours or LeRobot's.")
]


def virtual(
    port: Path | None = None,
    robot: Literal["so100", "so101", "openarm", "so100_pair"] = "so100",
    calibration: Path | None = None,
    task: SceneName | None = None,
    scene: Whole = 0,
    leader: bool = False,
    fresh: bool = False,
    seed: Whole = 0,
) -> int:
    """Plug in a virtual arm: motors that speak the real bytes, on real physics.

    A SO-100's or SO-101's port is a link that every other command takes for a serial
    port; that of two OpenArms is a file that says where their buses are.

    $ act virtual --calibration virtual_so100.json
    $ act virtual --port leader --leader
    $ act virtual --robot so101 --calibration virtual_so101.json
    $ act virtual --robot openarm --task openarm_handover
    $ act virtual --robot so100_pair --calibration virtual_pair.json

    Args:
        port: Its name; virtual_ and the robot's if not given. A pair's arms have _left
            and _right at the end.
        robot: Which arm; openarm and so100_pair are two of them.
        calibration: SO-100, SO-101: also write the arm's calibration file there, of a
            pair two, with _left and _right; one of another arm is not replaced.
        task: The scene that it stands in; so100_pick_place or openarm_handover if not
            given. OpenArms may be 'alone', a SO-101 always is.
        scene: Number of the scene's start.
        leader: A leader arm, to be moved by hand through its scene's socket.
        fresh: SO-100, SO-101: as from the factory, all servos have id 1, none is
            plugged in.
        seed: SO-100, SO-101: how the servos are mounted.
    """
    port, scenery = port or Path(f"virtual_{robot}"), task or TASKS[robot]
    if robot == OPENARM:
        from ..openarm.emulator.service import serve as serve_openarm
        from ..openarm.emulator.service import virtual_openarm

        if calibration or fresh:
            flag = "calibration" if calibration else "fresh"
            raise SettingError(
                f"{flag} is of a SO-100 or SO-101; an OpenArm has nothing like it"
            )
        serve_openarm(virtual_openarm(port, scenery, leader=leader, number=scene))
        return 0
    if robot == PAIR:
        if fresh:
            raise SettingError("fresh is of one SO-100 or SO-101, not of a pair")
        _serve_pair(port, scenery, scene, leader, seed, calibration)
        return 0
    from ..so100.calibration import save_calibration
    from ..so100.emulator.service import VirtualArmConfig, assemble, serve

    config = VirtualArmConfig(port, scenery, scene, leader, fresh, seed, robot)
    if calibration:
        save_calibration(calibration, assemble(config)[1])
    serve(config)
    return 0


def _serve_pair(
    port: Path,
    task: str,
    scene: int,
    leader: bool,
    seed: int,
    calibration: Path | None,
) -> None:
    """Serve two virtual SO-100 until Ctrl-C, or until this program is stopped."""
    arms = virtual_arms(
        PAIR,
        port,
        task,
        scene,
        leader=leader,
        seed=seed,
        calibration=calibration,
    )
    with contextlib.suppress(KeyboardInterrupt), contextlib.ExitStack() as stack:
        ports = [stack.enter_context(arm).port for arm in arms]
        print(
            f"two virtual SO-100 {'leaders' if leader else 'arms'} are at "
            f"{','.join(ports)}; Ctrl-C unplugs them",
            flush=True,
        )
        while all(arm.running for arm in arms):
            time.sleep(0.5)


def ports(json: Json = False) -> int:
    """The serial ports and CAN interfaces that are here, and how to tell the arm's.

    $ act ports
    """
    from act_minimal.command.devices import find_can_interfaces, find_serial_ports

    found = [str(p) for p in find_serial_ports()]
    can = [{"name": name, "up": up} for name, up in find_can_interfaces()]
    lines = [
        *(found or ["no serial port over USB is here"]),
        *(f"{one['name']} (CAN, {'up' if one['up'] else 'down'})" for one in can),
        "unplug the arm and ask again: the port that is gone is the arm's",
    ]
    if any("(usb-" in line for line in found):
        lines.append(
            "with two arms, give each its name under /dev/serial/by-id (in brackets): "
            "numbers change with the order of plugging in"
        )
    return Result({"ports": found, "can": can}, "\n".join(lines)).show(json)


def cameras(thumbnails: Path | None = None, json: Json = False) -> int:
    """The cameras that are plugged in, and what each of them sees.

    $ act cameras --thumbnails cameras

    Args:
        thumbnails: Also write a picture of each into this folder.
    """
    from act_minimal.command.devices import find_cameras

    if thumbnails:
        check_output_file(thumbnails / "name.png", "thumbnails", ".png")
    rows, lines = [], []
    for device in find_cameras():
        row: dict[str, Any] = {"path": str(device.path), "name": device.name}
        row["size"] = device.size
        if thumbnails and device.size:
            row["picture"] = str(_thumbnail(device.path, thumbnails))
        rows.append(row)
        size = f"{device.size[0]} x {device.size[1]}" if device.size else "no picture"
        picture = row.get("picture", "")
        lines.append(f"{row['path']}: {row['name']}, {size} {picture}".rstrip())
    text = "\n".join(lines) or "no camera is plugged in"
    return Result({"cameras": rows}, text).show(json)


def _thumbnail(device: Path, folder: Path) -> Path:
    import cv2

    from ..cameras import CameraConfig
    from ..robots import make_camera

    camera = make_camera(device.name, CameraConfig(str(device), size=(240, 320)))
    camera.open()
    try:
        image = camera.read().image
    finally:
        camera.close()
    path = folder / f"{device.name}.png"
    content = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1]
    write_bytes(path, content.tobytes())
    return path


def setup(port: Port) -> int:
    """Give six new servos their ids, one at a time, gripper first.

    $ act setup --port /dev/ttyACM0
    """
    from ..driver import opened
    from ..safety.keys import ask
    from ..so100.bus import Bus
    from ..so100.setup import assign_ids

    with opened(Bus(port)) as bus:
        assign_ids(bus, ask, print)
    return 0


def calibrate(
    port: Port,
    calibration: Calibrated = Path("calibration.json"),
    robot: Literal["so100", "so101"] = "so100",
    leader: bool = False,
    seconds: Positive | None = None,
    restore: bool = False,
) -> int:
    """Tie the servos' steps to the joints' angles; nothing moves by itself.

    Hold the arm at its middle, then move every joint from end to end by hand. The file
    is LeRobot's, so that an arm calibrated there needs only --restore, or nothing. One
    that is there already is never replaced. Ctrl-C gives up: the servos then hold what
    they held before.

    $ act calibrate --port /dev/ttyACM0 --calibration follower.json
    $ act calibrate --port /dev/ttyACM1 --calibration leader.json --leader
    $ act calibrate --port /dev/ttyACM0 --calibration follower.json --restore

    Args:
        robot: Which arm: each joint has to be swept over 90 % of its range.
        leader: A leader arm: its gripper is a handle, whose range is not checked.
        seconds: The sweep ends after so long; without this, when a key is pressed.
        restore: Do not calibrate: write the file into the servos.
    """
    from ..driver import opened
    from ..safety.keys import Keys, ask
    from ..so100 import setup
    from ..so100.arm import check_servos, servo_bus
    from ..so100.calibration import (
        check_free,
        check_sweep,
        load_calibration,
        save_calibration,
    )
    from ..so100.kinematics import ARMS

    kept = None
    if restore:
        kept = load_calibration(calibration)
        check_sweep(kept, ARMS[robot], str(calibration), leader=leader)
    else:
        check_free(calibration)
    try:
        with opened(servo_bus(port)) as bus:
            check_servos(bus)
            if kept:
                setup.restore(bus, kept)
                print(f"{calibration} is written into the servos")
                return 0
            with Keys() as keys:
                if seconds is None and not keys.here:
                    raise SettingError(
                        "seconds is not given, and there is no terminal whose key "
                        "could end the sweep; give it time, such as --seconds 60"
                    )
                setup.calibrate(
                    bus,
                    ask,
                    print,
                    arm=ARMS[robot],
                    leader=leader,
                    seconds=seconds,
                    moving=lambda: not keys.pressed(),
                    save=lambda found: save_calibration(calibration, found),
                )
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            "calibration is given up; the servos hold what they held before"
        ) from None
    print(f"{calibration} is written; the servos hold it too")
    return 0


def health(
    port: Port,
    robot: Literal["so100", "so101", "openarm"] = "so100",
    fd: bool | None = None,
    json: Json = False,
) -> int:
    """What each motor says of itself: voltage, temperature, load, firmware, faults.

    Exits with 1 if one is silent or complains.

    $ act health --port /dev/ttyACM0
    $ act health --robot openarm --port can0,can1

    Args:
        robot: Which arm.
        fd: OpenArm: speak CAN-FD, or not; without this as its port says, or CAN-FD.
    """
    if robot == OPENARM:
        from ..openarm.plug import find_plug
        from ..openarm.setup import health as look

        rows = look(find_plug(port), fd)
        lines = [row["said"] for row in rows]
    else:
        from ..driver import opened
        from ..so100.arm import servo_bus
        from ..so100.setup import health as look_at_servos

        with opened(servo_bus(port)) as bus:
            rows = look_at_servos(bus)
        lines = [_servo_line(row) for row in rows]
    code = 0 if all(row["fault"] == "none" for row in rows) else 1
    return Result({"servos": rows}, "\n".join(lines), code).show(json)


def _servo_line(row: dict[str, Any]) -> str:
    if row["fault"] == "silent":
        return f"{row['id']} {row['joint']}: silent"
    return (
        f"{row['id']} {row['joint']}: {row['volts']:.1f} V, "
        f"{row['celsius']} °C, load {100 * row['load']:.0f} %, firmware "
        f"{row['firmware']}, position {row['position']}, torque "
        f"{'on' if row['torque'] else 'off'}, fault: {row['fault']}"
    )


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
    "diagnose --robot": diagnose_arm,
}
