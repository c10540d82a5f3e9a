"""Cameras that know how old their picture is, and notice when it stops changing.

Every source is read by a thread of its own, which keeps the newest picture only: a
control loop never waits for a camera, and never sees a picture that queued somewhere.

    opencv     a USB camera, or any file or stream that OpenCV can open
    virtual    a camera of a virtual arm, from its socket
    own        a class of one's own, see docs/bring_your_own.md

A camera is named in one line: ``top=0``, ``wrist=/dev/video2``, ``top=film.mp4``,
``top=virtual:virtual_so100``, ``top=module:Class``; what is fixed follows after commas,
as in ``top=0,exposure=150,white_balance=4600,rotate=180``.
"""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import cv2
import numpy as np

from act_minimal.command.devices import CAMERA_BACKENDS
from act_minimal.support.errors import UserError
from act_minimal.support.plugins import load_class
from act_minimal.support.validation import Count, Positive, check_settings

from .clock import clock_of
from .stream import COMPUTER, Message, Source, Stream

USUAL_SIZE = (96, 128)  # (H, W) of pictures, where nobody asks for another
FIRST_FRAME = 5.0  # s that a camera may take to start
FIRST_DRAWN = 60.0  # s, the same for a virtual one, which a busy computer holds up
VIRTUAL_CAMERA = "virtual:"  # before the port of the virtual arm that is meant
AHEAD = 0.1  # s: a picture from a later time was stamped by another clock
FROZEN_AFTER = 1.0  # s; sensor noise alone changes a live picture at every frame


class Frame(Message):
    """A picture and when it was taken."""

    @property
    def image(self) -> np.ndarray:
        """(H, W, 3) uint8, RGB."""
        return self.content


@dataclass
class CameraConfig:
    """How a camera is opened and what is asked of it.

    What is fixed here stays as it was in the demonstrations: automatic exposure and
    white balance change a picture's colours when the arm moves into it.
    """

    source: str
    """A number, a device, a file, module:Class, or virtual:<port of the virtual arm>,
    where #<camera> follows if it is called otherwise there."""
    size: tuple[Count, Count] = USUAL_SIZE
    """(H, W) of the pictures handed out."""
    capture: tuple[Count, Count] = (480, 640)
    """(H, W) asked of a real camera, or `size` if that is larger; reduced by area."""
    fps: Positive = 30.0
    mjpg: bool = True
    """Compressed over USB, so that two cameras fit on one controller."""
    exposure: float | None = None
    """Fixed exposure in the driver's unit; None leaves it automatic, with a warning."""
    white_balance: float | None = None
    """Fixed colour temperature in K; None leaves it automatic."""
    rotate: Literal[0, 90, 180, 270] = 0
    """Degrees clockwise: 0, 90, 180 or 270."""
    stale: Positive = 0.25
    """Seconds after which the newest picture is refused."""

    def __post_init__(self) -> None:
        """Refuses what cannot be meant."""
        check_settings(self)


class Camera(Protocol):
    """What the control loop knows of a camera."""

    def open(self) -> None:
        """Start it, and wait for the first picture."""
        ...

    def read(self) -> Frame:
        """The newest picture.

        Raises:
            CameraError: it is too old, or has not changed for too long.
        """
        ...

    def close(self) -> None:
        """Stop it."""
        ...


class CameraError(UserError):
    """A camera that cannot be opened, or shows nothing new."""


class StreamCamera(Stream):
    """A camera whose pictures come from a function that blocks for the next one.

    Args:
        name: in messages.
        config: what is asked of it.
        start: opens the source.
    """

    kind, error = Frame, CameraError
    newest_is = "picture is"
    advice = "; check its cable and USB hub"

    def __init__(
        self,
        name: str,
        config: CameraConfig,
        start: Callable[[CameraConfig], Source],
    ):
        # Not above: with it comes PyTorch, and who calibrates an arm need not wait. Nor
        # in `open`: an arm may have torque then.
        from act_minimal.images import resize

        super().__init__(f"camera '{name}'", config.stale)
        self.config, self._open, self._resize = config, start, resize

    def open(self) -> None:
        """Start it, and wait for the first picture."""
        if self._thread:
            return
        config, clock, seconds = self.config, COMPUTER, FIRST_FRAME
        next_picture, stop = self._open(config)
        if config.source.startswith(VIRTUAL_CAMERA):
            clock = clock_of(virtual_camera(config.source)[0])
            seconds = FIRST_DRAWN

        def take() -> tuple[np.ndarray, float]:
            image, when = next_picture()
            shape = np.shape(image)
            if len(shape) != 3 or shape[2] != 3 or image.dtype != np.uint8:
                raise CameraError(
                    f"a picture has shape {shape} and type {image.dtype}, expected "
                    "(H, W, 3) of uint8"
                )
            if not when <= clock.now() + AHEAD:
                raise CameraError(
                    f"a picture was taken at {when}, expected s of time.monotonic()"
                )
            turned = np.rot90(image, -config.rotate // 90)  # clockwise
            return self._resize(np.ascontiguousarray(turned), config.size), when

        if not self.start((take, stop), clock, seconds):
            raise CameraError(
                f"{self.name} ({config.source}) showed no picture in {seconds:.0f} s"
                f"{': ' + self.failure if self.failure else ''}"
            )

    def read(self) -> Frame:
        """The newest picture."""
        frame = self.newest_fresh()
        assert isinstance(frame, Frame)
        if frame.time - frame.changed > FROZEN_AFTER:
            raise CameraError(
                f"{self.name} is frozen: its picture has not changed for "
                f"{frame.time - frame.changed:.1f} s; unplug it and plug it in again"
            )
        return frame


def virtual_camera(source: str) -> tuple[str, str]:
    """virtual:PORT#CAMERA -> the virtual arm's port, and its camera or ""."""
    port, _, camera = source.removeprefix(VIRTUAL_CAMERA).partition("#")
    return port, camera


def open_own(path: str, config: CameraConfig) -> Source:
    """A camera by a class of one's own, as module:Class.

    Raises:
        SettingError: there is no such class, or it is no camera.
    """
    camera = load_class(path, ("take", "close"))(config)

    def take() -> tuple[np.ndarray, float]:
        image, when = camera.take()
        return np.array(image), when  # it may use its memory again

    return take, camera.close


def open_opencv(config: CameraConfig) -> Source:
    """A USB camera, a video file (played at its rate, again and again), or a stream."""
    source: Any = int(config.source) if config.source.isdigit() else config.source
    is_file = isinstance(source, str) and Path(source).is_file()
    backend = cv2.CAP_ANY
    if isinstance(source, int) and sys.platform in CAMERA_BACKENDS:
        backend = getattr(cv2, CAMERA_BACKENDS[sys.platform])
    capture = cv2.VideoCapture(source, backend)
    if not capture.isOpened():
        raise CameraError(
            f"camera {config.source} cannot be opened; what is plugged in: act cameras"
        )
    if not is_file:
        if config.mjpg:
            code = cv2.VideoWriter.fourcc(*"MJPG")
            capture.set(cv2.CAP_PROP_FOURCC, code)
        height, width = map(max, config.capture, config.size)
        capture.set(cv2.CAP_PROP_FRAME_HEIGHT, height)
        capture.set(cv2.CAP_PROP_FRAME_WIDTH, width)
        capture.set(cv2.CAP_PROP_FPS, config.fps)
        capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
        if config.exposure is None or config.white_balance is None:
            print(
                f"camera {config.source}: exposure or white balance is automatic, so "
                "colours change when the arm moves into the picture; fix both, as in "
                f"NAME={config.source},exposure=150,white_balance=4600",
                file=sys.stderr,
            )
        fixed = {}
        if config.exposure is not None:
            manual = 1 if sys.platform == "linux" else 0  # V4L2 counts otherwise
            capture.set(cv2.CAP_PROP_AUTO_EXPOSURE, manual)
            fixed["exposure"] = cv2.CAP_PROP_EXPOSURE
        if config.white_balance is not None:
            capture.set(cv2.CAP_PROP_AUTO_WB, 0)
            fixed["white_balance"] = cv2.CAP_PROP_WB_TEMPERATURE
        for name, number in fixed.items():
            if not capture.set(number, getattr(config, name)):
                print(
                    f"camera {config.source}: its driver does not take {name}="
                    f"{getattr(config, name):g}; it may go on by itself",
                    file=sys.stderr,
                )
    rate = (capture.get(cv2.CAP_PROP_FPS) or config.fps) if is_file else 0.0
    due = time.monotonic()

    def take() -> tuple[np.ndarray, float]:
        nonlocal due
        if is_file:
            due = max(due + 1 / rate, time.monotonic() - 1 / rate)
            time.sleep(max(0.0, due - time.monotonic()))
        ok, image = capture.read()
        if not ok and is_file:
            capture.set(cv2.CAP_PROP_POS_FRAMES, 0)
            ok, image = capture.read()
        if not ok:
            raise CameraError("the camera stopped sending pictures")
        return cv2.cvtColor(image, cv2.COLOR_BGR2RGB), time.monotonic()

    return take, capture.release
