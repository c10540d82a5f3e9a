"""LeRobot's own OpenArm followers, unchanged, on the buses of the virtual OpenArm.

Run by test_openarm_lerobot.py in LeRobot's own environment. The `virtual` bus of
python-can ends at the process's border, so the virtual arms live here too, in a thread,
and only frames connect the two. Prints one line of JSON: what LeRobot said, and beside
it what the scene saw, in degrees of the motors.

    python tests/hardware/lerobot_openarm_client.py FOLDER
"""

import json
import sys
import threading
import time
from pathlib import Path

import numpy as np
from lerobot.motors import MotorCalibration
from lerobot.robots.openarm_follower import OpenArmFollower, OpenArmFollowerConfig

from hardware.openarm.emulator.service import (
    VirtualOpenArmConfig,
    VirtualOpenArmService,
)
from hardware.openarm.motors import SIDES
from hardware.openarm.protocol import Status
from hardware.virtual.client import SceneClient

RAISED = np.zeros(16)
RAISED[[0, 3, 5, 7, 8, 11, 13, 15]] = 0.5, 1.5, 0.2, 0.3, -0.5, 1.5, -0.2, 0.3
JOINTS = [f"joint_{i}" for i in range(1, 8)] + ["gripper"]
RATE = 50  # Hz


def follower(side: str, folder: Path) -> OpenArmFollower:
    config = OpenArmFollowerConfig(
        port=side,
        side=side,
        can_interface="virtual",
        id=f"virtual_{side}",
        calibration_dir=folder,
    )
    # From 0.5 on it tells positions alone, unless asked.
    if hasattr(config, "use_velocity_and_torque"):
        config.use_velocity_and_torque = True
    return OpenArmFollower(config)


def truth(service: VirtualOpenArmService) -> dict[str, object]:
    angles = service.arm.kinematics.angles_of(service.arm.state)
    motors = [motor for side in service.arm.motors for motor in side]
    return {
        "degrees": np.degrees(angles).tolist(),
        "position": np.degrees([motor.position for motor in motors]).tolist(),
        "torque": [motor.torque for motor in motors],
        "enabled": [motor.status is Status.ENABLED for motor in motors],
    }


def observed(robots: list[OpenArmFollower], what: str = "pos") -> list[float]:
    """Both arms' joints as LeRobot gives them; read twice, because of late answers.

    It waits 1 ms for the answers to its goals. Eight of them take 2 ms on a bus at
    1 Mbit/s, so the rest is what its next reading finds first: as old as that goal.
    """
    for _ in range(2):
        seen = [robot.get_observation() for robot in robots]
    return [float(one[f"{joint}.{what}"]) for one in seen for joint in JOINTS]


def put(service: VirtualOpenArmService, pose: np.ndarray) -> None:
    """In the service's own thread: physics that two threads touch may crash."""
    with SceneClient(service.config.port) as scene:
        scene.put(pose)


def act(robots: list[OpenArmFollower], goals: np.ndarray, seconds: float) -> list:
    """Send goals (16,), degrees, for a while; what LeRobot says that it sent."""
    start, sent = time.monotonic(), []
    while time.monotonic() < start + seconds:
        sent = []
        for robot, wish in zip(robots, goals.reshape(2, 8), strict=True):
            robot.get_observation()
            action = {f"{j}.pos": float(w) for j, w in zip(JOINTS, wish, strict=True)}
            said = robot.send_action(action)
            sent += [float(said[f"{joint}.pos"]) for joint in JOINTS]
        time.sleep(max(0.0, 1 / RATE - (time.monotonic() - start) % (1 / RATE)))
    return sent


def drive(service: VirtualOpenArmService, folder: Path) -> dict[str, object]:
    robots = [follower(side, folder) for side in SIDES]
    put(service, RAISED)
    for robot in robots:
        robot.connect(calibrate=False)
    report: dict[str, object] = {
        "first": {"seen": observed(robots), "truth": truth(service)}
    }
    wish = np.array(observed(robots))
    wish[[3, 11]] -= 15.0  # both elbows
    wish[[7, 15]] = -20.0, 20.0  # both grippers, as a v2 opens them
    report["wish"] = wish.tolist()
    report["sent"] = act(robots, wish, 2.0)
    report["last"] = {"seen": observed(robots), "truth": truth(service)}
    report["torque"] = observed(robots, "torque")
    for robot in robots:
        robot.disconnect()
    time.sleep(0.5)  # its last frames were not waited for
    report["after"] = truth(service)

    put(service, RAISED)
    usual = {"drive_mode": 0, "homing_offset": 0, "range_min": -90, "range_max": 90}
    robots[0].calibration = {
        name: MotorCalibration(id=motor.id, **usual)
        for name, motor in robots[0].bus.motors.items()
    }
    robots[0]._save_calibration()
    again = follower(SIDES[0], folder)  # finds the file
    again.connect()
    report["calibrated"] = again.is_calibrated
    report["zeroed"] = {"seen": observed([again]), "truth": truth(service)}
    again.disconnect()
    return report


def main(folder: Path) -> None:
    config = VirtualOpenArmConfig(
        folder / "arm", right="virtual:right", left="virtual:left"
    )
    service = VirtualOpenArmService(config)
    thread = threading.Thread(target=service.run)
    thread.start()
    try:
        report = drive(service, folder)
    finally:
        service.stopped = True
        thread.join(10)
        service.close()
    print(json.dumps(report))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
