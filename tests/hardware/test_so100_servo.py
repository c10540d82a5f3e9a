"""One virtual servo: register semantics, as the fact sheet has them."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hardware.so100 import protocol
from hardware.so100.emulator.servo import TOP_SPEED, Servo
from hardware.so100.emulator.wire import Wire
from hardware.so100.protocol import Fault, Instruction, Packet, Parser
from hardware.so100.registers import REGISTERS, register

pytestmark = pytest.mark.quick


def put(servo, name, value):
    servo.write(register(name).address, register(name).encode(value))


def settle(servo, seconds, dt=0.01):
    for _ in range(round(seconds / dt)):
        servo.advance(dt)
        servo.encoder = servo.setpoint


def test_factory_defaults():
    servo = Servo(id=4)
    assert servo.get("ID") == 4
    assert servo.get("Model_Number") == 777
    assert servo.get("P_Coefficient") == 32
    assert not servo.torque_on


def test_eprom_is_kept_only_when_unlocked():
    servo = Servo()
    put(servo, "Lock", 1)
    put(servo, "Homing_Offset", -300)
    assert servo.get("Homing_Offset") == -300  # until the power goes
    servo.power_up()
    assert servo.get("Homing_Offset") == 0
    put(servo, "Lock", 0)
    put(servo, "Homing_Offset", -300)
    servo.power_up()
    assert servo.get("Homing_Offset") == -300
    assert servo.get("Lock") == 1


def test_max_torque_is_copied_at_power_up():
    servo = Servo()
    put(servo, "Lock", 0)
    put(servo, "Max_Torque_Limit", 500)
    assert servo.get("Torque_Limit") == 1000
    servo.power_up()
    assert servo.get("Torque_Limit") == 500


def test_measured_registers_cannot_be_written():
    servo = Servo(encoder=1000.0)
    put(servo, "Present_Position", 3000)
    assert servo.read(56, 2) == (1000).to_bytes(2, "little")


def test_numbers_out_of_range_leave_the_register_as_it_was():
    servo = Servo()
    servo.write(33, b"\x09")  # Operating_Mode is at most 3
    assert servo.get("Operating_Mode") == 0


def test_the_offset_shifts_what_is_shown_and_wraps():
    servo = Servo(encoder=100.0)
    put(servo, "Homing_Offset", 300)
    assert servo.position == 3896
    servo.poke("Phase", servo.get("Phase") | 0x10)  # counts on beyond a turn
    assert servo.position == -200


def test_half_turn_by_128():
    servo = Servo(encoder=3000.0)
    put(servo, "Torque_Enable", 128)
    assert servo.position == 2048
    assert not servo.torque_on


def test_goal_is_clipped_to_the_limits():
    servo = Servo(encoder=2000.0)
    put(servo, "Min_Position_Limit", 1500)
    put(servo, "Max_Position_Limit", 2500)
    put(servo, "Torque_Enable", 1)
    put(servo, "Goal_Position", 4000)
    settle(servo, 3)
    assert servo.position == 2500


def test_torque_on_runs_to_a_stale_goal():
    servo = Servo(encoder=1000.0)
    put(servo, "Goal_Position", 3000)
    settle(servo, 1)
    assert servo.position == 1000  # no torque yet
    put(servo, "Torque_Enable", 1)
    settle(servo, 2)
    assert servo.position == 3000


@given(st.integers(0, 4095), st.integers(0, 254), st.integers(0, 3400))
def test_the_profile_keeps_speed_and_acceleration_and_arrives(goal, acc, speed):
    servo = Servo(encoder=2048.0)
    put(servo, "Acceleration", acc)
    put(servo, "Goal_Velocity", speed)
    put(servo, "Torque_Enable", 1)
    put(servo, "Goal_Position", goal)
    dt, last, last_speed = 1 / 300, servo.setpoint, 0.0
    top = speed or TOP_SPEED
    for _ in range(300):
        servo.advance(dt)
        servo.encoder = servo.setpoint
        now = (servo.setpoint - last) / dt
        assert abs(now) <= top + 1e-6
        if acc and servo.setpoint != goal:
            assert abs(now - last_speed) <= 100 * acc * dt * 1.5 + 1e-6
        last, last_speed = servo.setpoint, now
    if not speed and (acc == 0 or acc > 100):
        assert servo.position == goal


def test_overload_weakens_until_torque_is_commanded_again():
    servo = Servo()
    put(servo, "Torque_Enable", 1)
    servo.effort = 0.9  # above 80 %
    for ticks, strength in ((190, 1.0), (20, 0.2)):
        for _ in range(ticks):
            servo.advance(0.01)
        assert servo.strength == pytest.approx(strength)
    servo.refresh()
    assert servo.faults & Fault.OVERLOAD
    put(servo, "Torque_Enable", 1)
    assert servo.strength == 1.0


def test_a_supply_out_of_range_is_reported():
    servo = Servo(supply=12.0)
    servo.refresh()
    assert servo.faults == Fault.VOLTAGE
    assert servo.get("Present_Voltage") == 120


def test_reg_write_waits_for_action():
    servo = Servo(encoder=1000.0)
    body = bytes([42]) + (2000).to_bytes(2, "little")
    assert servo.obey(Instruction.REG_WRITE, body) == b""
    assert servo.get("Async_Write_Flag") == 1
    assert servo.get("Goal_Position") == 1000
    servo.obey(Instruction.ACTION, b"")
    assert servo.get("Goal_Position") == 2000
    assert servo.get("Async_Write_Flag") == 0


def test_reset_keeps_the_id():
    servo = Servo(id=5)
    put(servo, "P_Coefficient", 16)
    servo.obey(Instruction.RESET, b"")
    assert (servo.get("ID"), servo.get("P_Coefficient")) == (5, 32)


# ---------------------------------------------------------------- the wire


def answers(wire, packet, baud=1_000_000):
    wire.receive(packet.encode(), 0.0, baud)
    return list(Parser().feed(wire.due(10.0)))


def six():
    return Wire([Servo(id=i, encoder=100.0 * i) for i in range(1, 7)])


def test_golden_conversations():
    wire = Wire([Servo(id=1, encoder=1304.0), Servo(id=2)])
    for asked, answered in (
        ("FFFF010201FB", "FFFF010200FC"),
        ("FFFF0104023802BE", "FFFF0104001805DD"),
        ("FFFF0109032A00080000E803D5", "FFFF010200FC"),
    ):
        wire.receive(bytes.fromhex(asked), 0.0)
        assert wire.due(1.0) == bytes.fromhex(answered)
    assert wire.servos[0].get("Goal_Position") == 2048
    assert wire.servos[0].get("Goal_Velocity") == 1000


def test_who_answers_a_broadcast():
    wire = six()
    assert [p.id for p in answers(wire, protocol.ping(0xFE))] == [1, 2, 3, 4, 5, 6]
    assert answers(wire, protocol.read(0xFE, 56, 2)) == []
    assert answers(wire, protocol.write(0xFE, 40, b"\x01")) == []
    assert all(s.torque_on for s in wire.servos)
    assert answers(wire, protocol.sync_write(42, {3: b"\x10\x00"})) == []
    assert wire.servos[2].get("Goal_Position") == 16


def test_sync_read_answers_in_the_order_asked_and_skips_the_missing():
    wire = six()
    wire.faults.set({"missing": 4})
    got = answers(wire, protocol.sync_read([6, 4, 2], 56, 2))
    assert [p.id for p in got] == [6, 2]
    assert got[0].parameters == (600).to_bytes(2, "little")


def test_answers_take_their_time():
    wire = Wire([Servo(id=1)])
    wire.servos[0].poke("Return_Delay_Time", 250)
    wire.receive(protocol.ping(1).encode(), 0.0, 1_000_000)
    # 6 bytes out, half a millisecond of delay, 6 bytes back.
    assert wire.next_due() == pytest.approx(60e-6 + 500e-6 + 60e-6)
    assert wire.due(600e-6) == b""


def test_status_level_0_answers_only_questions():
    wire = Wire([Servo(id=1)])
    put(wire.servos[0], "Response_Status_Level", 0)
    assert answers(wire, protocol.write(1, 40, b"\x01")) == []
    assert len(answers(wire, protocol.ping(1))) == 1


def test_the_wrong_rate_is_silence():
    wire = Wire([Servo(id=1)])
    assert answers(wire, protocol.ping(1), baud=500_000) == []
    put(wire.servos[0], "Baud_Rate", 1)
    assert len(answers(wire, protocol.ping(1), baud=500_000)) == 1


def test_a_new_id_answers_from_the_next_packet_on():
    wire = Wire([Servo(id=1)])
    assert [p.id for p in answers(wire, protocol.write(1, 5, b"\x03"))] == [1]
    assert [p.id for p in answers(wire, protocol.ping(3))] == [3]


@pytest.mark.parametrize(
    ("changes", "share"),
    [
        ({"lost": 0.3}, 0.7),
        ({"corrupted": 0.4}, 0.6),
        ({"noise": 1.0}, 1.0),
        ({"unplugged": True}, 0.0),
        ({"no_power": True}, 0.0),
    ],
)
def test_shares_of_bad_answers_are_as_asked(changes, share):
    wire = Wire([Servo(id=1)])
    wire.faults.set(changes)
    good = sum(len(answers(wire, protocol.ping(1))) for _ in range(1000))
    assert good / 1000 == pytest.approx(share, abs=0.05)


def test_doubled_ids_spoil_each_other():
    wire = six()
    wire.faults.set({"doubled": 2})
    good = sum(len(answers(wire, protocol.ping(2))) for _ in range(200))
    assert good < 200


@given(st.binary(max_size=200))
def test_random_bytes_never_crash_a_servo_nor_move_it(data):
    wire = six()
    for servo in wire.servos:
        servo.poke("Torque_Enable", 1)
    goals = [s.get("Goal_Position") for s in wire.servos]
    wire.receive(data, 0.0)
    if not list(Parser().feed(data)):
        assert [s.get("Goal_Position") for s in wire.servos] == goals
    for servo in wire.servos:
        servo.advance(0.01)


bodies = st.builds(
    Packet,
    st.sampled_from([1, 2, 0xFE]),
    st.sampled_from([*Instruction, 7, 0x55]),
    st.binary(max_size=40),
)


@pytest.mark.parametrize("size", [0, 249, 254, 255])
def test_a_read_of_more_than_a_packet_holds_is_met_with_silence(size):
    wire = six()
    for packet in (
        Packet(1, Instruction.READ, bytes([0, size])),
        Packet(0xFE, Instruction.SYNC_READ, bytes([0, size, 1, 2])),
    ):
        wire.receive(packet.encode(), 0.0)
        assert wire.due(9.0) == b""
    wire.receive(Packet(1, Instruction.READ, bytes([0, 248])).encode(), 10.0)
    assert len(wire.due(99.0)) == 248 + 6


@given(st.lists(bodies, max_size=8))
@example([Packet(1, Instruction.READ, b"\x00\xfe")])
@example([Packet(1, Instruction.WRITE, b"\x0a\x10")])  # half of a register
def test_any_sequence_of_packets_leaves_numbers_in_range(sent):
    wire = six()
    for packet in sent:
        wire.receive(packet.encode(), 0.0)
        for servo in wire.servos:
            servo.advance(0.01)
    for servo in wire.servos:
        for name, r in REGISTERS.items():
            low = -r.high if r.sign_bit is not None else r.low
            assert low <= servo.get(name) <= r.high
        assert 0 <= servo.strength <= 1


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("write"), st.integers(0, 90), st.binary(max_size=12)),
            st.tuples(st.sampled_from(["factory_reset", "power_up", "refresh"])),
        ),
        max_size=8,
    )
)
def test_a_register_read_is_what_the_memory_holds(steps):
    servo = Servo(3)
    for verb, *words in steps:
        getattr(servo, verb)(*words)
        for name, r in REGISTERS.items():
            held = bytes(servo.memory[r.address : r.address + r.size])
            assert servo.get(name) == r.decode(held), name
