"""Driver and virtual OpenArm over python-can's virtual bus; every fault, its sentence.

Bus and motors are in one process, and time is the clock's.
"""

import contextlib
import os
from dataclasses import replace

import numpy as np
import pytest

from act_minimal.support.errors import SettingError, UserError
from hardware.errors import BusError
from hardware.openarm.arm import OpenArm, OpenArmConfig
from hardware.openarm.bus import Bus, ip_link, parse_channel
from hardware.openarm.limits import openarm_limits
from hardware.openarm.motors import IDS, NAMES
from hardware.openarm.protocol import Command, Mit, Mode, Status
from hardware.safety.safe_robot import SafeRobot

from .virtual_arms import RAISED, driver, hold, virtual

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs sockets with names")


def motors(service):
    return [motor for side in service.arm.motors for motor in side]


def connected(service, arm, pose=RAISED):
    """Connect arms in a pose, as held by a hand; what is seen of them from then on."""
    service.arm.put(pose)
    service.arm.witness = type(service.arm.witness)()
    arm.connect()
    return service.arm.witness


def let_go(service):
    return not any(motor.status is Status.ENABLED for motor in motors(service))


# ---------------------------------------------------------------- the bus


def test_registers_of_a_motor(bus):
    assert bus.read(3, "VMAX") == 8.0
    bus.write(3, "TIMEOUT", 1000)
    assert bus.read(3, "TIMEOUT") == 1000
    with pytest.raises(BusError, match=r"motor 3 \(right joint3\): CTRL_MODE = 9"):
        bus.write(3, "CTRL_MODE", 9)
    with pytest.raises(BusError, match=r"joint3\) keeps Gr at 40, instead of 7"):
        bus.write(3, "Gr", 7.0)


def test_enable_goal_disable(bus):
    assert bus.command(IDS, Command.ENABLE)[4].status is Status.ENABLED
    bus.send({id: Mit(kp=0, kd=1) for id in IDS})
    assert bus.gather(IDS, 0.5) == []
    assert {bus.latest[id].id for id in IDS} == set(IDS)
    assert all(bus.age(id) < 0.5 for id in IDS)
    assert bus.command(IDS, Command.DISABLE)[4].status is Status.DISABLED


def test_modes(bus):
    bus.set_mode(8, Mode.POS_FORCE)
    assert bus.read(8, "CTRL_MODE") == Mode.POS_FORCE
    bus.command([8], Command.ENABLE)
    bus.send({8: Mit(position=1.0, kp=10)})
    assert bus.gather([8], 0.1) == [8]  # a goal of the wrong mode


def test_nobody_hears_the_other_kind(service):
    bus = Bus(service.config.right, fd=False, side="right")
    bus.open()
    with pytest.raises(BusError, match=r"no motor of the right arm .*classic CAN"):
        bus.refresh()
    bus.close()


def test_own_frames_are_no_answers(service, bus):
    import can

    mirror = can.Bus(interface="virtual", channel=service.config.right[8:])
    bus.send({1: Mit()})
    # What a bus does that shows its own frames to who sent them.
    mirror.send(mirror.recv(0.5))
    assert bus.gather([1], 0.5) == []
    bus.gather([2], 0.05)
    assert bus.traffic.echoes == 1
    assert bus.latest[1].status is Status.DISABLED
    mirror.shutdown()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("usb:can0", "channel is 'usb:can0', expected a name such as can0"),
        ("virtual:", "expected a name"),
        ("udp_multicast:239.1.1.1", "expected a group and a port"),
        ("slcan:/dev/ttyACM0", "speak no CAN-FD"),
    ],
)
def test_channels_that_there_are_not(text, says):
    with pytest.raises(SettingError, match=says):
        parse_channel(text, True)


def test_channels_that_there_are():
    can = {"interface": "socketcan", "channel": "can0", "fd": True}
    assert parse_channel("can0", True) == can
    assert parse_channel("slcan:/dev/ttyACM0", False)["bitrate"] == 1_000_000
    multicast = parse_channel("udp_multicast:239.74.163.2:43114", True)
    assert (multicast["channel"], multicast["port"]) == ("239.74.163.2", 43114)


def test_a_bus_that_is_not_there_says_how_to_bring_it_up():
    with pytest.raises(BusError, match="ip link set nocan7 up type can bitrate") as e:
        Bus("nocan7").open()
    assert "dbitrate 5000000 fd on" in str(e.value)
    assert "fd on" not in ip_link("can0", False)


# ---------------------------------------------------------------- the arms


@pytest.mark.parametrize("pose", [RAISED, np.zeros(16)], ids=["raised", "hanging"])
def test_connect_moves_nothing(clock, service, arm, pose):
    witness = connected(service, arm, pose)
    clock.sleep(0.3)
    assert all(m.status is Status.ENABLED for m in motors(service))
    assert witness.lowest == pytest.approx(pose, abs=0.03)
    assert witness.highest == pytest.approx(pose, abs=0.03)
    assert witness.speed.max() < 0.2
    assert witness.falls == 0


def test_observe_and_act(service, arm):
    connected(service, arm)
    start = arm.observe()["qpos"][0].astype(float)
    goal = RAISED.copy()
    goal[[1, 6, 7, 9, 14, 15]] = 0.3, -0.4, 0.8, -0.3, 0.4, 0.6
    for tick in range(100):
        share = min((tick + 1) / 60, 1.0)
        seen = arm.observe()
        arm.act((start + share * (goal - start))[None])
    assert seen["qpos"].shape == seen["qvel"].shape == seen["effort"].shape == (1, 16)
    assert service.arm.state == pytest.approx(goal, abs=0.02)
    assert seen["qpos"][0] == pytest.approx(service.arm.state, abs=0.01)
    assert np.abs(seen["effort"]).max() > 3.0  # what the shoulders carry
    assert arm.health.faults == {}
    assert arm.ticker.report()["rate_hz"] == pytest.approx(50, rel=0.1)
    assert service.arm.witness.speed[:7].max() < 2.0


def test_without_gravity_compensation_it_hangs_lower(service):
    config = OpenArmConfig(service.config.right, service.config.left, gains="gentle")
    arm = OpenArm(config)
    connected(service, arm)
    hold(arm, 1.2)
    assert 0.05 < np.abs(service.arm.state - RAISED).max() < 0.3
    arm.close()


def test_ranges_of_velocity_are_read_from_the_motors(clock, tmp_path):
    with virtual(clock, tmp_path, newer=True) as service:
        arm = driver(service)
        connected(service, arm)
        assert arm.buses[0].scales[3].velocity == 10.0
        assert arm.buses[0].scales[1].velocity == 45.0
        for tick in range(60):
            seen = arm.observe()
            goal = RAISED.copy()
            goal[3] = RAISED[3] - 0.02 * tick  # 1 rad/s
            arm.act(goal[None])
        # Read in 8 instead of 10, it would be -0.8.
        assert seen["qvel"][0, 3] == pytest.approx(-1.0, abs=0.1)
        arm.close()


def test_an_arm_that_is_let_go_falls_and_the_witness_sees_it(clock, service, arm):
    witness = connected(service, arm)
    hold(arm, 0.5)
    arm.close()
    clock.sleep(0.5)
    assert witness.falls == 2
    assert witness.speed[:7].max() > 2.0


def test_softened_arms_sink(clock, service, arm):
    witness = connected(service, arm)
    hold(arm, 0.5)
    arm.soften()
    assert not arm.torque
    assert witness.falls == 0
    assert witness.speed[[*range(7), *range(8, 15)]].max() < 2.0
    clock.sleep(0.3)
    assert np.abs(service.arm.state[[0, 8]]).max() < 0.2


def test_a_target_that_is_no_number_is_not_sent(service, arm):
    arm.connect()
    sent = arm.buses[0].traffic.sent
    goal = np.zeros(16)
    goal[9] = np.nan
    with pytest.raises(BusError, match="the target of left_joint2 is no number"):
        arm.send(goal)
    assert arm.buses[0].traffic.sent == sent


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"version": "v3"}, "version is 'v3', expected one of .'v2', 'v1'"),
        ({"gains": "hard"}, "gains is 'hard', expected one of .'firm', 'gentle'"),
        ({"left": "can0"}, "right and left are both on 'can0'"),
        ({"fps": 0.0}, "fps is 0.0"),
        ({"timeout": float("nan")}, "timeout is nan"),
    ],
)
def test_settings_that_cannot_be_meant(settings, says):
    with pytest.raises(SettingError, match=says):
        OpenArm(OpenArmConfig(**settings))


# ---------------------------------------------------------------- faults


@pytest.mark.parametrize(
    ("faults", "says"),
    [
        ({"silent": 4}, r"motor 4 \(left joint4\) on virtual:.* does not answer"),
        ({"wrong_rate": 2}, r"motor 2 \(left joint2\) .* does not answer.* its rate"),
        ({"wrong_id": 3}, r"motor 3 \(left joint3\) .* does not answer"),
        ({"wrong_kind": True}, r"no motor of the left arm .* speak CAN-FD"),
        ({"unplugged": True}, r"no motor of the left arm .* the cable"),
        ({"no_power": True}, r"no motor of the left arm .* 24 V supply"),
        ({"over_voltage": True}, r"motor 1 .* reports over voltage at 36.0 V"),
        ({"under_voltage": True}, r"motor 1 .* reports under voltage at 12.0 V"),
        ({"driver_hot": 5}, r"motor 5 \(left joint5\) reports driver too hot; let it"),
        ({"rotor_hot": 6}, r"motor 6 .* reports rotor too hot; let it cool"),
        ({"over_current": 7}, r"motor 7 .* reports over current"),
        ({"overload": 8}, r"motor 8 \(left gripper\) reports overload; look what"),
        ({"lost_communication": 1}, r"motor 1 .* reports lost communication"),
    ],
)
def test_connect_refuses_what_is_wrong(service, arm, faults, says):
    service.fault(1, **faults)
    with pytest.raises(UserError, match=says):
        arm.connect()
    assert not arm.torque
    assert let_go(service)
    assert service.arm.witness.speed[:7].max() < 0.2


@pytest.mark.parametrize(
    ("faults", "says"),
    [
        ({"silent": 4}, r"motor 4 \(right joint4\) on virtual:.* does not answer"),
        ({"unplugged": True}, r"no motor of the right arm .* answers"),
        ({"no_power": True}, r"no motor of the right arm .* emergency stop"),
    ],
)
def test_silence_in_a_run_is_an_error_of_its_own(service, arm, faults, says):
    connected(service, arm)
    hold(arm, 0.2)
    service.fault(0, **faults)
    with pytest.raises(BusError, match=says):
        hold(arm, 1.0)
    # The left arm still holds, and can be laid down softly.
    assert service.arm.state[8:15] == pytest.approx(RAISED[8:15], abs=0.05)
    with contextlib.suppress(BusError):
        arm.soften()
    assert service.arm.witness.speed[8:15].max() < 2.0


@pytest.mark.parametrize(
    ("faults", "joint", "words"),
    [
        ({"over_voltage": True}, "right_joint1", "over voltage"),
        ({"driver_hot": 4}, "right_joint4", "driver too hot"),
        ({"over_current": 2}, "right_joint2", "over current"),
        ({"overload": 8}, "right_gripper", "overload"),
        ({"lost_communication": 7}, "right_joint7", "lost communication"),
    ],
)
def test_a_motor_that_gives_up_in_a_run_is_named(service, arm, faults, joint, words):
    connected(service, arm)
    hold(arm, 0.2)
    service.fault(0, **faults)
    hold(arm, 0.1)
    assert arm.health.faults[joint].words() == words
    assert set(arm.health.faults) <= {n for n in NAMES if n.startswith("right")}


def test_lost_and_doubled_frames_change_nothing(service, arm):
    witness = connected(service, arm)
    for side in (0, 1):
        service.fault(side, dropped=0.05, doubled=0.05)
    hold(arm, 2.0)
    assert service.arm.state == pytest.approx(RAISED, abs=0.03)
    assert witness.falls == 0
    assert sum(bus.traffic.repeated + bus.traffic.late for bus in arm.buses) > 0


def test_late_answers_are_not_taken_for_new_ones(service, arm):
    connected(service, arm)
    service.fault(0, late=0.2, late_by=0.015)
    hold(arm, 1.0)
    assert arm.buses[0].traffic.late > 0
    assert service.arm.state == pytest.approx(RAISED, abs=0.03)


def test_stale_feedback_is_noticed(service, arm):
    connected(service, arm)
    hold(arm, 0.2)
    service.fault(0, frozen=1)
    hold(arm, 0.6)  # at rest nobody can tell
    goal = RAISED.copy()

    def go_on():
        for _ in range(100):
            arm.observe()
            goal[0] += 0.01
            arm.act(goal[None])

    with pytest.raises(BusError, match=r"motor 1 \(right joint1\) has answered the sa"):
        go_on()
    assert goal[0] < RAISED[0] + 0.3


def test_motors_let_go_when_commands_stop_if_told_so(clock, service):
    arm = driver(service, timeout=0.1)
    arm.connect()
    hold(arm, 0.2, np.zeros(16))
    clock.sleep(0.3)
    assert {m.status for m in service.arm.motors[0]} == {Status.LOST_COMMUNICATION}
    arm.observe()
    assert len(arm.health.faults) == 16
    arm.close()
    again = driver(service)
    again.connect()  # this error is put right
    assert again.observe()["qpos"].shape == (1, 16)
    again.close()


@pytest.mark.parametrize(
    ("side", "joint", "most", "says"),
    [
        (1, 5, 54.0, r"motor 5 \(left joint5\) says .* 54 N·m"),
        (
            *(0, 7, 28.0),
            r"joint7\) says that its TMAX is 28 N·m, expected 10 of a DM4310 or 5 of "
            "a DM3507",
        ),
    ],
)
def test_motors_of_another_type_are_refused(service, arm, side, joint, most, says):
    service.arm.motors[side][joint - 1].poke("TMAX", most)
    with pytest.raises(UserError, match=says):
        arm.connect()


def test_joint_7_may_be_either_motor(clock, tmp_path):
    """What one says of its torque is what its frames and its load are counted with."""
    loads = []
    for light, most in ((False, 7.0), (True, 3.0)):
        with virtual(clock, tmp_path, light_wrist=light) as service:
            arm = driver(service)
            arm.connect()
            goal = arm.measure()[0]
            goal[6] += 0.4  # 12 N·m of a spring of 30 N·m/rad: more than either has
            arm.send(goal)
            service.clock.sleep(0.004)
            motor = service.arm.motors[0][6]
            _, _, health = arm.measure()
            assert motor.type.name == ("DM3507" if light else "DM4310")
            assert motor.torque == pytest.approx(most)
            assert health.torque[6] == pytest.approx(most, abs=0.01)
            assert arm.buses[0].scales[7].torque == (5.0 if light else 10.0)
            loads.append(health.load[6])
            arm.close()
    assert loads == pytest.approx([1.0, 1.0], abs=0.01)


def test_landing_waits_for_a_silent_bus(service, clock, arm):
    robot = SafeRobot(arm, replace(openarm_limits(), slow=2.0))
    robot.connect()
    bent = robot.limits.rest.copy()
    bent[[3, 11]] += 0.1  # the elbows: a pose that no link is too near in
    robot.go(bent)
    end, turn = clock.now + 0.5, service.turn

    def turn_and_plug_in():
        if clock.now >= end:
            service.fault(0, unplugged=False)
        turn()

    service.turn = turn_and_plug_in
    service.fault(0, unplugged=True)
    robot.close()
    assert not arm.torque
    assert clock.now > end
