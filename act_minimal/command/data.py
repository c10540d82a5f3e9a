"""The `act data` commands: folders of episodes merged, split, repaired, converted.

Each is a function whose parameters are the flags, as in `main.py`, which lists them.
"""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import tyro

from ..support.errors import SettingError
from ..support.results import Json, Result
from ..support.validation import Whole

OVERVIEW = """\
usage: act data VERB [flags]          act data VERB --help teaches each one

  merge     several folders of episodes as one
  split     one folder as several, by shares or counts
  repair    drop broken episodes, number the others anew
  convert   from and to LeRobot's datasets v2.1 and v3.0, and ALOHA's HDF5
"""


def merge(
    folders: tyro.conf.Positional[tuple[Path, ...]], out: Path, json: Json = False
) -> Result:
    """Several folders of episodes as one, in the order given, numbered anew.

    All episodes must have the same rate, cameras and numbers a frame; if one differs,
    both files are named and nothing is written. The old folders stay as they are.

    $ act data merge monday tuesday --out both

    Args:
        folders: Folders of *.hdf5 episodes, two or more.
        out: The new folder.
    """
    from ..datasets import edit

    paths = edit.merge(folders, out, progress=not json)
    return Result(
        {"folder": str(out), "episodes": len(paths)},
        f"{out}: {len(paths)} episodes of {len(folders)} folders",
    )


def split(
    data: tyro.conf.Positional[Path],
    into: tuple[str, ...],
    out: Path,
    seed: Whole = 0,
    in_order: bool = False,
    json: Json = False,
) -> Result:
    """One folder of episodes as several, by shares or by counts.

    Whole episodes each, because frames of one episode are almost copies of each other.

    $ act data split demos --into train=0.8 val=0.2 --out parts
    $ act data split demos --into few=10 more=40 --out parts --seed 3
    $ act data split demos --into first=25 --out parts --in-order

    Args:
        data: Folder of *.hdf5 episodes; it stays as it is.
        into: NAME=SHARE of each part (with a point: 0.8), or NAME=COUNT (40).
        out: The new folder; the parts are OUT/NAME.
        seed: Decides which episodes go where.
        in_order: The first episodes go to the first part, and so on.
    """
    shares = read_parts(into)
    from ..datasets import edit

    parts = edit.split(
        data, shares, out, seed=seed, in_order=in_order, progress=not json
    )
    counts = {name: len(paths) for name, paths in parts.items()}
    lines = [f"{out / name}: {count} episodes" for name, count in counts.items()]
    return Result({"folder": str(out), "episodes": counts}, "\n".join(lines))


def read_parts(words: tuple[str, ...]) -> dict[str, int | float]:
    """`train=0.8` and `few=10` as numbers: shares are floats, counts are ints."""
    parts: dict[str, int | float] = {}
    for word in words:
        name, _, value = word.partition("=")
        if name in parts:
            raise SettingError(f"--into has the part {name!r} twice, expected it once")
        try:
            parts[name] = float(value) if "." in value else int(value)
        except ValueError:
            raise SettingError(
                f"--into has {word!r}, expected NAME=SHARE (train=0.8) or NAME=COUNT "
                "(train=40)"
            ) from None
    return parts


def repair(
    data: tyro.conf.Positional[Path], dry_run: bool = False, json: Json = False
) -> Result:
    """Drop broken episodes of a folder, and number the others 0, 1, 2, ...

    Reads every file to its last image. Files that cannot be read, and those whose rate,
    cameras or numbers differ from most, are moved to the folder `broken` inside, with
    the reasons in broken/reasons.json; nothing is deleted. A broken LeRobot dataset is
    mended by converting it: act data convert --skip-broken

    $ act data repair demos --dry-run
    $ act data repair demos

    Args:
        data: Folder of *.hdf5 episodes.
        dry_run: Only say what would be done.
    """
    from ..datasets import edit

    result = edit.repair(data, dry_run=dry_run, progress=not json)
    content = {"folder": str(data), "dry_run": dry_run} | dataclasses.asdict(result)
    would = "would be " if dry_run else ""
    lines = [f"{name}: {why}" for name, why in result.dropped.items()]
    lines.append(
        f"{data}: {result.kept} episodes are whole, {len(result.dropped)} {would}moved "
        f"to {data / edit.BROKEN}, {len(result.renamed)} {would}renamed"
    )
    return Result(content, "\n".join(lines))


def convert(
    source: tyro.conf.Positional[Path],
    out: tyro.conf.Positional[Path],
    to: Literal["hdf5", "lerobot-v2.1", "lerobot-v3.0"] = "hdf5",
    robot: Literal["auto", "so100", "so101", "aloha", "openarm", "other"] = "auto",
    units: Literal["auto", "degrees", "percent", "old-degrees", "same"] = "auto",
    video: Literal["h264", "av1", "lossless"] = "h264",
    compression: Literal["jpeg", "raw"] = "jpeg",
    colours: Literal["auto", "rgb", "bgr"] = "auto",
    lean: bool = False,
    task: str | None = None,
    skip_broken: bool = False,
    json: Json = False,
) -> Result:
    """Make one format of dataset from another; what the source is, is found out.

    Episodes, frames and cameras correspond exactly, numbers up to the last digit of
    32-bit floats; images are as good as the video or JPEG that they go through.
    LeRobot has degrees for the joints of a SO-100, a SO-101 and OpenArms, and other
    grippers, where there are radians and 0 to 1 here. What it has no place for
    (success, scene, seed, ...) comes back all the same.

    $ act data convert demos for_lerobot --to lerobot-v3.0
    $ act data convert from_lerobot demos --to hdf5
    $ act data convert old_dataset new_dataset --to lerobot-v3.0 --skip-broken

    Args:
        source: Folder of ALOHA HDF5 episodes, or a LeRobot dataset v2.0 to v3.0.
        out: The new folder.
        to: The format to make.
        robot: Whose joints they are; auto goes by what the numbers are called, and asks
            where that does not say it.
        units: What LeRobot's side has: auto goes by names and values, and asks where
            those leave it open; percent is -100 to 100 of each joint's range,
            old-degrees are a SO-100's from before June 2025, same is radians, and the
            numbers as they are for other robots. Written are degrees by default.
        video: For LeRobot: h264 is fast, av1 is small, lossless is exact and ten times
            as large.
        compression: For HDF5: jpeg, or raw, which is exact and ten times as large.
        colours: Whether red and blue are exchanged in the source's images (bgr) or not
            (rgb); auto asks where the files do not say it.
        lean: Keep velocities, efforts and the scene's state out of a LeRobot dataset;
            with them, LeRobot shows them to the policy that it trains.
        task: What the dataset tells LeRobot that the episodes show.
        skip_broken: Leave broken episodes out; counts are made from what is whole.
    """
    from ..exchange import convert as conversion

    result = conversion.convert(
        source,
        out,
        to,
        robot=robot,
        units=units,
        video=video,
        compression=compression,
        colours=colours,
        lean=lean,
        task=task,
        skip_broken=skip_broken,
        progress=not json,
    )
    lines = result.faults + [f"left out: {fault}" for fault in result.skipped.values()]
    if result.left_out:
        lines.append(f"has no place here: {', '.join(result.left_out)}")
    lines += [f"NOTICE {notice}" for notice in result.notices]
    units_said = "the same numbers" if result.units == "same" else result.units
    lines.append(
        f"{out}: {result.episodes} episodes, {result.frames} frames of robot "
        f"{result.robot} from {result.source} to {result.to}; LeRobot's side: "
        f"{units_said}"
    )
    return Result({"folder": str(out)} | dataclasses.asdict(result), "\n".join(lines))


VERBS: dict[str, Callable[..., Result]] = {
    "merge": merge,
    "split": split,
    "repair": repair,
    "convert": convert,
}


def find_verb(words: Sequence[str]) -> Callable[..., Result]:
    """The function for the words after `act data`."""
    if not words or words[0] not in VERBS:
        said = f"no verb {words[0]!r}" if words else "a verb is missing"
        raise SettingError(f"act data: {said}, expected one of: {', '.join(VERBS)}")
    return VERBS[words[0]]
