"""Folders of episodes merged, split, repaired, and converted from and to LeRobot's.

Whatever makes a new folder makes it under a hidden name and renames it when it is
complete: a conversion that is killed leaves no folder that looks whole.
"""

import contextlib
import random
import re
import shutil
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from act_minimal.data_folders import (
    check_alike,
    difference_of,
    episodes_of,
    kind_of,
    shape_of,
    unrecorded_in,
    with_bar,
)
from act_minimal.episodes import (
    Colours,
    Episode,
    EpisodeError,
    episode_path,
    list_episodes,
    load_episode,
    save_episode,
)
from act_minimal.errors import SettingError, UserError
from act_minimal.files import (
    atomic_folder,
    check_new_folder,
    check_output_folder,
    read_json,
    write_json,
)
from act_minimal.joints import beyond_reach, named_joints
from act_minimal.lerobot_edge import (
    Edge,
    RobotChoice,
    Units,
    edge_to_write,
    make_edge,
    robot_of_episode,
)
from act_minimal.lerobot_read import LeRobotReader
from act_minimal.lerobot_video import Codec
from act_minimal.lerobot_write import Alike, LeRobotWriter

Target = Literal["hdf5", "lerobot-v2.1", "lerobot-v3.0"]
TARGETS = ("hdf5", "lerobot-v2.1", "lerobot-v3.0")
BROKEN, REASONS = "broken", "reasons.json"


# --- merge, split ---------------------------------------------------------------------


def merge(
    folders: Sequence[str | Path], out: str | Path, *, progress: bool = False
) -> list[Path]:
    """Several folders of episodes as one, in the order given, numbered anew.

    Args:
        folders: Folders of *.hdf5 episodes; they stay as they are.
        out: A new folder.
        progress: Shows bars.

    Returns:
        The new files.

    Raises:
        EpisodeError: A file is broken, or differs from the first one.
        UserError: Nothing to merge, or `out` is there already.
    """
    if len(folders) < 2:
        raise SettingError(f"{len(folders)} folders to merge, expected at least 2")
    seen = [Path(folder).resolve() for folder in folders]
    for folder, count in Counter(seen).items():
        if count > 1:
            raise SettingError(f"{folder} is to be merged {count} times, expected once")
    check_new_folder(out)
    for folder in folders:
        check_output_folder(out, apart_from=Path(folder))
    paths = [path for folder in folders for path in episodes_of(folder)]
    check_alike(paths, progress=progress)
    with atomic_folder(out) as temporary:
        for i, path in enumerate(with_bar(paths, "merge", progress)):
            shutil.copyfile(path, episode_path(temporary, i))
    return list_episodes(out)


def split(
    folder: str | Path,
    parts: Mapping[str, int | float],
    out: str | Path,
    *,
    seed: int = 0,
    in_order: bool = False,
    progress: bool = False,
) -> dict[str, list[Path]]:
    """A folder of episodes as several, whole episodes each, drawn by a seed.

    Args:
        folder: A folder of *.hdf5 episodes; it stays as it is.
        parts: Name of each part and how much it gets: a float is a share of all, up to
            1.0; an int a number of episodes. All floats or all ints.
        out: A new folder for the parts: out/train, out/val, ...
        seed: Decides which episodes go where.
        in_order: The first ones go to the first part, and so on; nothing is drawn.
        progress: Shows a bar.

    Returns:
        Part -> its new files. Episodes keep their order, and what no part asked for
        stays out.

    Raises:
        SettingError: Shares or counts that cannot be, or a name that is none.
        UserError: The folder has no episodes, or `out` is there already.
    """
    check_new_folder(out)
    check_output_folder(out, apart_from=Path(folder))
    paths = episodes_of(folder)
    counts = part_counts(parts, len(paths), str(folder))
    order = list(range(len(paths)))
    if not in_order:
        random.Random(seed).shuffle(order)
    chosen, begin = {}, 0
    for name, count in counts.items():
        chosen[name] = [paths[i] for i in sorted(order[begin : begin + count])]
        begin += count
    jobs = [(n, i, p) for n, part in chosen.items() for i, p in enumerate(part)]
    with atomic_folder(out) as temporary:
        for name in chosen:
            (temporary / name).mkdir()
        for name, i, path in with_bar(jobs, "split", progress):
            shutil.copyfile(path, episode_path(temporary / name, i))
    return {name: list_episodes(Path(out) / name) for name in chosen}


def part_counts(
    parts: Mapping[str, int | float], total: int, where: str
) -> dict[str, int]:
    """How many of `total` episodes each part gets; see `split`."""
    for name in parts:
        if not re.fullmatch(r"\w[\w.-]*", name):
            raise SettingError(f"{name!r} is no name for a folder of a part")
    values = list(parts.values())
    shares = [v for v in values if isinstance(v, float)]
    if not values or len(shares) not in (0, len(values)):
        raise SettingError(
            f"the parts are {dict(parts)}, expected all shares (0.8) or all counts (40)"
        )
    if not shares:
        counts = {name: int(value) for name, value in parts.items()}
    else:
        if min(shares) <= 0 or sum(shares) > 1 + 1e-9:
            raise SettingError(
                f"the shares are {', '.join(f'{s:g}' for s in shares)}, expected each "
                "above 0 and together at most 1"
            )
        # What is lost by rounding down goes to those who lost most.
        counts = {name: int(share * total + 1e-9) for name, share in parts.items()}
        missing = round(sum(shares) * total) - sum(counts.values())
        lost = sorted(parts, key=lambda name: counts[name] - parts[name] * total)
        for name in lost[:missing]:
            counts[name] += 1
    if min(counts.values()) < 1 or sum(counts.values()) > total:
        listed = ", ".join(f"{name} {count}" for name, count in counts.items())
        raise SettingError(
            f"{where} has {total} episodes, the parts ask for {listed}; expected at "
            f"least 1 each and at most {total} together"
        )
    return counts


# --- repair ---------------------------------------------------------------------------


@dataclass
class Repair:
    """What `repair` did; file names."""

    kept: int
    dropped: dict[str, str] = field(default_factory=dict)  # file -> why
    renamed: dict[str, str] = field(default_factory=dict)  # old name -> new name


def repair(
    folder: str | Path, *, dry_run: bool = False, progress: bool = False
) -> Repair:
    """Drops broken episodes of a folder and numbers the others 0, 1, 2, ...

    Every file is read to its last image. Dropped are those that cannot be read, and
    those that differ from most in rate, widths or cameras, with which no policy could
    be trained. They are moved to the folder `broken` inside, never deleted; the
    reasons stand there in reasons.json. A repair that was stopped goes on with the
    next call.

    Args:
        folder: A folder of *.hdf5 episodes.
        dry_run: Only say what would be done.
        progress: Shows a bar.

    Raises:
        UserError: No episodes, or files cannot be moved.
    """
    folder = Path(folder)
    paths = episodes_of(folder)
    result, shapes = Repair(0), dict[Path, dict[str, Any]]()
    for path in with_bar(paths, "read", progress):
        try:
            load_episode(path, colours="rgb")  # which order it is breaks nothing
            shapes[path] = shape_of(path)
        except EpisodeError as error:
            result.dropped[path.name] = str(error).removeprefix(f"{path}: ")
    kinds = Counter(repr(shape) for shape in shapes.values())
    usual = kinds.most_common(1)[0][0] if kinds else ""
    model = next((p for p, shape in shapes.items() if repr(shape) == usual), None)
    kept = []
    for path, shape in shapes.items():
        fault = difference_of(path, shape, model, shapes[model]) if model else ""
        if fault:
            reason = fault.removeprefix(f"{path}: ") + " and most others"
            result.dropped[path.name] = reason
        else:
            kept.append(path)
    result.kept = len(kept)
    result.renamed = {
        path.name: episode_path(folder, i).name
        for i, path in enumerate(kept)
        if path != episode_path(folder, i)
    }
    if not dry_run:
        try:
            _move_aside(folder, result.dropped)
            _renumber(folder, kept)
        except OSError as error:
            raise UserError(f"{folder} could not be repaired: {error}") from error
    return result


def _move_aside(folder: Path, dropped: Mapping[str, str]) -> None:
    if not dropped:
        return
    aside = folder / BROKEN
    aside.mkdir(exist_ok=True)
    reasons: dict[str, str] = {}
    if (aside / REASONS).exists():
        reasons = read_json(aside / REASONS)
        if not isinstance(reasons, dict):
            raise UserError(f"{aside / REASONS} was not written by a repair; rename it")
    places = {}
    for name in dropped:  # files of an earlier repair keep their names
        stem, n = Path(name).stem, 0
        place = aside / name
        while place.exists():
            n += 1
            place = aside / f"{stem}-{n}.hdf5"
        places[name] = place
        reasons[place.name] = dropped[name]
    write_json(aside / REASONS, reasons)  # first: a reason without a file does no harm
    for name, place in places.items():
        (folder / name).rename(place)


def _renumber(folder: Path, kept: Sequence[Path]) -> None:
    """Gives the files in this order the names of episodes 0, 1, 2, ...

    One rename at a time, none of which hides a file: whenever it stops, all are there.
    """
    now, wanted = list(kept), [episode_path(folder, i) for i in range(len(kept))]
    for i, target in enumerate(wanted):
        if now[i] == target:
            continue
        if target.exists():  # a later one has this name: out of the way with it
            later = now.index(target)
            free = next(
                p
                for n in range(len(kept), 2 * len(kept) + 2)
                if not (p := episode_path(folder, n)).exists()
            )
            target.rename(free)
            now[later] = free
        now[i].rename(target)
        now[i] = target


# --- convert --------------------------------------------------------------------------


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
    notices: list[str] = field(default_factory=list)  # numbers that are hard to believe


def convert(
    source: str | Path,
    out: str | Path,
    to: Target = "hdf5",
    *,
    robot: RobotChoice = "auto",
    units: Units = "auto",
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
        to: The format to make.
        robot: Whose joints they are; "auto" believes the dataset.
        units: LeRobot's side of the units; see lerobot_edge.make_edge.
        video: How LeRobot's videos are written: "h264" (fast, good), "av1" (small) or
            "lossless" (exact, ten times the size).
        compression: How images are written to HDF5: "jpeg" or exactly ("raw").
        colours: What the source's images hold: "rgb", or "bgr" where red and blue are
            exchanged; "auto" as its format has it.
        lean: Keep velocities, efforts and the scene's state out of a LeRobot dataset,
            which would show them to a policy.
        task: What LeRobot's side shall say that the episodes show.
        skip_broken: Leave broken episodes out, and make the counts of what is whole.
        progress: Shows a bar.

    Raises:
        EpisodeError: An episode is broken, or differs from the first one.
        UserError: No dataset, one that cannot be converted so, or no room.
        SettingError: A setting that cannot be meant.
    """
    if to not in TARGETS:
        raise SettingError(f"to is {to!r}, expected one of: {', '.join(TARGETS)}")

    def sink(
        folder: Path, edge: Edge, without: Sequence[str] = ()
    ) -> "_Hdf5Folder | LeRobotWriter":
        if to == "hdf5":
            return _Hdf5Folder(folder, compression)
        version = "v2.1" if to == "lerobot-v2.1" else "v3.0"
        return LeRobotWriter(
            folder, version, edge, codec=video, lean=lean, without=without, task=task
        )

    check_new_folder(out)
    check_output_folder(out, apart_from=Path(source))
    source, result = Path(source), Conversion("hdf5", to)
    if kind_of(source) == "lerobot":
        with LeRobotReader(
            source, robot=robot, units=units, strict=not skip_broken
        ) as reader:
            result.source, result.left_out = reader.version, reader.left_out
            result.faults = reader.faults
            places = [reader.name(i) for i in range(len(reader))]
            result.robot, result.units = reader.edge.robot, reader.edge.units
            with atomic_folder(out) as folder:
                edge = reader.edge
                edge = edge_to_write(edge.robot, edge.units, edge.labels)

                def read(i: int) -> Episode:
                    episode = reader.read(i)
                    if colours == "bgr":
                        for camera, images in episode.images.items():
                            episode.images[camera] = images[..., ::-1]
                    return episode

                to_fill = sink(folder, edge, reader.unrecorded)
                _fill(to_fill, read, places, result, skip_broken, progress)
        return result
    paths = list_episodes(source)
    if not skip_broken:
        check_alike(paths, progress=progress)
    name, joints = _robot_of(paths)
    name = robot if robot != "auto" else name
    edge = make_edge(name, units, joints)
    if edge.units == "old-degrees" and to != "hdf5":
        raise SettingError(
            "units are 'old-degrees', which nothing writes any more, expected 'degrees'"
        )
    result.robot, result.units = edge.robot, edge.units
    with atomic_folder(out) as folder:
        places = [str(path) for path in paths]
        to_fill = sink(folder, edge, unrecorded_in(paths))
        _fill(
            to_fill,
            lambda i: load_episode(paths[i], colours=colours),
            places,
            result,
            skip_broken,
            progress,
        )
    return result


class _Hdf5Folder:
    """A folder of episodes that is filled one by one, as a LeRobotWriter is."""

    def __init__(self, folder: Path, compression: Literal["jpeg", "raw"]):
        self.folder = folder
        self.compression: Literal["jpeg", "raw"] = compression
        self._number = 0
        self._alike = Alike()

    def add(self, episode: Episode, where: str) -> None:
        self._alike.check(episode, where)
        path = episode_path(self.folder, self._number)
        save_episode(path, episode, compression=self.compression, quality=95)
        self._number += 1

    def close(self) -> None:
        """Every file is whole already."""

    def abandon(self) -> None:
        """No file is open."""


def _robot_of(paths: Sequence[Path]) -> tuple[str, list[str]]:
    """The robot of the first episode that can be read, and its joints' names."""
    for path in paths:
        with contextlib.suppress(EpisodeError):
            episode = load_episode(path, images=False)
            attributes, width = episode.attributes, episode.qpos.shape[1]
            joints = named_joints(attributes.get("joints"), width)
            return robot_of_episode(attributes, width), joints
    raise UserError(f"{paths[0].parent} has no episode that can be read")


def _fill(
    sink: "_Hdf5Folder | LeRobotWriter",
    read: Callable[[int], Episode],
    places: Sequence[str],
    result: Conversion,
    skip_broken: bool,
    progress: bool,
) -> None:
    """Writes episode after episode, while the next one is being read."""
    if not places:
        raise UserError("the dataset has no episodes")
    low: list[np.ndarray] = []
    high: list[np.ndarray] = []
    joints: list[str] = []
    try:
        with ThreadPoolExecutor(1) as ahead:
            coming = ahead.submit(read, 0)
            for i, where in enumerate(with_bar(places, "convert", progress)):
                now = coming
                if i + 1 < len(places):
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
            raise UserError(f"none of {len(places)} episodes could be converted")
    except BaseException:
        sink.abandon()
        raise
    ends = np.min(low, axis=0), np.max(high, axis=0)
    result.notices += beyond_reach(*ends, result.robot, joints)
    sink.close()
