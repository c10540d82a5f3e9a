"""A new arm: ids one at a time, calibration by hand, and the commands that do it."""

import json
import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from act_minimal import cli
from act_minimal.errors import UserError
from hardware.so100 import setup
from hardware.so100.arm import IDS
from hardware.so100.bus import Bus
from hardware.so100.calibration import load_calibration, save_calibration
from hardware.so100.emulator.room import Room, VirtualArmProcess
from hardware.so100.emulator.service import VirtualArmConfig, VirtualArmService
from hardware.so100.kinematics import JOINTS, SO100

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs pseudo-terminals")


@pytest.fixture
def make_service(tmp_path):
    started = []

    def start(**settings):
        service = VirtualArmService(VirtualArmConfig(tmp_path / "arm", **settings))
        thread = threading.Thread(target=service.run)
        thread.start()
        started.append((service, thread))
        return service

    yield start
    for service, thread in started:
        service.stopped = True
        thread.join(10)
        service.close()


@pytest.fixture
def open_bus(tmp_path):
    bus = Bus(str(tmp_path / "arm"))

    def start():
        bus.open()
        return bus

    yield start
    bus.close()


def test_ids_one_at_a_time(make_service, open_bus):
    service = make_service(fresh=True)
    # One of them was used before, at another id and rate.
    service.arm.servos[2].id = 9
    for name, value in (("ID", 9), ("Baud_Rate", 1)):
        service.arm.servos[2].poke("Lock", 0)
        service.arm.servos[2].poke(name, value)
    bus = open_bus()

    def plug_in(text):
        joint = text.split("servo of ")[1].split(",")[0]
        service.wire.servos = [service.arm.servos[JOINTS.index(joint)]]

    said = []
    setup.assign_ids(bus, plug_in, said.append)
    assert said[0] == "gripper: id 1 is now 6"
    assert said[3] == "elbow_flex: id 9 is now 3"
    service.wire.servos = service.arm.servos
    assert bus.find() == list(IDS)
    for servo in service.arm.servos:
        servo.power_up()  # they are kept without power
    assert [s.get("ID") for s in service.arm.servos] == list(IDS)


def test_nothing_or_too_much_is_plugged_in(make_service, open_bus):
    service = make_service(fresh=True)
    bus = open_bus()
    with pytest.raises(UserError, match=r"no servo answers on .* at any rate"):
        setup.find_one(bus)
    service.arm.servos[1].id = 2
    service.arm.servos[1].poke("ID", 2)
    service.wire.servos = service.arm.servos[:2]
    with pytest.raises(UserError, match=r"2 servos answer on .* \(ids \[1, 2\]\)"):
        setup.find_one(bus)


def sweep_by_hand(service, seconds):
    """Move all joints to both ends of their ranges."""
    low, high = SO100.ranges.T
    with Room(service.config.port) as room:
        for pose in (low, high):
            room.ask(hand=[pose.tolist(), 10.0])
            time.sleep(seconds / 2)


def test_calibration_by_hand_gives_the_true_one(make_service, open_bus, tmp_path):
    service = make_service(leader=True)
    truth = service.calibration
    for servo in service.arm.servos:  # as if never calibrated
        for name, value in (
            ("Homing_Offset", 0),
            ("Min_Position_Limit", 0),
            ("Max_Position_Limit", 4095),
        ):
            servo.poke(name, value)
    bus = open_bus()

    def ask(text):
        with Room(service.config.port) as room:
            room.put(SO100.middle)
        if "both ends" in text:
            threading.Thread(target=sweep_by_hand, args=(service, 1.0)).start()

    found = setup.calibrate(bus, ask, lambda text: None, seconds=1.4)
    for joint, motor in found.motors.items():
        wanted = truth.motors[joint]
        assert abs(motor.homing_offset - wanted.homing_offset) <= 2, joint
        assert abs(motor.range_min - wanted.range_min) <= 10, joint
        assert abs(motor.range_max - wanted.range_max) <= 10, joint
    for servo in service.arm.servos:
        servo.power_up()  # the servos keep it
    save_calibration(tmp_path / "c.json", found)
    assert load_calibration(tmp_path / "c.json") == found
    steps = np.array([s.position for s in service.arm.servos])
    assert found.state_of(steps, SO100)[:5] == pytest.approx(
        service.arm.data.qpos[:5], abs=0.02
    )


def test_a_joint_that_was_not_swept_is_named(make_service, open_bus):
    service = make_service(leader=True)

    def ask(text):
        with Room(service.config.port) as room:
            room.put(SO100.middle)

    with pytest.raises(UserError, match=r"shoulder_pan moved by \d+ steps only"):
        setup.calibrate(open_bus(), ask, lambda text: None, seconds=0.2)


# ---------------------------------------------------------------- commands


@pytest.fixture
def process(tmp_path):
    with VirtualArmProcess(VirtualArmConfig(tmp_path / "arm")) as process:
        yield process


def act(*words):
    with pytest.raises(SystemExit) as stop:
        cli.main([str(w) for w in words])
    return stop.value.code


def test_health_as_table_and_json(process, capsys):
    assert act("health", "--port", process.port) == 0
    assert "3 elbow_flex: 7.4 V, 25 °C" in capsys.readouterr().out
    process.room.faults(missing=3, overheat=5)
    assert act("health", "--port", process.port, "--json") == 1
    rows = json.loads(capsys.readouterr().out)["servos"]
    assert [r["fault"] for r in rows] == [
        *("none", "none", "silent", "none"),
        *("overheat", "none"),
    ]


def test_restore_writes_a_file_into_the_servos(process, tmp_path, capsys):
    content = {
        joint: {
            "id": i + 1,
            "drive_mode": 0,
            "homing_offset": 10 * i,
            "range_min": 900,
            "range_max": 3100,
        }
        for i, joint in enumerate(JOINTS)
    }
    path = tmp_path / "lerobot.json"
    path.write_text(json.dumps(content, indent=4))
    words = ("calibrate", "--port", process.port, "--calibration", path, "--restore")
    assert act(*words) == 0
    bus = Bus(process.port)
    bus.open()
    assert bus.read(4, "Homing_Offset") == 30
    assert bus.read(4, "Min_Position_Limit") == 900
    bus.close()


def test_teleoperation_by_keys_needs_no_terminal_to_end(process, tmp_path, capsys):
    from hardware.so100.emulator.service import assemble

    save_calibration(tmp_path / "arm.json", assemble(process.config)[1])
    words = ("teleop", "--port", process.port, "--calibration", tmp_path / "arm.json")
    assert act(*words, "--seconds", "1") == 0
    assert "ticks, jitter" in capsys.readouterr().out
    assert not any(process.room.look()["torque"])


def test_act_virtual_is_an_arm_until_it_is_ended(tmp_path):
    port = tmp_path / "arm"
    words = ["virtual", "--port", port, "--calibration", tmp_path / "arm.json"]
    process = subprocess.Popen(
        [sys.executable, "-m", "act_minimal.cli", *map(str, words)],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert "a virtual SO-100 arm is at" in process.stdout.readline()
        load_calibration(tmp_path / "arm.json")
        with Room(port) as room:
            room.ask(stop=True)
        assert process.wait(120) == 0
        assert not port.exists()
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("command", ["virtual", "calibrate", "deploy", "teleop"])
def test_help_teaches(command, capsys):
    assert act(command, "--help") == 0
    assert f"$ act {command}" in capsys.readouterr().out


def test_record_on_an_arm_has_help_of_its_own(capsys):
    assert act("record", "--robot", "so100", "--help") == 0
    assert "leader" in capsys.readouterr().out


def test_a_port_that_is_not_there(tmp_path, capsys):
    assert act("health", "--port", tmp_path / "none") == 1
    assert "Find yours with: act ports" in capsys.readouterr().err
