"""Folders of episodes: what one holds, and whether all are alike."""

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np
from tqdm.auto import tqdm

from ..episodes import Episode, cameras_in, find_episodes, list_episodes, load_episode
from ..exchange.lerobot_files import INFO
from ..support.errors import UserError
from ..support.hdf5_files import EpisodeError, dataset_of, misnamed_files


def kind_of(folder: str | Path) -> str:
    """What a folder holds: "hdf5" or "lerobot"; UserError: neither, or both."""
    folder = Path(folder)
    lerobot, hdf5 = (folder / INFO).is_file(), bool(list_episodes(folder))
    if lerobot and hdf5:
        raise UserError(f"{folder} has *.hdf5 episodes and {INFO}, expected one kind")
    if lerobot:
        return "lerobot"
    if hdf5 or misnamed_files(folder):
        find_episodes(folder)
        return "hdf5"
    what = "is not a folder"
    if folder.is_dir():
        what = f"has no *.hdf5 episodes, and no {INFO} of a LeRobot dataset"
    raise UserError(f"{folder} {what}")


def episodes_of(folder: str | Path) -> list[Path]:
    """The episode files of a folder that must hold some, and no LeRobot dataset."""
    if kind_of(folder) == "lerobot":
        raise UserError(
            f"{folder} is a LeRobot dataset; make episodes of it first with: act data "
            f"convert {folder} OUT --to hdf5 (--skip-broken leaves broken ones out)"
        )
    return list_episodes(folder)


# --- what has to be alike -------------------------------------------------------------


def shape_of(path: Path) -> dict[str, Any]:
    """What all episodes of a dataset have in common, without reading all images."""
    sizes = {}
    episode = load_episode(path, images=False)
    with h5py.File(path, "r") as root:
        for camera in cameras_in(root, path):
            if camera.endswith("_depth"):
                continue
            images = dataset_of(root, f"observations/images/{camera}", path)
            size = images.shape[1:3]
            if images.ndim == 2 and len(images):  # JPEG
                image = cv2.imdecode(np.trim_zeros(images[0], "b"), cv2.IMREAD_COLOR)
                size = (0, 0) if image is None else image.shape[:2]
            sizes[camera] = size
    return episode_shape(episode, sizes)


def episode_shape(
    episode: Episode, sizes: Mapping[str, Sequence[int]] | None = None
) -> dict[str, Any]:
    """`shape_of` an episode in memory; `sizes` (H, W) are by default its images'."""
    if sizes is None:
        sizes = {c: images.shape[1:3] for c, images in episode.images.items()}
    shape: dict[str, Any] = {"frames a second": float(episode.fps)}
    for name in ("qpos", "action", "env_state", "base_action"):
        array = getattr(episode, name)
        shape[f"numbers of {name}"] = 0 if array is None else array.shape[1]
    cameras = (f"{c} {'x'.join(map(str, size))}" for c, size in sorted(sizes.items()))
    return shape | {"cameras": ", ".join(cameras)}


def unrecorded_in(paths: Sequence[Path]) -> list[str]:
    """Which of "qvel" and "effort" no file has; broken files say nothing."""
    missing = ["qvel", "effort"]
    for path in paths:
        with contextlib.suppress(OSError, RuntimeError), h5py.File(path, "r") as root:
            missing = [name for name in missing if f"observations/{name}" not in root]
        if not missing:
            break
    return missing


def difference_of(
    path: Path | str, shape: dict, other: Path | str, expected: dict
) -> str:
    """One sentence on the first thing in which two episodes differ; "" if in none."""
    for key, value in shape.items():
        if value != expected[key]:
            return (
                f"{path}: {key}: {_said(value)}, but {_said(expected[key])} in {other}"
            )
    return ""


def _said(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value or "none")


class Alike:
    """Holds the shape of every episode of a dataset against the first one's."""

    def __init__(self):
        self._first: tuple[dict[str, Any], Path | str] | None = None

    def check(self, shape: dict[str, Any], where: Path | str) -> None:
        """EpisodeError for an episode that cannot be of the same dataset."""
        expected, first = self._first = self._first or (shape, where)
        if fault := difference_of(where, shape, first, expected):
            raise EpisodeError(fault)


def check_alike(paths: Sequence[Path], *, progress: bool = False) -> None:
    """EpisodeError for files that are broken or cannot be one dataset; names both."""
    alike = Alike()
    for path in tqdm(paths, desc="compare", disable=not progress):
        alike.check(shape_of(path), path)
