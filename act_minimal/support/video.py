"""Video files, of datasets and for people: frame k in, frame k out.

A frame is found by its time and never by counting, so a video that lost frames, or that
holds several episodes, gives the right pictures or an error.
"""

import contextlib
import os
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, get_args

import av
import av.error
import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter

from .errors import SettingError, UserError
from .hdf5_files import EpisodeError

Codec = Literal["h264", "av1", "lossless"]

# encoder, pixel format, what it is called in info.json, options. A key frame every
# second frame, as LeRobot does: its loader jumps to single frames.
CODECS: dict[str, tuple[str, str, str, dict[str, str]]] = {
    "h264": (
        "libx264",
        "yuv420p",
        "h264",
        {"g": "2", "crf": "18", "preset": "ultrafast", "bf": "0"},
    ),
    "av1": ("libsvtav1", "yuv420p", "av1", {"g": "2", "crf": "30", "preset": "12"}),
    # RGB without loss: ten times the size.
    "lossless": (
        "libx264rgb",
        "rgb24",
        "h264",
        {"g": "2", "qp": "0", "preset": "ultrafast", "bf": "0"},
    ),
    # To be looked at, in browsers too; frames of odd sides are widened by a pixel.
    # "veryfast" takes a third of the time of the usual "medium", and fewer bytes.
    "film": ("libx264", "yuv420p", "h264", {"crf": "30", "preset": "veryfast"}),
}
SEEK_SECONDS = 5.0  # a gap that is jumped over instead of decoded


def threads_for(streams: int) -> int:
    """Threads for each of several streams that are worked on side by side."""
    return max(1, (os.cpu_count() or 1) // max(1, streams))


class VideoWriter:
    """One mp4 file that grows frame by frame, at a steady rate from 0 s on.

    Args:
        fps: Whole frames a second.
        size: (height, width) of the images.
        codec: "h264", "av1" (LeRobot's own default; smaller and slower), "lossless", or
            "film", whose index comes first: it plays while it loads.

    Attributes:
        bytes: What the frames take, as far as the encoder has said.

    Raises:
        SettingError: An unknown codec, or one that cannot have this size.
    """

    def __init__(
        self,
        path: Path,
        fps: int,
        size: tuple[int, int],
        codec: Codec | Literal["film"] = "h264",
        threads: int = 1,
    ):
        if codec not in CODECS:
            raise SettingError(
                f"video is {codec!r}, expected one of: {', '.join(get_args(Codec))}"
            )
        encoder, pixels, self.codec_name, options = CODECS[codec]
        height, width = size
        if codec == "av1" and (height % 2 or width % 2):
            raise SettingError(
                f"video 'av1' needs an even width and height, the images have {height} "
                f"x {width}; expected 'h264' or 'lossless' for them"
            )
        container_options = {}
        if codec == "film":
            height, width = height + height % 2, width + width % 2
            container_options = {"movflags": "faststart"}
        elif codec == "h264" and (height % 2 or width % 2):
            pixels = "yuv444p"  # halving the colours needs even sides
        os.environ.setdefault("SVT_LOG", "1")  # the AV1 encoder talks to standard error
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path, self.fps, self.size = path, fps, size
        self.pixel_format = "gbrp" if codec == "lossless" else pixels
        self.frames, self.bytes = 0, 0
        with self._told():
            # The format is said because a temporary name does not tell.
            self._container: Any = av.open(
                str(path), "w", format="mp4", options=container_options
            )
            self._stream: Any = self._container.add_stream(
                encoder, rate=fps, options=dict(options)
            )
        self._stream.height, self._stream.width = height, width
        self._stream.pix_fmt = pixels
        self._stream.thread_count = threads

    @property
    def seconds(self) -> float:
        return self.frames / self.fps

    def add(self, images: np.ndarray) -> None:
        """Append (T, H, W, 3) uint8 RGB."""
        with self._told():
            for image in images:
                frame = VideoFrame.from_ndarray(np.ascontiguousarray(image), "rgb24")
                frame.pts, frame.time_base = self.frames, Fraction(1, self.fps)
                packets = self._stream.encode(frame)
                self._container.mux(packets)
                self.frames += 1
                self.bytes += sum(packet.size for packet in packets)

    def close(self) -> None:
        """Write what the encoder still holds, and the index without which none plays.

        Called once; after an error in `add` the file is good for nothing.
        """
        container, self._container = self._container, None
        if container is not None:
            with self._told(), container:
                container.mux(self._stream.encode(None))

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """The encoder's errors as one sentence; `files` explains the system's."""
        try:
            yield
        except av.error.FFmpegError as error:
            if isinstance(error, OSError):
                raise
            why = error.strerror or type(error).__name__
            raise UserError(f"{self.path} could not be written: {why}") from error

    def info(self) -> dict[str, Any]:
        """What info.json says about such videos."""
        return {
            "video.height": self.size[0],
            "video.width": self.size[1],
            "video.codec": self.codec_name,
            "video.pix_fmt": self.pixel_format,
            "video.is_depth_map": False,
            "video.fps": self.fps,
            "video.channels": 3,
            "has_audio": False,
        }


def read_frame(path: Path, share: float) -> np.ndarray:
    """The frame (H, W, 3) uint8 RGB before which `share` of a video's time is over."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        last = share * float((stream.duration or 0) * (stream.time_base or 0))
        image = None
        for frame in container.decode(stream):
            if image is None or (frame.time or 0) <= last:
                image = frame
            else:
                break
        if image is None:
            raise EpisodeError(f"{path}: the video is empty")
        return image.to_ndarray(format="rgb24")


class VideoReader:
    """Reads one camera's frames by their times; fastest when asked in order."""

    def __init__(self, threads: int = 1):
        self._threads = threads
        self._path: Path | None = None
        self._container: Any = None
        self._frames: Iterator[Any] = iter(())
        self._current: Any = None  # the newest decoded frame
        self._reformatter = VideoReformatter()

    def read(self, path: Path, times: np.ndarray, fps: float) -> np.ndarray:
        """The frames (T, H, W, 3) uint8 RGB at growing times (T,) s of a video.

        A frame counts when it is less than half a frame off.

        Raises:
            EpisodeError: Names the video and what it lacks: the file, a frame, a whole
                picture.
        """
        try:
            return self._read(path, times, 0.5 / fps)
        except av.error.FFmpegError as error:
            self.close()
            if isinstance(error, av.error.FileNotFoundError):
                raise EpisodeError(f"{path}: no such file") from None
            why = error.strerror or type(error).__name__
            raise EpisodeError(f"{path}: not a whole video ({why})") from error

    def _read(self, path: Path, times: np.ndarray, half: float) -> np.ndarray:
        seconds = self._current.time if self._current is not None else -np.inf
        gap = times[0] - seconds
        if path != self._path or gap < -half or gap > SEEK_SECONDS:
            self._open(path, float(times[0]))
        out = None
        for k, time in enumerate(times):
            while self._current is None or self._current.time < time - half:
                last = self._current
                self._current = next(self._frames, None)
                if self._current is None:
                    ends = f"ends after {last.time:.3f} s" if last else "is empty"
                    raise EpisodeError(
                        f"{path}: frame {k} of the episode belongs at {time:.3f} s, "
                        f"the video {ends}"
                    )
                if self._current.time is None:
                    raise EpisodeError(f"{path}: a frame has no time")
            if self._current.time > time + half:
                raise EpisodeError(
                    f"{path}: frame {k} of the episode belongs at {time:.3f} s, the "
                    f"video's next frame is at {self._current.time:.3f} s"
                )
            # Nothing is scaled, so the cheapest interpolation is exact; the usual
            # bicubic one gives the very same bytes in twice the time.
            image = self._reformatter.reformat(
                self._current, format="rgb24", interpolation="POINT"
            ).to_ndarray()
            if out is None:
                out = np.empty((len(times), *image.shape), np.uint8)
            if image.shape != out.shape[1:]:
                raise EpisodeError(
                    f"{path}: frame {k} has shape {image.shape}, frame 0 has "
                    f"{out.shape[1:]}"
                )
            out[k] = image
        assert out is not None  # times are never empty
        return out

    def _open(self, path: Path, start: float) -> None:
        self.close()
        self._container, self._path = av.open(str(path)), path
        if not self._container.streams.video:
            raise EpisodeError(f"{path}: holds no video")
        stream = self._container.streams.video[0]
        stream.thread_count = self._threads
        pixels = stream.codec_context.format
        if pixels is not None and len(pixels.components) == 1:
            bits = pixels.components[0].bits
            if bits > 8:
                raise EpisodeError(
                    f"{path}: holds {bits}-bit grey ({pixels.name}), as depth has, "
                    'expected colours; depth is left out where "is_depth_map" marks it '
                    "in info.json"
                )
        if start > SEEK_SECONDS and stream.time_base:  # to the key frame before
            self._container.seek(int(start / stream.time_base), stream=stream)
        self._frames = self._container.decode(stream)

    def close(self) -> None:
        if self._container is not None:
            self._container.close()
        self._container, self._path, self._current = None, None, None
        self._frames = iter(())
