"""Folders of episodes merged, split and repaired."""

import random
import re
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from ..episodes import episode_path, list_episodes, load_episode
from ..support.errors import SettingError, UserError
from ..support.files import (
    atomic_folder,
    check_new_folder,
    check_output_folder,
    read_json,
    write_json,
)
from ..support.hdf5_files import EpisodeError
from .folders import check_alike, difference_of, episodes_of, shape_of

BROKEN, REASONS = "broken", "reasons.json"


# --- merge, split ---------------------------------------------------------------------


def merge(
    folders: Sequence[str | Path], out: str | Path, *, progress: bool = False
) -> list[Path]:
    """Several folders of episodes as one, in the order given, numbered anew.

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
        for i, path in enumerate(tqdm(paths, desc="merge", disable=not progress)):
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
        parts: Name of each part and how much it gets: a float is a share of all, up to
            1.0; an int a number of episodes. All floats or all ints.
        out: A new folder for the parts: out/train, out/val, ...
        in_order: The first ones go to the first part, and so on; nothing is drawn.

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
        for name, i, path in tqdm(jobs, desc="split", disable=not progress):
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

    Raises:
        UserError: No episodes, or files cannot be moved.
    """
    folder = Path(folder)
    paths = episodes_of(folder)
    result, shapes = Repair(0), dict[Path, dict[str, Any]]()
    for path in tqdm(paths, desc="read", disable=not progress):
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
    moved_to = {}
    for name in dropped:  # files of an earlier repair keep their names
        stem, n = Path(name).stem, 0
        place = aside / name
        while place.exists():
            n += 1
            place = aside / f"{stem}-{n}.hdf5"
        moved_to[name] = place
        reasons[place.name] = dropped[name]
    write_json(aside / REASONS, reasons)  # first: a reason without a file does no harm
    for name, place in moved_to.items():
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
