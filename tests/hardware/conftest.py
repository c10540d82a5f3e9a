"""A virtual OpenArm that lives in a clock's time, its bus and its driver."""

import contextlib

import pytest

from act_minimal.support.errors import UserError
from hardware.openarm.bus import Bus

from .virtual_arms import Clock, driver, virtual


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    openarm = ("openarm.bus", "openarm.arm", "openarm.emulator.service")
    for module in (*openarm, "clock"):
        monkeypatch.setattr(f"hardware.{module}.time", clock, raising=False)
    monkeypatch.setattr(Bus, "_receive", lambda bus, s: clock.receive(bus, s))
    return clock


@pytest.fixture
def service(clock, tmp_path):
    with virtual(clock, tmp_path) as service:
        yield service


@pytest.fixture
def bus(service):
    bus = Bus(service.config.right, side="right")
    bus.open()
    yield bus
    bus.close()


@pytest.fixture
def arm(service):
    arm = driver(service)
    yield arm
    with contextlib.suppress(UserError):
        arm.close()
