import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from act_minimal import devices

pytestmark = pytest.mark.quick


@pytest.fixture
def dev(tmp_path: Path) -> Path:
    """A pretended /dev with devices of several kinds."""
    folder = tmp_path / "dev"
    (folder / "serial" / "by-id").mkdir(parents=True)
    for name in ("ttyACM10", "ttyACM2", "ttyUSB0", "ttyS0", "tty", "video0", "video1"):
        (folder / name).touch()
    link = folder / "serial" / "by-id" / "usb-1a86_USB_Single_Serial-if00"
    link.symlink_to("../../ttyACM2")
    return folder


@pytest.fixture
def names(tmp_path: Path) -> Path:
    """A pretended /sys: one camera has two files, of which the second is metadata."""
    folder = tmp_path / "sys"
    for i in range(2):
        (folder / f"video{i}").mkdir(parents=True)
        (folder / f"video{i}" / "name").write_text("Wrist camera\n")
        (folder / f"video{i}" / "index").write_text(f"{i}\n")
    return folder


def answers(monkeypatch, code: str) -> None:
    """Let every camera answer what the code prints."""
    popen = subprocess.Popen
    monkeypatch.setattr(
        devices.subprocess,
        "Popen",
        lambda command, **options: popen([sys.executable, "-c", code], **options),
    )


def test_serial_ports_are_named_and_in_order(dev):
    ports = devices.find_serial_ports(dev)
    assert [port.path.name for port in ports] == ["ttyACM2", "ttyACM10", "ttyUSB0"]
    assert str(ports[0]) == f"{dev}/ttyACM2 (usb-1a86_USB_Single_Serial-if00)"
    assert str(ports[1]) == f"{dev}/ttyACM10"
    assert all(port.group is None for port in ports)


def test_a_port_that_may_not_be_opened_names_the_group(dev, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    monkeypatch.setattr(Path, "group", lambda path: "uucp")
    assert devices.find_serial_ports(dev)[0].group == "uucp"
    monkeypatch.setattr(Path, "group", lambda path: "root")
    assert devices.find_serial_ports(dev)[0].group == "dialout"


def test_no_devices(tmp_path):
    assert devices.find_serial_ports(tmp_path / "nowhere") == []
    assert devices.find_cameras(tmp_path / "nowhere", tmp_path) == []


def test_a_camera_hands_out_a_picture_and_its_metadata_file_is_skipped(
    dev, names, monkeypatch
):
    answers(monkeypatch, "print(640, 480)")
    [camera] = devices.find_cameras(dev, names, timeout=30)
    assert camera.path == dev / "video0"
    assert camera.size == (640, 480)
    assert str(camera).endswith("video0 (Wrist camera)")


def test_a_file_that_is_no_camera_has_no_picture(dev, names):
    [camera] = devices.find_cameras(dev, names, timeout=30)
    assert camera.size is None


def test_cameras_that_hang_are_given_up_together(dev, tmp_path, monkeypatch):
    answers(monkeypatch, "import time; time.sleep(60)")
    start = time.monotonic()
    cameras = devices.find_cameras(dev, tmp_path / "no names", timeout=0.5)
    assert time.monotonic() - start < 45  # not the minute that each would hang
    assert [camera.size for camera in cameras] == [None, None]


def test_a_camera_that_may_not_be_opened_is_not_tried(dev, names, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    monkeypatch.setattr(devices.subprocess, "Popen", None)  # calling it would raise
    [camera] = devices.find_cameras(dev, names)
    assert camera.group is not None


def test_can_interfaces_and_whether_they_are_up(tmp_path):
    for name, kind, flags in (
        ("can0", "280", "0x40080"),
        ("can1", "280", "0x400c1"),
        ("eth0", "1", "0x1003"),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "type").write_text(kind)
        (tmp_path / name / "flags").write_text(flags)
    (tmp_path / "bonding_masters").write_text("")
    assert devices.find_can_interfaces(tmp_path) == [("can0", False), ("can1", True)]
    assert devices.find_can_interfaces(tmp_path / "nowhere") == []
