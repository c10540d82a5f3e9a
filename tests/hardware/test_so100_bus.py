"""Driver and virtual arm over a real pseudo-terminal; the maker's SDK as witness."""

import contextlib
import os

import numpy as np
import pytest

from act_minimal.support.errors import UserError
from hardware.cameras import CameraConfig, CameraError
from hardware.errors import BusError
from hardware.robots import make_camera
from hardware.so100.arm import IDS, SO100, SO100Config, check_servos, configure
from hardware.so100.bus import Bus
from hardware.so100.calibration import save_calibration
from hardware.so100.emulator.service import VirtualArmConfig, VirtualArmService
from hardware.virtual.client import SceneClient

from ..clocks import eventually, retried
from .virtual_arms import served

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs pseudo-terminals")


@pytest.fixture
def service(tmp_path):
    """A virtual arm in a thread."""
    with served(VirtualArmService(VirtualArmConfig(tmp_path / "arm"))) as service:
        yield service


@pytest.fixture
def bus(service):
    bus = Bus(str(service.config.port))
    bus.open()
    yield bus
    bus.close()


@pytest.fixture
def arm(service, tmp_path):
    save_calibration(tmp_path / "calibration.json", service.calibration)
    config = SO100Config(str(service.config.port), tmp_path / "calibration.json")
    arm = SO100(config)
    yield arm
    with contextlib.suppress(UserError):
        arm.close()


def test_read_write_ping(bus):
    assert bus.find() == list(IDS)
    assert bus.ping(3)
    assert not bus.ping(9)
    assert bus.read(2, "Model_Number") == 777
    bus.write(2, "P_Coefficient", 16)
    assert bus.read(2, "P_Coefficient") == 16
    assert set(bus.read_all(IDS, "Present_Position")) == set(IDS)


def test_a_value_that_does_not_fit_is_refused_before_it_is_sent(bus):
    with pytest.raises(BusError, match=r"Torque_Limit = 2000: expected .* 0 to 1000"):
        bus.write(1, "Torque_Limit", 2000)


def test_silent_servos_are_named(service, bus):
    service.wire.faults.set({"missing": 4})
    with pytest.raises(BusError, match=r"servo 4 on .* does not answer after 3") as e:
        bus.read_all(IDS, "Present_Position")
    assert e.value.silent == (4,)
    service.wire.faults.set({"missing": 0, "no_power": True})
    with pytest.raises(BusError, match=r"no servo on .* power supply"):
        bus.read_all(IDS, "Present_Position")


def test_a_pulled_cable_is_one_sentence(bus, monkeypatch):
    def gone():
        raise pytest.importorskip("termios").error(5, "Input/output error")

    monkeypatch.setattr(bus._serial, "reset_input_buffer", gone)
    with pytest.raises(BusError, match=r"connection to .* is lost: .*Input/output"):
        bus.read(1, "Model_Number")


def test_lost_and_damaged_answers_are_asked_again(service, bus):
    service.wire.faults.set({"lost": 0.05, "corrupted": 0.05, "noise": 0.2})
    bus.tries = 8  # one answer in ten is bad
    for _ in range(60):
        got = bus.read_all(IDS, "Present_Position")
        # The arm sinks meanwhile, slowly: its torque is off.
        right = {s.id: s.position for s in service.arm.servos}
        assert all(abs(got[id] - right[id]) < 40 for id in IDS)
    assert bus.traffic.retries > 0


def test_a_late_answer_does_not_pass_for_the_next_one(service, bus):
    service.wire.faults.set({"late": 1.0, "late_by": 0.1})
    bus.tries = 1
    with pytest.raises(BusError, match="in time"):
        bus.read(1, "Model_Number")
    service.wire.faults.set({"late": 0.0})
    bus.clock.wait_until(bus.clock.now() + 0.15)
    assert bus.read(1, "Firmware_Major_Version") == 3


def test_the_wrong_rate_gives_silence(service):
    if service.baud() is None:
        pytest.skip("this system does not tell the rate")
    bus = Bus(str(service.config.port), baud=500_000)
    bus.open()
    with pytest.raises(BusError, match="500000 baud"):
        bus.read_all(IDS, "Present_Position")
    bus.set_baud(1_000_000)
    assert bus.ping(1)
    bus.close()


def test_ports_that_cannot_be_opened(service, bus, tmp_path):
    with pytest.raises(BusError, match=r"plug in a virtual arm.* act virtual --port"):
        Bus("virtual").open()  # a word of teleop, record and deploy
    with pytest.raises(BusError, match=r"no serial port .*nowhere.* act ports"):
        Bus(str(tmp_path / "nowhere")).open()
    with pytest.raises(BusError, match="in use by another program"):
        Bus(str(service.config.port)).open()


# ---------------------------------------------------------------- the arm


def test_connect_moves_nothing(service, arm):
    data = service.arm.data  # limp, it sinks until something carries it
    eventually(lambda: data.time > 1.0 and np.abs(data.qvel[:6]).max() < 1e-3)
    before = service.arm.data.qpos[:6].copy()
    arm.connect()
    arm.bus.clock.wait_until(arm.bus.clock.now() + 0.3)
    assert all(s.torque_on for s in service.arm.servos)
    assert np.abs(service.arm.data.qpos[:6] - before).max() < 0.02
    assert service.arm.witness.pull.max() < 0.02


def test_what_is_measured_is_where_the_arm_is(service, arm):
    arm.connect()
    seen = arm.observe()
    there = service.scene.task.state(service.arm.data.qpos[None])[0]
    assert seen["qpos"].shape == (1, 6)
    assert seen["qpos"][0] == pytest.approx(there, abs=3e-3)
    assert np.abs(seen["qvel"]).max() < 0.1
    assert arm.health.voltage == pytest.approx(np.full(6, 7.4), abs=0.1)
    assert arm.health.faults == {}


def test_the_tick_is_kept(arm):
    arm.connect()
    here = arm.observe()["qpos"]
    clock = arm.ticker.clock

    def fifteen_ticks():
        arm.ticker.start()
        start = clock.now()
        for _ in range(15):
            arm.observe()
            arm.act(here)
        assert clock.now() - start == pytest.approx(0.5, abs=0.05)
        assert arm.ticker.report()["late_share"] < 0.1

    retried(fifteen_ticks)


FAULTS_AT_CONNECT = {
    "missing": (3, r"servo 3 \(elbow_flex\) .* does not answer"),
    "wrong_model": (2, r"servo 2 \(shoulder_lift\) .* model 1284, expected 777"),
    "old_firmware": (5, r"different firmware versions .*5: 3.9"),
    "overload": (4, r"servo 4 \(wrist_flex\) reports: overload"),
    "overheat": (1, r"servo 1 \(shoulder_pan\) reports: overheat"),
    "doubled": (6, r"servo 6 \(gripper\)"),
    "no_power": (True, "no servo on .* power supply"),
    "unplugged": (True, "no servo on .* power supply"),
}


@pytest.mark.parametrize("fault", FAULTS_AT_CONNECT)
def test_a_fault_at_connect_is_one_sentence_and_torque_stays_off(service, arm, fault):
    value, says = FAULTS_AT_CONNECT[fault]
    with SceneClient(service.config.port) as scene:
        scene.faults(**{fault: value})
    with pytest.raises(UserError, match=says):
        arm.connect()
    assert not any(s.torque_on for s in service.arm.servos)


def test_a_12_volt_supply_is_refused(service, arm):
    service.arm.supply = 12.0
    eventually(lambda: all(servo.supply == 12.0 for servo in service.arm.servos))
    with pytest.raises(UserError, match=r"gets 12.0 V, expected 4.0 to 8.0 V"):
        arm.connect()


def test_another_calibration_is_refused(service, arm):
    service.arm.servos[2].poke("Homing_Offset", 5)
    with pytest.raises(UserError, match="elbow_flex: Homing_Offset is 5 in the servo"):
        arm.connect()


def test_multi_turn_feedback_is_switched_off(service, arm):
    service.wire.faults.set({"multi_turn": 3})
    service.wire.apply_faults()
    arm.connect()
    assert not service.arm.servos[2].get("Phase") & 0x10


# ---------------------------------------------------------------- the scene


def test_the_scene_lays_the_cube_and_sees(service):
    with SceneClient(service.config.port) as scene:
        first = scene.look()["objects"]
        scene.lay(7)
        assert scene.look()["objects"] != first
        assert not scene.look()["success"]


def test_a_scene_without_an_arm_says_what_starts_one(tmp_path):
    with pytest.raises(UserError, match=r"no virtual arm at .* act virtual"):
        SceneClient(tmp_path / "none")


def test_two_virtual_arms_cannot_share_a_port(service):
    with pytest.raises(UserError, match="is there already"):
        VirtualArmService(service.config)


def test_virtual_cameras_run_at_their_rate(service):
    source = f"virtual:{service.config.port}"
    camera = make_camera("top", CameraConfig(source))
    camera.open()
    first = camera.read()
    assert first.image.shape == (96, 128, 3)
    last = eventually(lambda: (f := camera.read()).number >= first.number + 30 and f)
    camera.close()
    # By the arm's clock, which stands still where the computer is too busy to draw.
    rate = (last.number - first.number) / (last.time - first.time)
    assert rate == pytest.approx(30, rel=0.1)
    assert last.age < 0.25


def test_a_frozen_virtual_camera_is_noticed(service):
    camera = make_camera("top", CameraConfig(f"virtual:{service.config.port}"))
    camera.open()
    with SceneClient(service.config.port) as scene:
        scene.faults(frozen_camera="top")
    with pytest.raises(CameraError, match="'top' is frozen"):
        eventually(lambda: camera.read() is None)
    camera.close()


def test_a_camera_that_there_is_not(service):
    camera = make_camera("side", CameraConfig(f"virtual:{service.config.port}"))
    with pytest.raises(UserError, match="no camera 'side'"):
        camera.open()


# ---------------------------------------------------------------- the maker's SDK


@pytest.fixture
def sdk():
    """The SDK, whose source predates what Python now warns about."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import scservo_sdk
    return scservo_sdk


def test_the_makers_sdk_understands_the_virtual_arm(service, sdk):
    port = sdk.PortHandler(str(service.config.port))
    assert port.openPort()
    assert port.setBaudRate(1_000_000)
    packets = sdk.PacketHandler(0)

    def talk():  # it knows the computer's clock only, and gives up after milliseconds
        try:
            model, result, error = packets.ping(port, 3)
        except IndexError as late:  # it takes an answer that has not come for one
            raise AssertionError("the kit gave up too soon") from late
        assert (model, result, error) == (777, sdk.COMM_SUCCESS, 0)
        assert packets.write1ByteTxRx(port, 3, 21, 16) == (sdk.COMM_SUCCESS, 0)
        assert packets.read1ByteTxRx(port, 3, 21) == (16, sdk.COMM_SUCCESS, 0)
        group = sdk.GroupSyncRead(port, packets, 56, 2)
        for id in IDS:
            assert group.addParam(id)
        assert group.txRxPacket() == sdk.COMM_SUCCESS
        for servo in service.arm.servos:
            assert abs(group.getData(servo.id, 56, 2) - servo.position) <= 2

    retried(talk)
    goals = sdk.GroupSyncWrite(port, packets, 42, 2)
    for id in IDS:
        assert goals.addParam(id, [0x00, 0x08])
    assert goals.txPacket() == sdk.COMM_SUCCESS
    servos = service.arm.servos
    eventually(lambda: all(s.get("Goal_Position") == 2048 for s in servos))
    service.wire.faults.set({"missing": 3})
    assert packets.ping(port, 3)[1] == sdk.COMM_RX_TIMEOUT
    port.closePort()


def test_configure_and_check_leave_what_lerobot_would(bus):
    check_servos(bus)
    configure(bus)
    assert bus.read(6, "Max_Torque_Limit") == 500
    assert bus.read(1, "P_Coefficient") == 16
    assert bus.read(1, "Return_Delay_Time") == 0
    assert all(v == 0 for v in bus.read_all(IDS, "Torque_Enable").values())
