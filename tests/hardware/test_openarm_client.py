"""The virtual arm against an independent client, and between two processes."""

import contextlib
import os
import socket

import numpy as np
import pytest

from act_minimal.support.errors import UserError
from hardware.openarm.arm import OpenArm, OpenArmConfig
from hardware.openarm.bus import Bus
from hardware.openarm.emulator.service import (
    VirtualOpenArmConfig,
    VirtualOpenArmService,
)
from hardware.openarm.motors import ARM_MOTORS, IDS
from hardware.virtual.client import SceneClient, VirtualArmProcess

from ..clocks import eventually
from .virtual_arms import RAISED, config_of, hold, served

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs sockets with names")


# ---------------------------------------------------------------- damiao-motor


@pytest.fixture
def client(tmp_path):
    """A right arm in classic CAN, newer DM4340, and damiao-motor on its bus."""
    from damiao_motor import DaMiaoController

    config = config_of(tmp_path, fd=False, newer=True)
    with served(VirtualOpenArmService(config)) as service:
        channel = service.config.right.removeprefix("virtual:")
        with pytest.warns(DeprecationWarning, match="bustype"):
            client = DaMiaoController(channel, "virtual")
        for motor in ARM_MOTORS:
            client.add_motor(motor.id, motor.master, motor.type.name.removeprefix("DM"))
        # Moved by the service's own thread: physics that two threads touch may crash.
        with SceneClient(service.config.port) as scene:
            yield service, client, scene
        client.shutdown()


def test_damiao_motor_reads_the_registers(client):
    _, client, _ = client
    for motor in ARM_MOTORS:
        found = client.get_motor(motor.id)
        assert found.get_register(21) == motor.type.scale.position
        assert found.get_register(22) == found._v_max
        assert found.get_register(23) == motor.type.scale.torque
        assert found.get_register(7) == motor.master
        assert found.get_register(8) == motor.id
    table = client.get_motor(1).read_all_registers()
    errors = [rid for rid, value in table.items() if isinstance(value, str)]
    assert set(errors) <= {56, 63, 64, 65}  # of which nobody else knows


def test_damiao_motor_moves_the_arm(client):
    service, client, scene = client
    scene.put(RAISED)
    elbow = client.get_motor(4)
    client.enable_all()
    eventually(lambda: elbow.get_states().get("status") == "ENABLED")
    wished = service.arm.kinematics.angles_of(RAISED)[:8]
    wished[3] = 1.2
    kp = [230, 230, 190, 190, 30, 30, 30, 10]

    def there():
        for id in IDS:
            client.send_cmd(id, wished[id - 1], stiffness=kp[id - 1], damping=2.0)
        return abs(service.arm.state[3] - 1.2) < 0.05 and abs(elbow.state["vel"]) < 0.1

    eventually(there)
    seen = elbow.get_states()
    assert seen["arbitration_id"] == 0x14
    assert seen["pos"] == pytest.approx(service.arm.state[3], abs=0.05)
    # The law of the mode: stiffness times the distance, less damping times the speed.
    law = 190 * (1.2 - seen["pos"]) - 2.0 * seen["vel"]
    assert seen["torq"] == pytest.approx(law, abs=0.5)
    client.disable_all()
    eventually(lambda: elbow.get_states()["status"] == "DISABLED")


def test_damiao_motor_sets_zero_mode_and_timeout(client):
    service, client, scene = client
    motor, virtual = client.get_motor(8), service.arm.motors[0][7]
    motor.set_can_timeout(100)
    eventually(lambda: virtual.get("TIMEOUT") == 2000)
    motor.write_register(10, 4)
    eventually(lambda: virtual.get("CTRL_MODE") == 4)
    motor.store_parameters()
    eventually(lambda: virtual.saved[9] == b"\xd0\x07\0\0")
    scene.put(RAISED)
    elbow = client.get_motor(4)
    elbow.set_zero_position()
    eventually(lambda: abs(elbow.get_states().get("pos", 9.0)) < 0.01)


def test_damiao_motor_sees_faults_and_clears_them(client):
    service, client, _ = client
    elbow = client.get_motor(4)

    def says(status):
        elbow.request_motor_feedback()
        return elbow.get_states().get("status") == status

    service.fault(0, overload=4)
    eventually(lambda: says("OVERLOAD"))
    service.fault(0, overload=0)
    elbow.clear_error()
    eventually(lambda: says("DISABLED"))


# ---------------------------------------------------------------- two processes


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("", 0))
        return probe.getsockname()[1]


@pytest.fixture
def outside(tmp_path):
    """A virtual OpenArm in a process of its own, on udp_multicast."""
    buses = (f"udp_multicast:239.74.163.2:{free_port()}" for _ in range(2))
    config = VirtualOpenArmConfig(tmp_path / "arm", *buses)
    try:
        with contextlib.closing(Bus(config.right)) as probe:
            probe.open()
    except UserError as error:
        pytest.skip(f"this computer has no multicast: {error}")
    with VirtualArmProcess(config) as process:
        yield process


def test_across_processes(outside):
    config = outside.config
    arm = OpenArm(OpenArmConfig(config.right, config.left, gains="firm"))
    outside.scene.put(RAISED)
    arm.connect()
    outside.scene.ask(forget=True)
    hold(arm, 0.5)
    seen = arm.observe()
    there = outside.scene.look()
    assert seen["qpos"][0] == pytest.approx(np.array(there["joints"]), abs=0.02)
    assert all(there["torque"])
    assert max(there["witness"]["speed"][:7]) < 1.0
    # This bus shows everybody everything, own frames too.
    assert all(bus.traffic.echoes > 100 for bus in arm.buses)
    assert not any(bus.traffic.strangers for bus in arm.buses)
    outside.scene.faults(right={"silent": 2})
    with pytest.raises(UserError, match=r"motor 2 \(right joint2\) on udp_multicast"):
        hold(arm, 1.0)
    outside.scene.faults(right={"silent": 0})
    arm.close()
    assert not any(outside.scene.look()["torque"])
    outside.scene.ask(power={"left": False})
    left = Bus(config.left, side="left")
    left.open()
    with pytest.raises(UserError, match="no motor of the left arm"):
        left.refresh()
    left.close()


def test_the_scene_refuses_what_it_does_not_know(outside):
    for wish, says in (
        ({"dance": True}, "a virtual arm knows no 'dance'"),
        ({"faults": {"middle": {}}}, "the side is 'middle', expected: right or left"),
        ({"faults": {"left": {"slient": 1}}}, "no fault 'slient'"),
        ({"lay": 3}, "has no objects to lay"),
    ):
        with pytest.raises(UserError, match=says):
            outside.scene.ask(**wish)
