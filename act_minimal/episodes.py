"""Episodes: one demonstration in memory, and the ALOHA HDF5 layout on disk.

The layout is the one of the original ACT/ALOHA recordings, so files made here can be
read by the original's loader, and its files (and Mobile ALOHA's) can be read here:

    attributes       sim (bool), compress (bool, only with JPEG), fps, and free extras,
                     among them robot, units and joints (names in order, a JSON list)
    /action                    (T, A) float32
    /base_action               (T, 2) float32, Mobile ALOHA only
    /compress_len              (N, T) float32, only with JPEG: bytes of each image
    /observations/qpos         (T, S) float32
    /observations/qvel         (T, S) float32, optional when reading
    /observations/effort       (T, S) float32, optional when reading
    /observations/env_state    (T, E) float32, ours: what a state policy may see
    /observations/images/<cam> (T, H, W, 3) uint8 in chunks of one frame, or, with
                               JPEG, (T, bytes) uint8: one padded JPEG a row
"""

import io
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import cv2
import h5py
import numpy as np

from .support.errors import UserError
from .support.files import atomic_file, reserve
from .support.hdf5_files import (
    Attribute,
    EpisodeError,
    attributes_of,
    content_of,
    dataset_of,
    fault_of,
    is_true,
    member,
    misnamed_files,
    rate_of,
    read_numbers,
    read_optional,
)

ALOHA_FPS = 50.0  # the original's files carry no rate; its arms ran at 50 Hz
RESERVED_ATTRIBUTES = ("sim", "compress", "fps")  # fields of their own

Colours = Literal["auto", "rgb", "bgr"]


@dataclass
class Episode:
    """One demonstration of T frames; all arrays share their first dimension.

    Attributes:
        qpos: (T, S) joint positions, rad; a gripper is 0 (closed) to 1 (open).
        qvel: (T, S) joint velocities, rad/s.
        effort: (T, S) joint efforts, in whatever unit the robot reports.
        action: (T, A) commands sent at each frame: target positions, rad.
        images: camera name -> (T, H, W, 3) uint8, RGB.
        env_state: (T, E) state of the scene (a cube's pose: xyz in m, quaternion
            wxyz), or None where nobody knows it, as on a real arm.
        fps: Frames a second.
        sim: Whether the episode was recorded in simulation.
        attributes: Free extras, stored as HDF5 attributes: task, seed, success, ...
        base_action: (T, 2) velocities of a mobile base (Mobile ALOHA), or None.
    """

    qpos: np.ndarray
    qvel: np.ndarray
    effort: np.ndarray
    action: np.ndarray
    images: dict[str, np.ndarray] = field(default_factory=dict)
    env_state: np.ndarray | None = None
    fps: float = ALOHA_FPS
    sim: bool = True
    attributes: dict[str, Attribute] = field(default_factory=dict)
    base_action: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.action)

    def numbers(self) -> dict[str, np.ndarray]:
        """The arrays of numbers that there are, by their places in the file."""
        arrays = {
            "/action": self.action,
            "/observations/qpos": self.qpos,
            "/observations/qvel": self.qvel,
            "/observations/effort": self.effort,
            "/observations/env_state": self.env_state,
            "/base_action": self.base_action,
        }
        return {name: array for name, array in arrays.items() if array is not None}


def episode_path(folder: str | Path, index: int) -> Path:
    """The path of episode `index` in `folder`, named as ALOHA names it."""
    return Path(folder) / f"episode_{index}.hdf5"


def list_episodes(folder: str | Path) -> list[Path]:
    """The finished episode files of a folder, in numeric order.

    Numeric, because text would put episode_10 before episode_2. A folder that does not
    exist holds none.
    """

    def key(path: Path) -> list[tuple[int, int | str]]:
        parts = re.split(r"(\d+)", path.stem)
        return [(0, int(p)) if p.isdigit() else (1, p) for p in parts]

    found = (p for p in Path(folder).glob("*.hdf5") if not p.name.startswith("."))
    return sorted(found, key=key)


def find_episodes(folder: str | Path) -> list[Path]:
    """`list_episodes`, or UserError if there are none, or some of another ending."""
    folder, paths = Path(folder), list_episodes(folder)
    if not paths and (folder / "meta" / "info.json").is_file():
        made = folder.parent / f"{folder.resolve().name}_hdf5"
        words = shlex.join(["act", "data", "convert", str(folder), str(made)])
        raise UserError(
            f"{folder} is a LeRobot dataset, expected a folder of *.hdf5 episodes; "
            f"make one, and use it instead: {words}"
        )
    if other := misnamed_files(folder):
        listed = ", ".join(path.name for path in other[:3]) + ", ..." * (len(other) > 3)
        raise UserError(
            f"{folder} has {listed}, which would not be read: episodes are called "
            "*.hdf5; rename these, or move them away"
        )
    if not paths:
        what = "has no *.hdf5 episodes" if folder.is_dir() else "is not a folder"
        raise UserError(f"{folder} {what}; `act record` makes some")
    return paths


def speeds_of(qpos: np.ndarray, fps: float) -> np.ndarray:
    """(T, S) velocities of positions (T, S) that were not recorded: float32."""
    steps = np.gradient(qpos, axis=0) if len(qpos) > 1 else 0 * qpos
    return (steps * fps).astype(np.float32)


# --- writing --------------------------------------------------------------------------


def next_episode(folder: str | Path) -> int:
    """The number after the highest one: some may have been removed between."""
    names = (re.fullmatch(r"episode_(\d+)", p.stem) for p in list_episodes(folder))
    return max((int(name[1]) + 1 for name in names if name), default=0)


def save_next_episode(
    folder: str | Path,
    episode: Episode,
    *,
    compression: Literal["raw", "jpeg"] = "raw",
    quality: int = 90,
) -> Path:
    """`save_episode` under the next number; returns the path.

    A number that another process takes meanwhile is passed over.
    """
    while True:
        path = episode_path(folder, next_episode(folder))
        try:
            save_episode(path, episode, compression=compression, quality=quality)
        except EpisodeError:
            if not path.exists():
                raise
        else:
            return path


def save_episode(
    path: str | Path,
    episode: Episode,
    *,
    compression: Literal["raw", "jpeg"] = "raw",
    quality: int = 90,
) -> None:
    """Writes an episode in the ALOHA layout, wholly or not at all.

    Args:
        path: Where to, a new file; the folder is made when it is missing.
        episode: The content; checked before anything is written.
        compression: "raw" stores images as they are, as ALOHA does; "jpeg" as Mobile
            ALOHA does: about a tenth of the space, slower to read, slightly lossy.
        quality: JPEG quality, 1 to 100 (Mobile ALOHA uses 50).

    Raises:
        EpisodeError: Bad content (named), no room on the disk, or an episode is there
            already: none is ever overwritten. Nothing is left behind.
    """
    path = Path(path)
    if compression not in ("raw", "jpeg"):
        raise EpisodeError(
            f"compression {compression!r} is unknown, expected 'raw' or 'jpeg'"
        )
    check_episode(episode, path)
    images, lengths = episode.images, None
    if compression == "jpeg" and images:
        images, lengths = _jpeg_rows(images, quality, path)
    arrays = episode.numbers()
    if lengths is not None:
        arrays["/compress_len"] = lengths
    size = sum(4 * a.size for a in arrays.values())
    size += sum(a.nbytes for a in images.values())
    size += sum(4 * len(v) for v in episode.attributes.values() if isinstance(v, str))
    with (
        atomic_file(path, EpisodeError, replace=False) as temporary,
        _new_file(temporary, size) as root,
    ):
        root.attrs["sim"] = bool(episode.sim)
        root.attrs["fps"] = float(episode.fps)
        for name, value in episode.attributes.items():
            large = isinstance(value, int) and value >= 2**63
            root.attrs[name] = np.uint64(value) if large else value
        if lengths is not None:
            root.attrs["compress"] = True
        for name, array in arrays.items():
            root.create_dataset(name, data=np.asarray(array, np.float32))
        group = root.create_group("observations/images")
        for camera, frames in images.items():
            shape = (1, *frames.shape[1:])  # a chunk a frame: cheap random access
            group.create_dataset(camera, data=frames, chunks=shape)


def _new_file(path: Path, size: int) -> h5py.File:
    """An empty HDF5 file, with room on the disk for `size` bytes of content.

    HDF5 does not outlive a write that fails: it crashes the process when it closes the
    file. So the room is claimed first, by means that can fail, around an empty file
    that was made in memory. HDF5 cuts off what it did not use.
    """
    empty = io.BytesIO()
    h5py.File(empty, "w").close()
    path.write_bytes(empty.getbuffer())
    reserve(path, size + size // 10 + 2**20)  # content, and HDF5's own tables
    return h5py.File(path, "r+")


def _jpeg_rows(
    images: dict[str, np.ndarray], quality: int, path: Path
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Camera -> rows (T, bytes) padded with zeros, and lengths (N, T)."""
    if not 1 <= quality <= 100:
        raise EpisodeError(f"{path}: JPEG quality is {quality}, expected 1 to 100")
    options = [cv2.IMWRITE_JPEG_QUALITY, quality]
    # No RGB/BGR swap on either side, as in the original: cv2 thinks it writes BGR, and
    # gives back what it was given. (Other JPEG readers see red and blue exchanged.)
    encoded = {
        camera: [cv2.imencode(".jpg", frame, options)[1] for frame in frames]
        for camera, frames in images.items()
    }
    # Sorted, because that is the order in which HDF5 lists the cameras to a reader.
    lengths = np.array([[len(row) for row in encoded[c]] for c in sorted(encoded)])
    padded = {}
    for camera, rows in encoded.items():
        padded[camera] = np.zeros((len(rows), lengths.max()), np.uint8)
        for target, row in zip(padded[camera], rows, strict=True):
            target[: len(row)] = row
    return padded, lengths


# --- reading --------------------------------------------------------------------------


def load_episode(
    path: str | Path,
    *,
    cameras: Sequence[str] | None = None,
    images: bool = True,
    colours: Colours = "auto",
) -> Episode:
    """Reads an episode: ours, the original ALOHA's or Mobile ALOHA's.

    Gives float32, whatever the file has. `sim`, `qvel`, `effort` and the rate may be
    missing. JPEG rows are decoded without `compress_len`, which some files lack and
    whose order of cameras differs between writers: the padding is zeros and a JPEG
    never ends in one. Attributes that are no single values are left out.

    Args:
        cameras: Which cameras to read, in this order; None for all of them (depth
            images, `*_depth`, are left out).
        images: False skips the images altogether, which is much faster.
        colours: What the file holds: "rgb", or "bgr" where red and blue are exchanged;
            for JPEG it is what another reader of JPEG sees. "auto": as in ALOHA's
            files, raw images are RGB, and JPEG has them exchanged where `compress` or
            `compress_len` say that it is Mobile ALOHA's.

    Raises:
        EpisodeError: Names the file and the fault: missing, truncated, not HDF5,
            missing or damaged key or camera, wrong shape, NaN, lengths that differ,
            JPEG of which nothing says the order of colours.
    """
    path = Path(path)
    if not path.is_file():
        raise EpisodeError(f"{path}: no such file")
    try:
        with h5py.File(path, "r") as root:
            attributes = attributes_of(root, path, RESERVED_ATTRIBUTES)
            said = attributes.pop("fps", ALOHA_FPS)
            fps = rate_of(said)
            if not np.isfinite(fps):
                raise EpisodeError(
                    f"{path}: fps is {said!r}, expected a positive number of frames a "
                    "second"
                )
            qpos = read_numbers(root, "observations/qpos", path)
            qvel = read_optional(root, "observations/qvel", path)
            effort = read_optional(root, "observations/effort", path)
            if qvel is None:  # no policy reads them; shapes are checked below
                qvel = speeds_of(qpos, fps) if qpos.ndim == 2 else qpos
            episode = Episode(
                qpos=qpos,
                qvel=qvel,
                effort=np.zeros_like(qpos) if effort is None else effort,
                action=read_numbers(root, "action", path),
                env_state=read_optional(root, "observations/env_state", path),
                base_action=read_optional(root, "base_action", path),
                fps=fps,
                sim=is_true(attributes.pop("sim", False)),
            )
            aloha = is_true(attributes.pop("compress", False))
            aloha = aloha or "compress_len" in root
            episode.attributes = attributes
            if images:
                for camera in _cameras_of(root, cameras, path):
                    episode.images[camera] = _read_images(
                        root, camera, path, colours, aloha
                    )
    except EpisodeError:
        raise
    except Exception as error:  # h5py has no one type for files that it cannot read
        raise EpisodeError(f"{path}: {fault_of(error)}") from error
    check_episode(episode, path)
    return episode


def cameras_in(root: h5py.File, path: Path) -> list[str]:
    """The cameras of an open episode file; none where it has no images at all."""
    key = "observations/images"
    group = member(root, key, path)
    if group is None:
        return []
    if not isinstance(group, h5py.Group):
        raise EpisodeError(
            f"{path}: /{key} is a dataset, expected a group with one dataset a camera"
        )
    try:
        return list(group)
    except Exception as error:
        raise EpisodeError(f"{path}: /{key} is damaged: {fault_of(error)}") from error


def _cameras_of(
    root: h5py.File, wanted: Sequence[str] | None, path: Path
) -> Sequence[str]:
    present = cameras_in(root, path)
    if wanted is None:
        return [c for c in present if not c.endswith("_depth")]
    for camera in wanted:
        if camera not in present:
            listed = ", ".join(present) or "none"
            raise EpisodeError(
                f"{path}: camera {camera!r} is missing; the file has: {listed}"
            )
    return wanted


def _read_images(
    root: h5py.File, camera: str, path: Path, colours: Colours, aloha: bool
) -> np.ndarray:
    """(T, H, W, 3) uint8 RGB, from raw images or rows of JPEG."""
    key = f"observations/images/{camera}"
    dataset = dataset_of(root, key, path)
    if dataset.dtype != np.uint8 or dataset.ndim not in (2, 4):
        raise EpisodeError(
            f"{path}: /{key} holds {dataset.dtype} of shape {dataset.shape}, expected "
            "uint8 of shape (T, H, W, 3), or (T, bytes) for JPEG"
        )
    if dataset.ndim == 4:
        images = content_of(dataset, key, path)
        return images[..., ::-1] if colours == "bgr" else images
    if colours == "auto" and not aloha:
        raise EpisodeError(
            f"{path}: nothing says whether red and blue are exchanged in the JPEG "
            f"images of camera {camera!r} (an attribute `compress` would say that they "
            "are, as Mobile ALOHA's); say it with: act data convert FOLDER OUT "
            "--colours rgb (or bgr, if a viewer of pictures shows blue for red)"
        )
    out = None
    for t, row in enumerate(content_of(dataset, key, path)):  # (bytes,)
        filled = np.flatnonzero(row)
        jpeg = row[: filled[-1] + 1] if len(filled) else row[:0]
        whole = jpeg[-2:].tobytes() == b"\xff\xd9"  # the end-of-image marker
        image = cv2.imdecode(jpeg, cv2.IMREAD_COLOR) if whole else None
        if image is None:
            raise EpisodeError(
                f"{path}: frame {t} of camera {camera!r} is not a whole JPEG image"
            )
        if out is None:
            out = np.empty((len(dataset), *image.shape), np.uint8)
        if image.shape != out.shape[1:]:
            raise EpisodeError(
                f"{path}: frame {t} of camera {camera!r} has shape {image.shape}, "
                f"frame 0 has {out.shape[1:]}"
            )
        out[t] = image[..., ::-1] if colours == "rgb" else image  # cv2's are BGR
    return np.empty((0, 0, 0, 3), np.uint8) if out is None else out


# --- what makes an episode valid ------------------------------------------------------


def check_episode(episode: Episode, path: str | Path) -> None:
    """Raises EpisodeError, naming `path` and the fault, when an episode is not valid.

    Valid: at least one frame; two-dimensional finite numbers; as many frames
    everywhere; velocities and efforts as wide as positions; images (T, H, W, 3) uint8;
    a positive rate; attributes that are single values.
    """

    def fail(fault: str) -> None:
        raise EpisodeError(f"{path}: {fault}")

    arrays = episode.numbers()
    for name, array in arrays.items():
        if array.ndim != 2 or array.shape[1] == 0:
            fail(f"{name} has shape {array.shape}, expected (frames, numbers)")
        bad = np.flatnonzero(~np.isfinite(array).all(axis=1))
        if len(bad):
            fail(f"{name} has a NaN or infinite value at frame {bad[0]}")
    frames = len(episode.action)
    if frames == 0:
        fail("the episode has no frames")
    for name, array in arrays.items():
        if len(array) != frames:
            fail(f"{name} has {len(array)} frames, /action has {frames}")
    for name in ("/observations/qvel", "/observations/effort"):
        shape = np.shape(arrays[name])
        if shape != episode.qpos.shape:
            fail(
                f"{name} has shape {shape}, /observations/qpos has {episode.qpos.shape}"
            )
    for camera, array in episode.images.items():
        name = f"/observations/images/{camera}"
        if not camera or "/" in camera:
            fail(f"{camera!r} is no name for a camera")
        if array.dtype != np.uint8 or array.ndim != 4 or array.shape[3] != 3:
            fail(
                f"{name} holds {array.dtype} of shape {array.shape}, "
                "expected uint8 of shape (T, H, W, 3)"
            )
        if len(array) != frames:
            fail(f"{name} has {len(array)} frames, /action has {frames}")
        if array.size == 0:
            fail(f"{name} has empty images, shape {array.shape}")
    if not (np.isfinite(episode.fps) and episode.fps > 0):
        fail(f"fps is {episode.fps}, expected a positive number of frames a second")
    for name, value in episode.attributes.items():
        if name in RESERVED_ATTRIBUTES:
            fail(f"attribute {name!r} is reserved; set the field of that name")
        if not isinstance(value, str | int | float | bool | np.generic):
            fail(f"attribute {name!r} is a {type(value).__name__}, expected one value")
        if isinstance(value, int) and not -(2**63) <= value < 2**64:
            fail(f"attribute {name!r} is {value}, too large for 64 bits")
        if isinstance(value, str) and re.search("[\0\ud800-\udfff]", value):
            fail(f"attribute {name!r} has a character that HDF5 cannot hold")
