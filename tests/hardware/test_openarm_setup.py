"""A look at the motors, and their zero."""

import os
import re

import numpy as np
import pytest

from act_minimal.support.errors import UserError
from hardware.openarm.__main__ import main
from hardware.openarm.bus import Bus
from hardware.openarm.motors import JOINTS
from hardware.openarm.protocol import Command, Status
from hardware.openarm.setup import look, set_zero

from .virtual_arms import driver, virtual

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs sockets with names")


@pytest.fixture
def service(clock, tmp_path):
    with virtual(clock, tmp_path, zeroed=False, newer=True, seed=1) as service:
        yield service


def test_a_look_at_every_motor(service, bus):
    service.fault(0, silent=6, rotor_hot=2)
    seen = look(bus)
    assert [one.joint for one in seen] == list(JOINTS)
    assert seen[5].status is None
    assert "silent" in str(seen[5])
    assert seen[1].status is Status.ROTOR_TOO_HOT
    assert "rotor too hot" in str(seen[1])
    assert "VMAX 10 rad/s" in str(seen[2])
    assert "24.0 V" in str(seen[0])
    assert "joint7   motor 7: DM4310, disabled" in str(seen[6])


def test_a_look_says_which_motor_joint_7_is(clock, tmp_path):
    with virtual(clock, tmp_path, light_wrist=True) as service:
        service.arm.motors[0][4].poke("TMAX", 54.0)
        bus = Bus(service.config.right, side="right")
        bus.open()
        seen = look(bus)
        bus.close()
    assert [one.type for one in seen] == [
        *("DM8009", "DM8009", "DM4340", "DM4340", ""),
        *("DM4310", "DM3507", "DM4310"),
    ]
    assert "motor 7: DM3507, disabled" in str(seen[6])
    assert "motor 5: unexpected type with TMAX 54 N·m" in str(seen[4])


def test_zero(service, bus):
    shafts = np.array([m.position for m in service.arm.motors[0]])
    assert np.abs(shafts).max() > 0.5  # nobody has set it up
    bus.command([3], Command.ENABLE)
    asked, said = [], []
    set_zero(bus, asked.append, said.append)
    assert "the right arm hang straight down" in asked[0]
    assert len(said) == 8
    for motor in service.arm.motors[0]:
        assert motor.position == pytest.approx(0, abs=0.01)
        assert motor.status is Status.DISABLED


def test_an_arm_that_still_swings_is_not_zeroed(service, bus):
    before = [m.zero for m in service.arm.motors[0]]

    def push(_):
        service.arm.put(0.5 * np.ones(16), hold=False)
        service.clock.sleep(0.15)

    with pytest.raises(UserError, match=r"still turns with .* rad/s"):
        set_zero(bus, push, str)
    assert [m.zero for m in service.arm.motors[0]] == before


def test_without_a_zero_the_arm_stays_without_torque(service):
    arm = driver(service)
    with pytest.raises(
        UserError, match=r"_joint\d says .* outside its .*zero is not set"
    ):
        arm.connect()
    service.clock.sleep(0.2)
    # What carries the arm's weight would have pushed it with 1.3 rad/s.
    assert service.arm.witness.speed[:7].max() < 0.2
    assert service.arm.witness.torque.max() == 0.0


def run(monkeypatch, *words):
    monkeypatch.setattr("sys.argv", ["openarm", *words])
    main()


def test_the_command_that_looks(service, monkeypatch, capsys):
    config = service.config
    run(monkeypatch, "look", "--right", config.right, "--left", config.left)
    printed = capsys.readouterr().out
    assert printed.count("VMAX") == 16
    assert f"left arm, {config.left}" in printed


def test_the_command_that_sets_the_zero(service, monkeypatch, capsys):
    monkeypatch.setattr("builtins.input", lambda text="": "")
    run(monkeypatch, "zero", "--channel", service.config.left, "--side", "left")
    assert capsys.readouterr().out.count("is now 0") == 8
    assert all(abs(m.position) < 0.01 for m in service.arm.motors[1])


def test_the_first_movement(clock, tmp_path, monkeypatch, capsys):
    with virtual(clock, tmp_path) as service:
        config = service.config
        words = ("--right", config.right, "--left", config.left, "--seconds", "0.5")
        run(monkeypatch, "move", *words)
        assert re.search(r"there, 0\.0\d\d rad off", capsys.readouterr().out)
        assert service.arm.witness.highest[3] == pytest.approx(np.pi / 2, abs=0.05)
        assert service.arm.witness.falls == 0
        assert np.abs(service.arm.state[:7]).max() < 0.1


def test_a_bus_that_is_not_there_ends_the_command_with_its_sentence(monkeypatch):
    with pytest.raises(SystemExit, match="ip link set nocan7 up"):
        run(monkeypatch, "look", "--right", "nocan7")
