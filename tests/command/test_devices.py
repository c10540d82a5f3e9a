import json
import os
import subprocess
import sys
import time
from pathlib import Path

import can
import pytest
from serial.tools import list_ports
from serial.tools.list_ports_common import ListPortInfo

from act_minimal.command import devices

from ..commands import act

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


def plugged(monkeypatch, platform: str, *ports: tuple[str, str, int | None]) -> None:
    """Let pyserial list (device, description, vendor) on a platform."""
    monkeypatch.setattr(sys, "platform", platform)
    listed = []
    for device, description, vendor in ports:
        info = ListPortInfo(device)
        info.description, info.vid = description, vendor
        listed.append(info)
    monkeypatch.setattr(list_ports, "comports", lambda: listed)


WCH = 0x1A86


def test_serial_ports_are_named_and_in_order(dev, monkeypatch):
    (dev / "ttyTHS1").touch()
    plugged(
        monkeypatch,
        "linux",
        (f"{dev}/ttyACM10", "USB Serial", WCH),
        (f"{dev}/ttyUSB0", "n/a", None),
        (f"{dev}/ttyACM2", "Serial", WCH),
        (f"{dev}/ttyS0", "ttyS0", None),
    )
    ports = devices.find_serial_ports(dev)
    assert [str(port) for port in ports] == [
        f"{dev}/ttyACM2 (usb-1a86_USB_Single_Serial-if00)",
        f"{dev}/ttyACM10 (USB Serial)",
        f"{dev}/ttyTHS1",  # a Jetson's own, which pyserial omits
        f"{dev}/ttyUSB0",
    ]
    assert [port.vendor for port in ports] == [WCH, WCH, None, None]
    assert all(port.group is None for port in ports)


def test_serial_ports_on_macos(tmp_path, monkeypatch):
    plugged(
        monkeypatch,
        "darwin",
        ("/dev/cu.wchusbserial5A7B0", "n/a", None),
        ("/dev/cu.usbmodem58FA1", "USB Single Serial", WCH),
        ("/dev/cu.Bluetooth-Incoming-Port", "n/a", None),
        ("/dev/cu.usbserial-110", "FT232R", 0x0403),
    )
    monkeypatch.setattr(os, "access", lambda path, mode: True)
    ports = devices.find_serial_ports(tmp_path)
    assert {str(port) for port in ports} == {
        "/dev/cu.wchusbserial5A7B0",
        "/dev/cu.usbmodem58FA1 (USB Single Serial)",
        "/dev/cu.usbserial-110 (FT232R)",
    }


def test_serial_ports_on_windows(tmp_path, monkeypatch):
    plugged(
        monkeypatch,
        "win32",
        ("COM12", "USB-Enhanced-SERIAL CH343 (COM12)", WCH),
        ("COM3", "USB-SERIAL CH340 (COM3)", WCH),
        ("COM1", "Communications Port (COM1)", None),
    )
    ports = devices.find_serial_ports(tmp_path)
    assert [str(port.path) for port in ports] == ["COM3", "COM12"]
    assert ports[0].name == "USB-SERIAL CH340 (COM3)"
    assert [port.group for port in ports] == [None, None]


def test_a_port_that_may_not_be_opened_names_the_group(dev, monkeypatch):
    plugged(monkeypatch, "linux", (f"{dev}/ttyACM2", "Serial", WCH))
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    monkeypatch.setattr(Path, "group", lambda path: "uucp")
    assert devices.find_serial_ports(dev)[0].group == "uucp"
    monkeypatch.setattr(Path, "group", lambda path: "root")
    assert devices.find_serial_ports(dev)[0].group == "dialout"


def test_no_devices(tmp_path, monkeypatch):
    plugged(monkeypatch, "linux")
    assert devices.find_serial_ports(tmp_path / "nowhere") == []
    assert devices.find_cameras(tmp_path / "nowhere", tmp_path) == []


@pytest.mark.parametrize(
    ("platform", "backend"), [("darwin", "AVFOUNDATION"), ("win32", "DSHOW")]
)
def test_cameras_by_number_where_they_have_no_files(monkeypatch, platform, backend):
    monkeypatch.setattr(sys, "platform", platform)
    popen, asked = subprocess.Popen, []

    def answer(command, **options):
        asked.append(command[2])
        number = int(command[2].split("VideoCapture(")[1][0])
        code = "print(1280, 720)" if number in (0, 2) else "pass"
        return popen([sys.executable, "-c", code], **options)

    monkeypatch.setattr(devices.subprocess, "Popen", answer)
    cameras = devices.find_cameras(timeout=30)
    assert [(str(c.path), c.size) for c in cameras] == [
        ("0", (1280, 720)),
        ("2", (1280, 720)),
    ]
    assert all(f"cv2.CAP_{backend})" in code for code in asked)


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


def test_can_interfaces_and_whether_they_are_up(tmp_path, monkeypatch):
    for name, kind, flags in (
        ("can0", "280", "0x40080"),
        ("can1", "280", "0x400c1"),
        ("eth0", "1", "0x1003"),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "type").write_text(kind)
        (tmp_path / name / "flags").write_text(flags)
    (tmp_path / "bonding_masters").write_text("")
    # python-can knows those that are up, and one more that the folder does not show.
    up = [{"interface": "socketcan", "channel": name} for name in ("can1", "vcan0")]
    monkeypatch.setattr(can, "detect_available_configs", lambda kind: up)
    found = devices.find_can_interfaces(tmp_path)
    assert found == [("can0", False), ("can1", True), ("vcan0", True)]
    monkeypatch.setattr(can, "detect_available_configs", lambda kind: [])
    assert devices.find_can_interfaces(tmp_path) == [("can0", False), ("can1", True)]
    assert devices.find_can_interfaces(tmp_path / "nowhere") == []


def test_without_ip_nobody_complains(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert devices.find_can_interfaces(tmp_path) == []
    assert capfd.readouterr() == ("", "")


def test_act_ports_says_what_is_there_and_which_names_stay(monkeypatch):
    stable = "usb-1a86_USB_Single_Serial_5A46-if00"
    here = [devices.Device(Path("/dev/ttyACM0"), stable)]
    monkeypatch.setattr(devices, "find_serial_ports", lambda: here)
    monkeypatch.setattr(devices, "find_can_interfaces", lambda: [("can0", False)])
    code, said, _ = act("ports")
    assert code == 0
    assert f"/dev/ttyACM0 ({stable})\ncan0 (CAN, down)\n" in said
    assert "give each its name under /dev/serial/by-id" in said
    assert json.loads(act("ports --json")[1]) == {
        "ports": [f"/dev/ttyACM0 ({stable})"],
        "can": [{"name": "can0", "up": False}],
    }
    monkeypatch.setattr(devices, "find_serial_ports", lambda: [])
    code, said, _ = act("ports")
    assert (code, "no serial port over USB is here" in said) == (0, True)
    assert "by-id" not in said
