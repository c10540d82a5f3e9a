"""A new arm: ids one at a time, calibration by hand, and the commands that do it."""

import contextlib
import io
import json
import math
import os
import re
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from act_minimal.command import main as cli
from act_minimal.support.errors import UserError
from hardware.so100 import setup
from hardware.so100.arm import IDS
from hardware.so100.bus import Bus
from hardware.so100.calibration import (
    REACH,
    Calibration,
    check_sweep,
    load_calibration,
    middle_and_range,
    save_calibration,
)
from hardware.so100.emulator.service import (
    VirtualArmConfig,
    VirtualArmService,
    assemble,
)
from hardware.so100.emulator.wire import Wire
from hardware.so100.kinematics import JOINTS, SO100, SO101
from hardware.so100.registers import STEPS
from hardware.teleop import Leader
from hardware.virtual.client import SceneClient, VirtualArmProcess

from .virtual_arms import ServoBus, served

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs pseudo-terminals")


@pytest.fixture
def make_service(tmp_path):
    with contextlib.ExitStack() as last:

        def start(**settings):
            config = VirtualArmConfig(tmp_path / "arm", **settings)
            return last.enter_context(served(VirtualArmService(config)))

        yield start


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


def calibrate_by_hand(virtual, share=(1.0,) * 6, over=None, **settings):
    """Calibrate an arm in memory, as a person would who moves all joints at once.

    Args:
        virtual: the arm.
        share: (6,) of each joint's range, from its low end, that the hand moves it
            over.
        over: instead of the hand: asked whether the sweep is over.
        settings: of `setup.calibrate`.
    """
    low, high = SO100.ranges.T
    high = low + np.asarray(share) * (high - low)
    ways = iter([low, (low + high) / 2, high])

    def moving():
        pose = next(ways, None)
        if pose is not None:
            virtual.put(pose)
        return pose is not None

    return setup.calibrate(
        ServoBus(Wire(virtual.servos)),
        lambda text: virtual.put(SO100.middle),
        settings.pop("say", lambda text: None),
        moving=over or moving,
        **settings,
    )


def kept_by(virtual):
    """What the servos hold of a calibration, without power."""
    for servo in virtual.servos:
        servo.power_up()
    return [[s.get(name) for name in setup.WRITTEN] for s in virtual.servos]


def test_calibration_by_hand_gives_the_true_one(tmp_path):
    virtual, truth = assemble(VirtualArmConfig())
    for servo in virtual.servos:  # as if never calibrated
        for name, value in zip(setup.WRITTEN, (0, 0, 4095), strict=True):
            servo.poke(name, value)
    said = []
    found = calibrate_by_hand(virtual, say=said.append)
    assert said[0] == "shoulder_pan: swept, 4 to go"
    assert said[4] == "gripper: swept, 0 to go"
    assert len(said) == 5 + 6
    for joint, motor in found.motors.items():
        wanted = truth.motors[joint]
        assert abs(motor.homing_offset - wanted.homing_offset) <= 1, joint
        assert abs(motor.range_min - wanted.range_min) <= 2, joint
        assert abs(motor.range_max - wanted.range_max) <= 2, joint
    kept = [[m.homing_offset, m.range_min, m.range_max] for m in found.motors.values()]
    assert kept_by(virtual) == kept
    save_calibration(tmp_path / "c.json", found)
    assert load_calibration(tmp_path / "c.json") == found
    steps = np.array([s.position for s in virtual.servos])
    assert found.state_of(steps, SO100)[:5] == pytest.approx(
        virtual.data.qpos[:5], abs=0.005
    )


@pytest.mark.parametrize("joint", [0, 1, 2, 3, 5])
def test_a_joint_swept_over_three_quarters_is_refused(joint):
    """Its angles would all be off by an eighth of its range."""
    virtual, _ = assemble(VirtualArmConfig())
    before = kept_by(virtual)
    share = np.ones(6)
    share[joint] = 0.77
    with pytest.raises(UserError) as refused:
        calibrate_by_hand(virtual, share)
    said = str(refused.value)
    low, high = SO100.ranges[joint]
    span = round((high - low) * 4096 / (2 * np.pi))
    name = JOINTS[joint]
    found = int(re.search(rf"{name} moved by (\d+) steps", said)[1])
    assert found == pytest.approx(0.77 * span, abs=2)
    assert (
        f"expected at least {math.ceil(0.9 * span)} (90% of a so100's {span})" in said
    )
    assert REACH[name] in said
    assert all(f"{other} moved" not in said for other in set(JOINTS) - {name})
    assert kept_by(virtual) == before  # as if nothing had been


def test_a_calibration_that_cannot_be_saved_is_none():
    virtual, _ = assemble(VirtualArmConfig())
    before = kept_by(virtual)

    def full(calibration):
        raise UserError("no space left on the disk")

    with pytest.raises(UserError, match="no space left"):
        calibrate_by_hand(virtual, (0.98,) * 6, save=full)
    assert kept_by(virtual) == before
    calibrate_by_hand(virtual, (0.98,) * 6)
    assert kept_by(virtual) != before


def test_a_leaders_handle_may_turn_less():
    virtual, _ = assemble(VirtualArmConfig())
    share = (1.0,) * 5 + (0.6,)
    with pytest.raises(UserError, match="gripper moved by"):
        calibrate_by_hand(virtual, share)
    found = calibrate_by_hand(virtual, share, leader=True).motors["gripper"]
    assert found.range_max - found.range_min == pytest.approx(0.6 * 1254, abs=2)


def test_a_leaders_file_is_held_against_its_servos(tmp_path):
    virtual, truth = assemble(VirtualArmConfig())
    rows = [(m.homing_offset, m.range_min, m.range_max) for m in truth.motors.values()]
    other = [*rows[:2], (rows[2][0] + 40, *rows[2][1:]), *rows[3:]]
    half = [rows[0], (rows[1][0], 900, 900 + 1750), *rows[2:]]
    for name, wanted in (("own", rows), ("other", other), ("half", half)):
        save_calibration(tmp_path / f"{name}.json", Calibration.of_ranges(wanted))

    def opened(name):
        leader = Leader("memory", tmp_path / f"{name}.json")
        leader.bus = ServoBus(Wire(virtual.servos))
        leader.open()
        return leader

    assert opened("own").wish(np.zeros(6))[:5] == pytest.approx(
        virtual.data.qpos[:5], abs=0.002
    )
    with pytest.raises(
        UserError,
        match=r"elbow_flex: Homing_Offset is .*other\.json --leader --restore",
    ):
        opened("other")
    with pytest.raises(UserError, match=r"half\.json: shoulder_lift moved by 1750"):
        opened("half")


def test_ctrl_c_in_a_sweep_leaves_the_servos_as_they_were():
    virtual, _ = assemble(VirtualArmConfig())
    before = kept_by(virtual)

    def interrupt():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        calibrate_by_hand(virtual, over=interrupt)
    assert kept_by(virtual) == before


@given(
    shares=st.lists(st.floats(0.0, 1.3), min_size=6, max_size=6),
    model=st.sampled_from([SO100, SO101]),
    leader=st.booleans(),
)
def test_what_is_swept_by_nine_tenths_is_taken_and_the_rest_is_named(
    shares, model, leader
):
    spans = (model.ranges[:, 1] - model.ranges[:, 0]) * STEPS / (2 * np.pi)
    rows = [(0, 10, 10 + round(r * s)) for r, s in zip(shares, spans, strict=True)]
    calibration = Calibration.of_ranges(rows)
    short = {
        joint
        for joint, (_, low, high), span in zip(JOINTS, rows, spans, strict=True)
        if joint != "wrist_roll" and high - low < math.ceil(0.9 * round(span))
    }
    if leader:
        short.discard("gripper")
        if rows[5][2] - 10 < 300:
            short.add("gripper")
    if not short:
        check_sweep(calibration, model, "c.json", leader=leader)
        return
    with pytest.raises(UserError) as refused:
        check_sweep(calibration, model, "c.json", leader=leader)
    assert {j for j in JOINTS if f"{j} moved by" in str(refused.value)} == short
    assert str(refused.value).startswith("c.json: ")


def test_a_calibration_file_is_never_replaced(tmp_path):
    spans = SO100.ranges[:, 1] - SO100.ranges[:, 0]
    rows = [middle_and_range(7, span) for span in spans]
    path = tmp_path / "c.json"
    save_calibration(path, Calibration.of_ranges(rows))
    there = path.read_bytes()
    save_calibration(path, Calibration.of_ranges(rows))  # the same once more
    rows[0] = middle_and_range(8, spans[0])
    with pytest.raises(
        UserError, match=r"c\.json is there already and .* --calibration"
    ):
        save_calibration(path, Calibration.of_ranges(rows))
    assert path.read_bytes() == there


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
    process.scene.faults(missing=3, overheat=5)
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
            "range_max": 3200,
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


def test_restore_refuses_a_file_that_was_half_swept(process, tmp_path, capsys):
    rows = [middle_and_range(0, high - low) for low, high in SO100.ranges]
    rows[1] = 0, 900, 900 + 1750
    save_calibration(tmp_path / "half.json", Calibration.of_ranges(rows))
    before = process.scene.look()["joints"]
    words = ("calibrate", "--port", process.port, "--restore", "--calibration")
    assert act(*words, tmp_path / "half.json") == 1
    said = capsys.readouterr().err
    assert "shoulder_lift moved by 1750 steps, expected at least 2051" in said
    bus = Bus(process.port)
    bus.open()
    assert bus.read(2, "Min_Position_Limit") != 900
    bus.close()
    assert process.scene.look()["joints"] == pytest.approx(before, abs=0.01)


def test_calibrate_refuses_before_it_touches_a_servo(tmp_path, capsys, monkeypatch):
    (tmp_path / "c.json").write_text("precious", encoding="utf-8")
    words = ("calibrate", "--port", tmp_path / "none", "--calibration")
    assert act(*words, tmp_path / "c.json") == 1
    assert "c.json is there already" in capsys.readouterr().err
    assert (tmp_path / "c.json").read_text(encoding="utf-8") == "precious"
    assert act(*words, tmp_path / "new.json", "--seconds", "-1") == 2
    assert (
        "seconds is -1.0, expected a finite number above 0" in capsys.readouterr().err
    )


def test_without_a_terminal_a_sweep_needs_an_end(
    process, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr("sys.stdin", io.StringIO("\n\n"))
    words = ("calibrate", "--port", process.port, "--calibration", tmp_path / "c.json")
    assert act(*words) == 2
    assert "give it time, such as --seconds 60" in capsys.readouterr().err
    assert act(*words, "--seconds", "0.3") == 1  # it ends, and nothing was swept
    assert "shoulder_pan moved by" in capsys.readouterr().err
    assert act(*words, "--seconds", "0.3") == 1  # no line is left to read
    assert "nobody can answer 'hold the arm" in capsys.readouterr().err
    assert not (tmp_path / "c.json").exists()


def test_teleoperation_by_keys_needs_no_terminal_to_end(process, tmp_path, capsys):
    save_calibration(tmp_path / "arm.json", assemble(process.config)[1])
    words = ("teleop", "--port", process.port, "--calibration", tmp_path / "arm.json")
    assert act(*words, "--seconds", "1") == 0
    assert "ticks, jitter" in capsys.readouterr().out
    assert not any(process.scene.look()["torque"])


def test_act_virtual_is_an_arm_until_it_is_ended(tmp_path):
    port = tmp_path / "arm"
    words = ["virtual", "--port", port, "--calibration", tmp_path / "arm.json"]
    process = subprocess.Popen(
        [sys.executable, "-m", "act_minimal.command.main", *map(str, words)],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert "a virtual SO-100 arm is at" in process.stdout.readline()
        load_calibration(tmp_path / "arm.json")
        with SceneClient(port) as scene:
            scene.ask(stop=True)
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
