"""Cameras, serial ports and CAN interfaces that are here, without keeping any."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..support.extras import require

CAMERA_TIMEOUT_S = 2.0  # a healthy camera hands out a picture in about half of that
# USB adapters by name, where the system does not tell of which device a port is.
USB_NAMES = ("ttyACM", "ttyUSB", "cu.usbmodem", "cu.usbserial", "cu.wchusbserial")
JETSON_UART = "ttyTHS"  # pyserial does not list these
# Where cameras have no files: how many numbers are tried, and through which part of
# OpenCV, so that a number means the same camera to whoever opens it.
CAMERA_NUMBERS = 4
CAMERA_BACKENDS = {"darwin": "CAP_AVFOUNDATION", "win32": "CAP_DSHOW"}


@dataclass(frozen=True)
class Device:
    """One camera or serial port.

    Attributes:
        path: The file that stands for it, as ``/dev/video0``; on Windows ``COM3``, and
            of cameras without a file their number.
        name: What the maker calls it; "" where the system does not say.
        group: Whose members may open it, where we may not; None where we may.
        size: (width, height) of a camera's picture, pixels; None where there was none.
        vendor: USB number of a serial port's maker; None where the system does not say.
    """

    path: Path
    name: str = ""
    group: str | None = None
    size: tuple[int, int] | None = None
    vendor: int | None = None

    def __str__(self) -> str:
        return f"{self.path} ({self.name})" if self.name else str(self.path)


def find_serial_ports(dev: Path = Path("/dev")) -> list[Device]:
    """Serial ports over USB, as the servo bus of an SO-100, and a Jetson's own."""
    require("arms", "serial")
    from serial.tools import list_ports

    names = {  # "usb-1a86_USB_Single_Serial_..." says more than "ttyACM0"
        link.resolve(): link.name for link in _listed(dev / "serial" / "by-id")
    }
    found: dict[Path, Any] = {
        Path(port.device): port for port in list_ports.comports() if _is_usb(port)
    }
    if sys.platform == "linux":
        found |= {path: None for path in _numbered(dev, JETSON_UART)}
    return [
        Device(
            path,
            names.get(path.resolve(), _described(found[path])),
            _closed_group(path, "dialout"),
            vendor=found[path].vid if found[path] else None,
        )
        for path in sorted(found, key=_number)
    ]


def _is_usb(port: Any) -> bool:
    """Whether a port that pyserial lists is an adapter's, no board's or radio's."""
    return port.vid is not None or Path(port.device).name.startswith(USB_NAMES)


def _described(port: Any) -> str:
    """What pyserial says a port is; it says "n/a" where it does not know."""
    return "" if port is None or port.description in (None, "n/a") else port.description


def find_can_interfaces(net: Path = Path("/sys/class/net")) -> list[tuple[str, bool]]:
    """CAN interfaces by name, and whether each is up (Linux).

    python-can lists those that can be opened now, the system those that are down, too.
    """
    require("arms", "can")
    import can

    log = logging.getLogger("can")  # where the command `ip` is missing, it complains
    level = log.level
    log.setLevel(logging.CRITICAL)
    up = [str(c["channel"]) for c in can.detect_available_configs("socketcan")]
    log.setLevel(level)
    known = {
        path.name: int(_text(path / "flags") or "0", 16) & 1 == 1
        for path in _listed(net)
        if _text(path / "type") == "280"  # ARPHRD_CAN
    }
    return sorted((known | dict.fromkeys(up, True)).items())


def find_cameras(
    dev: Path = Path("/dev"),
    names: Path = Path("/sys/class/video4linux"),
    timeout: float = CAMERA_TIMEOUT_S,
) -> list[Device]:
    """Cameras, each asked for one picture; all together may take `timeout` s.

    They are opened side by side and in other processes, because a camera behind a bad
    cable can hang the process that opens it. On Linux they have files; on macOS and
    Windows the first numbers are tried, and those that show a picture are returned.
    """
    found, probes = [], {}
    if sys.platform in CAMERA_BACKENDS:
        backend = CAMERA_BACKENDS[sys.platform]
        probes = {i: _probe(f"{i}, cv2.{backend}") for i in range(CAMERA_NUMBERS)}
        deadline = time.monotonic() + timeout
        sizes = {i: _picture_size(probe, deadline) for i, probe in probes.items()}
        return [Device(Path(str(i)), size=size) for i, size in sizes.items() if size]
    for path in _numbered(dev, "video"):
        about = names / path.name
        if _text(about / "index") not in ("", "0"):
            continue  # not a camera, but the metadata of one
        device = Device(path, _text(about / "name"), _closed_group(path, "video"))
        found.append(device)
        if device.group is None:
            probes[path] = _probe(f"{str(path)!r}, cv2.CAP_V4L2")
    deadline = time.monotonic() + timeout
    sizes = {path: _picture_size(probe, deadline) for path, probe in probes.items()}
    return [
        Device(device.path, device.name, device.group, sizes.get(device.path))
        for device in found
    ]


def _probe(camera: str) -> subprocess.Popen:
    """A process that prints how large a picture is; `camera`: OpenCV's arguments."""
    code = (
        f"import cv2; camera = cv2.VideoCapture({camera}); "
        "ok, image = camera.read(); print(*image.shape[1::-1])"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        encoding="utf-8",
    )


def _picture_size(probe: subprocess.Popen, deadline: float) -> tuple[int, int] | None:
    try:
        answer, _ = probe.communicate(timeout=max(0.05, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        probe.kill()
        answer, _ = probe.communicate()
    words = answer.split()
    return (int(words[0]), int(words[1])) if len(words) == 2 else None


def _closed_group(path: Path, usual: str) -> str | None:
    """The group to join before a device can be opened; None if it can be already."""
    if sys.platform == "win32" or os.access(path, os.R_OK | os.W_OK):
        return None
    try:
        group = path.group()
    except (KeyError, OSError, NotImplementedError):
        return usual
    return usual if group == "root" else group  # root's group opens far too much


def _numbered(folder: Path, prefix: str) -> list[Path]:
    found = [path for path in _listed(folder) if path.name.startswith(prefix)]
    return sorted(found, key=_number)


def _number(path: Path) -> tuple[str, int, str]:
    return path.name.rstrip("0123456789"), len(path.name), path.name


def _listed(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8").strip() if path.is_file() else ""
