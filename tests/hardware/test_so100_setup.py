"""A new arm: ids one at a time, calibration by hand, and the commands that do it."""

import contextlib
import io
import json
import math
import os
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from act_minimal.support.errors import UserError
from hardware.safety.keys import Keys
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
from hardware.virtual.client import VirtualArmProcess

from ..commands import act
from .virtual_arms import ServoBus, served

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs pseudo-terminals")


@pytest.fixture
def fresh(tmp_path):
    """A virtual arm as its parts come, and a bus to it."""
    config = VirtualArmConfig(tmp_path / "arm", fresh=True)
    with served(VirtualArmService(config)) as service:
        bus = Bus(str(config.port))
        bus.open()
        yield service, bus
        bus.close()


def test_ids_one_at_a_time(fresh):
    service, bus = fresh
    # One of them was used before, at another id and rate.
    service.arm.servos[2].id = 9
    for name, value in (("ID", 9), ("Baud_Rate", 1)):
        service.arm.servos[2].poke("Lock", 0)
        service.arm.servos[2].poke(name, value)

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


def test_nothing_or_too_much_is_plugged_in(fresh):
    service, bus = fresh
    with pytest.raises(UserError, match=r"no servo answers on .* at any rate"):
        setup.find_one(bus)
    service.arm.servos[1].id = 2
    service.arm.servos[1].poke("ID", 2)
    service.wire.servos = service.arm.servos[:2]
    with pytest.raises(UserError, match=r"2 servos answer on .* \(ids \[1, 2\]\)"):
        setup.find_one(bus)


def calibrate_by_hand(virtual, share=(1.0,) * 6, over=None, **settings):
    """Calibrate an arm in memory, as a person would who moves all joints at once.

    They move over a `share` of their ranges, from the low ends; instead of the hand,
    `over` can be asked whether the sweep is over.
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


@pytest.mark.parametrize(
    ("error", "where"), [(UserError("no space"), "save"), (KeyboardInterrupt(), "over")]
)
def test_a_calibration_that_is_not_saved_or_stopped_is_none(error, where):
    virtual, _ = assemble(VirtualArmConfig())
    before = kept_by(virtual)

    def fails(*args):
        raise error

    with pytest.raises(type(error)):
        calibrate_by_hand(virtual, (0.98,) * 6, **{where: fails})
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

    def opened(name, joint, row):
        wanted = [*rows[:joint], row, *rows[joint + 1 :]]
        save_calibration(tmp_path / f"{name}.json", Calibration.of_ranges(wanted))
        leader = Leader("memory", tmp_path / f"{name}.json")
        leader.bus = ServoBus(Wire(virtual.servos))
        leader.open()
        return leader

    own = opened("own", 2, rows[2]).wish(np.zeros(6))
    assert own[:5] == pytest.approx(virtual.data.qpos[:5], abs=0.002)
    says = r"elbow_flex: Homing_Offset is .*other\.json --leader --restore"
    with pytest.raises(UserError, match=says):
        opened("other", 2, (rows[2][0] + 40, *rows[2][1:]))
    with pytest.raises(UserError, match=r"half\.json: shoulder_lift moved by 1750"):
        opened("half", 1, (rows[1][0], 900, 900 + 1750))


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
    says = r"c\.json is there already and .* --calibration"
    with pytest.raises(UserError, match=says):
        save_calibration(path, Calibration.of_ranges(rows))
    assert path.read_bytes() == there


# ---------------------------------------------------------------- commands


@pytest.fixture
def process(tmp_path):
    with VirtualArmProcess(VirtualArmConfig(tmp_path / "arm")) as process:
        yield process


def test_health_as_table_and_json(process):
    code, out, _ = act("health --port", process.port)
    assert (code, "3 elbow_flex: 7.4 V, 25 °C" in out) == (0, True)
    process.scene.faults(missing=3, overheat=5)
    code, out, _ = act("health --port", process.port, "--json")
    faults = [row["fault"] for row in json.loads(out)["servos"]]
    assert (code, faults) == (1, ["none", "none", "silent", "none", "overheat", "none"])


def kept_by_servo(process, id):
    with contextlib.closing(Bus(process.port)) as bus:
        bus.open()
        return [bus.read(id, name) for name in setup.WRITTEN]


def test_restore_writes_a_file_into_the_servos(process, tmp_path):
    numbers = {"drive_mode": 0, "range_min": 900, "range_max": 3200}
    content = {
        joint: {"id": i + 1, "homing_offset": 10 * i} | numbers
        for i, joint in enumerate(JOINTS)
    }
    path = tmp_path / "lerobot.json"
    path.write_text(json.dumps(content, indent=4))
    line = f"calibrate --port {process.port} --calibration {path} --restore"
    assert act(line)[0] == 0
    assert kept_by_servo(process, 4) == [30, 900, 3200]


def test_restore_refuses_a_file_that_was_half_swept(process, tmp_path):
    rows = [middle_and_range(0, high - low) for low, high in SO100.ranges]
    rows[1] = 0, 900, 900 + 1750
    save_calibration(tmp_path / "half.json", Calibration.of_ranges(rows))
    before = kept_by_servo(process, 2)
    line = f"calibrate --port {process.port} --restore --calibration"
    code, _, err = act(line, tmp_path / "half.json")
    assert code == 1
    assert "shoulder_lift moved by 1750 steps, expected at least 2051" in err
    assert kept_by_servo(process, 2) == before
    assert not any(process.scene.look()["torque"])


def test_without_a_terminal_a_sweep_needs_an_end(process, tmp_path, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("\n\n"))
    line = f"calibrate --port {process.port} --calibration {tmp_path}/c.json"
    for more, code, says in (
        ("", 2, "give it time, such as --seconds 60"),
        # It ends, and nothing was swept; then no line is left to read.
        ("--seconds 0.3", 1, "shoulder_pan moved by"),
        ("--seconds 0.3", 1, "nobody can answer 'hold the arm"),
        ("--seconds -1", 2, "seconds is -1.0, expected a finite number above 0"),
    ):
        ended, _, err = act(line, more)
        assert (ended, says in err) == (code, True), err
    assert not (tmp_path / "c.json").exists()


@pytest.mark.parametrize(("looks", "code"), [(3, 0), (1, 1)])
def test_a_key_ends_the_sweep(tmp_path, monkeypatch, looks, code):
    """At a terminal, by a hand that moves all joints; too early, and it is refused."""
    virtual, _ = assemble(VirtualArmConfig())
    before = kept_by(virtual)
    low, high = SO100.ranges.T
    ways, asked = [low, (low + high) / 2, high], []
    typed, terminal = os.openpty()

    class Hand(Keys):
        looked = 0

        def pressed(self):
            if self.looked < looks:
                virtual.put(ways[self.looked])
            elif self.looked == looks:
                os.write(typed, b"q")
            Hand.looked += 1
            return super().pressed()

    def answer():
        virtual.put(SO100.middle)
        asked.append(Hand.looked)
        return ""

    monkeypatch.setattr("hardware.safety.keys.Keys", Hand)
    monkeypatch.setattr("builtins.input", answer)
    bus = ServoBus(Wire(virtual.servos))
    monkeypatch.setattr("hardware.so100.arm.servo_bus", lambda port: bus)
    with os.fdopen(terminal) as file:
        monkeypatch.setattr("sys.stdin", file)
        line = f"calibrate --port arm --calibration {tmp_path}/c.json"
        ended, out, err = act(line)
    os.close(typed)
    assert ended == code, err
    assert asked == [0, 0]  # no key is looked for before the sweep
    assert Hand.looked > looks
    assert "a key ends it" in out
    if code:
        assert "moved by" in err
        assert kept_by(virtual) == before
        assert not (tmp_path / "c.json").exists()
    else:
        assert "the servos hold it too" in out
        found = load_calibration(tmp_path / "c.json").motors.values()
        assert kept_by(virtual) == [
            [m.homing_offset, m.range_min, m.range_max] for m in found
        ]
