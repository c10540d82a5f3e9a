"""Datasets converted: ALOHA's HDF5 to LeRobot's format, and back."""

import contextlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from tqdm.auto import tqdm

from ..datasets.embodiment import beyond_reach, named_joints
from ..datasets.folders import (
    Alike,
    check_alike,
    episode_shape,
    kind_of,
    unrecorded_in,
)
from ..episodes import (
    Colours,
    Episode,
    episode_path,
    list_episodes,
    load_episode,
    save_episode,
)
from ..support.errors import SettingError, UserError
from ..support.files import atomic_folder, check_new_folder, check_output_folder
from ..support.hdf5_files import EpisodeError
from ..support.video import Codec
from .lerobot_read import LeRobotReader
from .lerobot_units import DatasetUnits, RobotChoice, lerobot_joints, robot_of_episode
from .lerobot_write import LeRobotWriter

Target = Literal["hdf5", "lerobot-v2.1", "lerobot-v3.0"]
TARGETS = ("hdf5", "lerobot-v2.1", "lerobot-v3.0")


@dataclass
class Conversion:
    """What `convert` did."""

    source: str  # "hdf5", "v2.1", "v3.0"
    to: str
    episodes: int = 0
    frames: int = 0
    robot: str = ""
    units: str = ""
    skipped: dict[str, str] = field(default_factory=dict)  # episode -> why
    left_out: list[str] = field(default_factory=list)  # features without a place here
    faults: list[str] = field(default_factory=list)  # counts that were wrong
    notices: list[str] = field(default_factory=list)  # numbers that can hardly be right


def convert(
    source: str | Path,
    out: str | Path,
    to: Target = "hdf5",
    *,
    robot: RobotChoice = "auto",
    units: DatasetUnits = "auto",
    video: Codec = "h264",
    compression: Literal["jpeg", "raw"] = "jpeg",
    colours: Colours = "auto",
    lean: bool = False,
    task: str | None = None,
    skip_broken: bool = False,
    progress: bool = False,
) -> Conversion:
    """Makes one format of dataset from another; what `source` is, is found out.

    Args:
        source: A folder of ALOHA HDF5 episodes, or a LeRobot dataset v2.0 to v3.0.
        out: A new folder.
        robot: Whose joints they are; "auto" takes what the dataset says.
        units: LeRobot's side of the units; see lerobot_units.lerobot_joints.
        video: How LeRobot's videos are written: "h264" (fast, good), "av1" (small) or
            "lossless" (exact, ten times the size).
        compression: How images are written to HDF5.
        colours: What the source's images hold: "rgb", or "bgr" where red and blue are
            exchanged; "auto" as its format has it.
        lean: Keep velocities, efforts and the scene's state out of a LeRobot dataset.
        task: What LeRobot's side shall say that the episodes show.
        skip_broken: Leave broken episodes out, and make the counts of what is whole.

    Raises:
        EpisodeError: An episode is broken, or differs from the first one.
        UserError: No dataset, one that cannot be converted so, or no room.
        SettingError: A setting that cannot be meant.
    """
    if to not in TARGETS:
        raise SettingError(f"to is {to!r}, expected one of: {', '.join(TARGETS)}")

    check_new_folder(out)
    check_output_folder(out, apart_from=Path(source))
    source, result = Path(source), Conversion("hdf5", to)
    with contextlib.ExitStack() as stack:
        if kind_of(source) == "lerobot":
            reader = stack.enter_context(
                LeRobotReader(source, robot=robot, units=units, strict=not skip_broken)
            )
            joints, unrecorded = reader.joints, reader.unrecorded
            result.source, result.left_out = reader.version, reader.left_out
            result.faults = reader.faults
            names = [reader.name(i) for i in range(len(reader))]

            def read(i: int) -> Episode:
                episode = reader.read(i)
                if colours == "bgr":
                    for camera, images in episode.images.items():
                        episode.images[camera] = images[..., ::-1]
                return episode

        else:
            paths = list_episodes(source)
            if not skip_broken:
                check_alike(paths, progress=progress)
            name, labels = _robot_of(paths)
            joints = lerobot_joints(name if robot == "auto" else robot, units, labels)
            if joints.units == "old-degrees" and to != "hdf5":
                raise SettingError(
                    "units are 'old-degrees', which nothing writes any more, expected "
                    "'degrees'"
                )
            unrecorded = unrecorded_in(paths)
            names = [str(path) for path in paths]

            def read(i: int) -> Episode:
                return load_episode(paths[i], colours=colours)

        result.robot, result.units = joints.robot, joints.units
        if joints.units == "old-degrees":  # nothing writes the old zeros
            joints = lerobot_joints(joints.robot, "degrees", joints.labels)
        folder = stack.enter_context(atomic_folder(out))
        if to == "hdf5":
            sink = _Hdf5Folder(folder, compression)
        else:
            sink = LeRobotWriter(
                folder,
                "v2.1" if to == "lerobot-v2.1" else "v3.0",
                joints,
                codec=video,
                lean=lean,
                without=unrecorded,
                task=task,
            )
        _fill(sink, read, names, result, skip_broken, progress)
    return result


class _Hdf5Folder:
    """A folder of episodes that is filled one by one, as a LeRobotWriter is."""

    def __init__(self, folder: Path, compression: Literal["jpeg", "raw"]):
        self.folder = folder
        self.compression: Literal["jpeg", "raw"] = compression
        self._number = 0
        self._alike = Alike()

    def add(self, episode: Episode, where: str) -> None:
        self._alike.check(episode_shape(episode), where)
        path = episode_path(self.folder, self._number)
        save_episode(path, episode, compression=self.compression, quality=95)
        self._number += 1

    def close(self) -> None:
        """Every file is whole already."""

    def abandon(self) -> None:
        """No file is open."""


def _robot_of(paths: Sequence[Path]) -> tuple[str, list[str]]:
    for path in paths:
        with contextlib.suppress(EpisodeError):
            episode = load_episode(path, images=False)
            attributes, width = episode.attributes, episode.qpos.shape[1]
            joints = named_joints(attributes.get("joints"), width)
            return robot_of_episode(attributes, width), joints
    raise UserError(f"{paths[0].parent} has no episode that can be read")


def _fill(
    sink: _Hdf5Folder | LeRobotWriter,
    read: Callable[[int], Episode],
    names: Sequence[str],
    result: Conversion,
    skip_broken: bool,
    progress: bool,
) -> None:
    """Writes episode after episode, while the next one is being read."""
    if not names:
        raise UserError("the dataset has no episodes")
    low: list[np.ndarray] = []
    high: list[np.ndarray] = []
    joints: list[str] = []
    try:
        with ThreadPoolExecutor(1) as ahead:
            coming = ahead.submit(read, 0)
            bar = tqdm(names, desc="convert", disable=not progress)
            for i, where in enumerate(bar):
                now = coming
                if i + 1 < len(names):
                    coming = ahead.submit(read, i + 1)
                try:
                    episode = now.result()
                    sink.add(episode, where)
                except EpisodeError as error:
                    if not skip_broken:
                        raise
                    result.skipped[where] = str(error)
                    continue
                result.episodes += 1
                result.frames += len(episode)
                low.append(episode.qpos.min(axis=0))
                high.append(episode.qpos.max(axis=0))
                joints = named_joints(episode.attributes.get("joints"), len(low[-1]))
        if result.episodes == 0:
            raise UserError(f"none of {len(names)} episodes could be converted")
    except BaseException:
        sink.abandon()
        raise
    ends = np.min(low, axis=0), np.max(high, axis=0)
    result.notices += beyond_reach(*ends, result.robot, joints)
    sink.close()
