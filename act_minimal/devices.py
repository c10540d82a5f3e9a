"""Cameras, serial ports and CAN interfaces that are here, without keeping any."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

CAMERA_TIMEOUT_S = 2.0  # a healthy camera hands out a picture in about half of that
SERIAL_PREFIXES = ("ttyACM", "ttyUSB", "tty.usbmodem", "tty.usbserial")


@dataclass(frozen=True)
class Device:
    """One camera or serial port.

    Attributes:
        path: The file that stands for it, as ``/dev/video0``.
        name: What the maker calls it; "" where the system does not say.
        group: Whose members may open it, where we may not; None where we may.
        size: (width, height) of a camera's picture in pixels; None where there was
            none, and for serial ports.
    """

    path: Path
    name: str = ""
    group: str | None = None
    size: tuple[int, int] | None = None

    def __str__(self) -> str:
        """The path and the name."""
        return f"{self.path} ({self.name})" if self.name else str(self.path)


def find_serial_ports(dev: Path = Path("/dev")) -> list[Device]:
    """Serial ports over USB, as the servo bus of an SO-100 (Linux and macOS)."""
    names = {  # "usb-1a86_USB_Single_Serial_..." says more than "ttyACM0"
        link.resolve(): link.name for link in _listed(dev / "serial" / "by-id")
    }
    return [
        Device(path, names.get(path.resolve(), ""), _closed_group(path, "dialout"))
        for prefix in SERIAL_PREFIXES
        for path in _numbered(dev, prefix)
    ]


def find_can_interfaces(net: Path = Path("/sys/class/net")) -> list[tuple[str, bool]]:
    """CAN interfaces by name, and whether each is up (Linux)."""
    return [
        (path.name, int(_text(path / "flags") or "0", 16) & 1 == 1)
        for path in _listed(net)
        if _text(path / "type") == "280"  # ARPHRD_CAN
    ]


def find_cameras(
    dev: Path = Path("/dev"),
    names: Path = Path("/sys/class/video4linux"),
    timeout: float = CAMERA_TIMEOUT_S,
) -> list[Device]:
    """Cameras, each asked for one picture (Linux).

    They are opened side by side and in other processes, because a camera behind a bad
    cable can hang the process that opens it.

    Args:
        dev: Folder of the device files.
        names: Folder where the system describes them.
        timeout: Seconds that all cameras together may take.
    """
    code = (
        "import cv2, sys; camera = cv2.VideoCapture(sys.argv[1], cv2.CAP_V4L2); "
        "ok, image = camera.read(); print(*image.shape[1::-1])"
    )
    found, probes = [], {}
    for path in _numbered(dev, "video"):
        about = names / path.name
        if _text(about / "index") not in ("", "0"):
            continue  # not a camera, but the metadata of one
        device = Device(path, _text(about / "name"), _closed_group(path, "video"))
        found.append(device)
        if device.group is None:
            probes[path] = subprocess.Popen(
                [sys.executable, "-c", code, str(path)],
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                encoding="utf-8",
            )
    deadline = time.monotonic() + timeout
    sizes = {path: _picture_size(probe, deadline) for path, probe in probes.items()}
    return [
        Device(device.path, device.name, device.group, sizes.get(device.path))
        for device in found
    ]


def _picture_size(probe: subprocess.Popen, deadline: float) -> tuple[int, int] | None:
    """Wait for a camera's answer until the deadline (seconds, monotonic)."""
    try:
        answer, _ = probe.communicate(timeout=max(0.05, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        probe.kill()
        answer, _ = probe.communicate()
    words = answer.split()
    return (int(words[0]), int(words[1])) if len(words) == 2 else None


def _closed_group(path: Path, usual: str) -> str | None:
    """The group to join before a device can be opened; None if it can be already."""
    if os.access(path, os.R_OK | os.W_OK):
        return None
    try:
        group = path.group()
    except (KeyError, OSError, NotImplementedError):
        return usual
    return usual if group == "root" else group  # root's group opens far too much


def _numbered(folder: Path, prefix: str) -> list[Path]:
    """Devices of one kind, video2 before video10."""
    found = [path for path in _listed(folder) if path.name.startswith(prefix)]
    return sorted(found, key=lambda path: (len(path.name), path.name))


def _listed(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8").strip() if path.is_file() else ""
