"""Cameras that know how old their picture is, and notice when it stops changing.

Every source is read by a thread of its own, which keeps the newest picture only: a
control loop never waits for a camera, and never sees a picture that queued somewhere.

    opencv     a USB camera, or any file or stream that OpenCV can open
    virtual    a camera of a virtual arm, from its room

A camera is named in one line: ``top=0``, ``wrist=/dev/video2``, ``top=film.mp4``,
``top=virtual:virtual_so100``; what is fixed follows after commas, as in
``top=0,exposure=150,white_balance=4600,rotate=180``.
"""

import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import cv2
import numpy as np

from act_minimal.devices import CAMERA_BACKENDS
from act_minimal.errors import SettingError, UserError
from act_minimal.resizing import resize
from act_minimal.settings import Count, Positive, check_settings

from .clock import Arrivals, Clock, clock_of

USUAL_SIZE = (96, 128)  # (H, W) of pictures, where nobody asks for another
FIRST_FRAME = 5.0  # s that a camera may take to start
FIRST_DRAWN = 60.0  # s, the same for a virtual one, which a busy computer holds up
VIRTUAL = "virtual:"  # before the port of a virtual arm whose camera is meant
FROZEN_AFTER = 1.0  # s; sensor noise alone changes a live picture at every frame


COMPUTER = Clock()


@dataclass(frozen=True)
class Frame:
    """A picture and when it was taken."""

    image: np.ndarray  # (H, W, 3) uint8, RGB
    time: float  # s, the clock's
    number: int
    clock: Clock = COMPUTER
    held: float = 0.0  # `clock.held()` when it was taken

    @property
    def age(self) -> float:
        """Seconds since it was taken."""
        return self.clock.age(self.time, self.held)


@dataclass
class CameraConfig:
    """How a camera is opened and what is asked of it.

    What is fixed here stays as it was in the demonstrations: automatic exposure and
    white balance change a picture's colours when the arm moves into it.
    """

    source: str
    """A number, a device, a file, or virtual:<port of the virtual arm>."""
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


class StreamCamera:
    """A camera whose pictures come from a function that blocks for the next one.

    Args:
        name: in messages.
        config: what is asked of it.
        start: opens the source; returns (next picture with its time, stop).
    """

    def __init__(
        self,
        name: str,
        config: CameraConfig,
        start: Callable[
            [CameraConfig],
            tuple[Callable[[], tuple[np.ndarray, float]], Callable[[], None]],
        ],
    ):
        self.name, self.config = name, config
        self._start, self._clock = start, COMPUTER
        self._lock = threading.Lock()
        self._fresh = threading.Event()
        self._frame: Frame | None = None
        self._changed = 0.0
        self._error = ""
        self._thread: threading.Thread | None = None
        self.dropped = 0

    def open(self) -> None:
        """Start it, and wait for the first picture."""
        if self._thread:
            return
        self._stopping = False
        self._fresh.clear()
        self._error, self._frame = "", None
        take, stop = self._start(self.config)
        patience = FIRST_FRAME
        if self.config.source.startswith(VIRTUAL):
            self._clock = clock_of(self.config.source.removeprefix(VIRTUAL))
            patience = FIRST_DRAWN
        self._thread = threading.Thread(
            target=self._gather, args=(take, stop), daemon=True, name=self.name
        )
        self._thread.start()
        if not self._fresh.wait(patience) or self._frame is None:
            self.close()
            raise CameraError(
                f"camera '{self.name}' ({self.config.source}) showed no picture in "
                f"{patience:.0f} s{': ' + self._error if self._error else ''}"
            )

    def read(self) -> Frame:
        """The newest picture."""
        if self._frame is None:
            raise CameraError(f"camera '{self.name}' is not open")
        self._clock.wait_for_news(self._fresh, self._is_old)
        with self._lock:
            frame, error, changed = self._frame, self._error, self._changed
        if frame.age > self.config.stale:
            raise CameraError(
                f"camera '{self.name}': the newest picture is {frame.age:.2f} s old, "
                f"expected at most {self.config.stale} s"
                f"{' (' + error + ')' if error else ''}; check its cable and USB hub"
            )
        if frame.time - changed > FROZEN_AFTER:
            raise CameraError(
                f"camera '{self.name}' is frozen: its picture has not changed for "
                f"{frame.time - changed:.1f} s; unplug it and plug it in again"
            )
        return frame

    def _is_old(self) -> bool:
        """Whether the picture is old, and its thread may still bring another."""
        frame = self._frame
        return frame is not None and not self._error and frame.age > self.config.stale

    def close(self) -> None:
        """Stop it."""
        self._stopping = True
        if self._thread and self._thread is not threading.current_thread():
            self._thread.join(timeout=2.0)
        self._thread = None

    def _gather(
        self, take: Callable[[], tuple[np.ndarray, float]], stop: Callable[[], None]
    ) -> None:
        number, clock, arrivals = 0, self._clock, Arrivals(self._clock)
        try:
            while not self._stopping:
                image, when = take()
                image = fit(image, self.config.size, self.config.rotate)
                held = arrivals.held(when)
                with self._lock:
                    last = self._frame
                    if last is None or not np.array_equal(last.image, image):
                        self._changed = when
                    if last and when - last.time > 1.5 / self.config.fps:
                        self.dropped += 1
                    self._frame = Frame(image, when, number, clock, held)
                number += 1
                self._fresh.set()
        except Exception as error:  # whatever a driver throws: read() tells it
            self._error = str(error) or type(error).__name__
            self._fresh.set()
        finally:
            stop()


def fit(image: np.ndarray, size: tuple[int, int], rotate: int = 0) -> np.ndarray:
    """Turn and scale a picture (H, W, 3) to `size`."""
    if rotate:
        image = np.rot90(image, -rotate // 90)
    return np.ascontiguousarray(resize(np.ascontiguousarray(image), size))


def open_opencv(
    config: CameraConfig,
) -> tuple[Callable[[], tuple[np.ndarray, float]], Callable[[], None]]:
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


def make_camera(name: str, config: CameraConfig) -> StreamCamera:
    """A camera by its source."""
    if config.source.startswith(VIRTUAL):
        from .so100.emulator.room import open_virtual_camera

        return StreamCamera(name, config, lambda c: open_virtual_camera(name, c))
    return StreamCamera(name, config, open_opencv)


def parse_cameras(
    words: tuple[str, ...], size: tuple[int, int] | Mapping[str, tuple[int, int]]
) -> dict[str, Camera]:
    """Cameras from lines like ``top=0`` or ``wrist=/dev/video2,exposure=150``.

    Args:
        words: the lines.
        size: (H, W) of the pictures, or one such pair by camera; a camera that is not
            in it has the usual size.

    Raises:
        SettingError: a line is not name=source, a name comes twice, or a setting is
            not known or no number.
    """
    cameras: dict[str, Camera] = {}
    for word in words:
        first, *more = word.split(",")
        name, equals, source = first.partition("=")
        if not (name and equals and source) or name in cameras:
            raise SettingError(
                f"camera '{word}': expected name=source with each name once, such as "
                "top=0 wrist=/dev/video2"
            )
        fixed = dict(_setting(word, setting) for setting in more)
        of_this = size.get(name, USUAL_SIZE) if isinstance(size, Mapping) else size
        try:
            config = CameraConfig(source, size=of_this, **fixed)
        except SettingError as error:
            raise SettingError(f"camera '{word}': {error}") from None
        cameras[name] = make_camera(name, config)
    return cameras


def _setting(word: str, setting: str) -> tuple[str, Any]:
    key, _, value = setting.partition("=")
    kinds = {"exposure": float, "white_balance": float, "fps": float, "rotate": int}
    try:
        return key, kinds[key](value)
    except (KeyError, ValueError):
        raise SettingError(
            f"camera '{word}': '{setting}' is no setting, expected one of "
            f"{', '.join(kinds)}, with a number, such as exposure=150"
        ) from None
