"""Where each episode of a LeRobot dataset is, and what its rows must agree on.

LeRobot finds a frame by its time alone, so an episode whose times, rate or stretch of a
video are wrong gives pictures of other moments, or of another episode, without a word.
"""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ..support.hdf5_files import EpisodeError
from .lerobot_files import (
    DATA_V2,
    DATA_V3,
    INFO,
    VIDEO_V2,
    VIDEO_V3,
    read_lines,
    read_table,
)

TOLERANCE = 1e-4  # s, LeRobot's tolerance_s; times are 32-bit, and coarser when late


@dataclass
class Row:
    """Where one episode is.

    Attributes:
        index: Its number in the dataset.
        length: How many frames it has.
        tasks: What it shows, as the list of episodes says.
        data: Its parquet file.
        videos: camera -> video, and from where to where it is there, s; the end is
            None where the dataset does not say it.
        extras: What our own exports say beside it.
        fault: Why its pictures cannot be trusted; "" if nothing is known.
    """

    index: int
    length: int
    tasks: list[str]
    data: Path
    videos: dict[str, tuple[Path, float, float | None]]
    extras: dict[str, Any] = field(default_factory=dict)
    fault: str = ""


def read_rows(
    folder: Path, info: Mapping[str, Any], videos: Mapping[str, str]
) -> list[Row]:
    """All episodes, by number; `videos` are camera -> key of a feature that is one."""
    v3 = str(info["codebase_version"]).startswith("v3")
    rows = (_rows_v3 if v3 else _rows_v2)(folder, info, videos)
    rows = sorted(rows, key=lambda row: row.index)
    _check_stretches(rows, float(info["fps"]))
    return rows


def _path(
    folder: Path, info: Mapping[str, Any], template: str, default: str, **words: Any
) -> Path:
    """A file of the dataset, by the pattern in info.json; never one outside."""
    pattern = info.get(template) or default
    try:
        path = folder / pattern.format(**words)
    except (AttributeError, KeyError, IndexError, ValueError) as error:
        raise EpisodeError(
            f"{folder / INFO}: {template} is {pattern!r}, which cannot be filled in"
        ) from error
    if not path.resolve().is_relative_to(folder.resolve()):
        raise EpisodeError(f"{folder / INFO}: {template} leads out of it")
    return path


def _tasks(line: Mapping[str, Any]) -> list[str]:
    """An episode's tasks: a list, or one text, as some writers have it."""
    tasks = line.get("tasks", line.get("task"))
    tasks = [tasks] if isinstance(tasks, str) else tasks
    if tasks is None:
        return []
    if not isinstance(tasks, list) or not all(isinstance(t, str) for t in tasks):
        raise ValueError(f"tasks is {tasks!r}, expected a list of texts")
    return tasks


def _rows_v2(
    folder: Path, info: Mapping[str, Any], keys: Mapping[str, str]
) -> list[Row]:
    listing = folder / "meta" / "episodes.jsonl"
    size = int(info.get("chunks_size") or 1000)
    rows = []
    for number, line in enumerate(read_lines(listing), start=1):
        try:
            index, length = int(line["episode_index"]), int(line["length"])
            tasks = _tasks(line)
        except (KeyError, TypeError, ValueError) as error:
            raise EpisodeError(
                f"{listing}: line {number}: an episode lacks a number or has a wrong "
                f"one ({error})"
            ) from error
        words = {"episode_index": index, "episode_chunk": index // size}
        data = _path(folder, info, "data_path", DATA_V2, **words)
        videos: dict[str, tuple[Path, float, float | None]] = {}
        for camera, key in keys.items():
            path = _path(folder, info, "video_path", VIDEO_V2, video_key=key, **words)
            videos[camera] = (path, 0.0, None)
        rows.append(Row(index, length, tasks, data, videos))
    return rows


def _rows_v3(
    folder: Path, info: Mapping[str, Any], keys: Mapping[str, str]
) -> list[Row]:
    place = folder / "meta" / "episodes"
    paths = sorted(place.glob("*/*.parquet"))
    if not paths:
        raise EpisodeError(
            f"{place} has no parquet file; the recording was not finalized"
        )
    rows = []
    for path in paths:
        table = read_table(path)
        wanted = [n for n in table.column_names if not n.startswith("stats/")]
        for number, line in enumerate(table.select(wanted).to_pylist()):
            try:
                rows.append(_row_v3(folder, info, keys, line))
            except (KeyError, TypeError, ValueError) as error:
                raise EpisodeError(
                    f"{path}: row {number}: an episode lacks a column or its value "
                    f"({error})"
                ) from error
    return rows


def _row_v3(
    folder: Path, info: Mapping[str, Any], keys: Mapping[str, str], line: dict[str, Any]
) -> Row:
    def file_of(kind: str) -> dict[str, int]:
        return {k: int(line[f"{kind}/{k}"]) for k in ("chunk_index", "file_index")}

    videos = {}
    for camera, key in keys.items():
        words = {"video_key": key, **file_of(f"videos/{key}")}
        path = _path(folder, info, "video_path", VIDEO_V3, **words)
        start = float(line[f"videos/{key}/from_timestamp"])
        end = line.get(f"videos/{key}/to_timestamp")
        videos[camera] = (path, start, None if end is None else float(end))
    data = _path(folder, info, "data_path", DATA_V3, **file_of("data"))
    index, length = int(line["episode_index"]), int(line["length"])
    return Row(index, length, _tasks(line), data, videos)


# --- what must agree ------------------------------------------------------------------


def _check_stretches(rows: list[Row], fps: float) -> None:
    """Marks episodes that cannot be where their videos are said to hold them.

    LeRobot 0.4.0 merged datasets so that many episodes point into one video.
    """
    claims: dict[Path, list[tuple[float, float, Row]]] = {}
    half = 0.5 / fps
    for row in rows:
        for path, start, end in row.videos.values():
            seconds = row.length / fps
            said = seconds if end is None else end - start
            if not (start >= 0 and abs(said - seconds) < half):
                row.fault = (
                    f"{path}: episode {row.index} has {row.length} frames, "
                    f"{seconds:.3f} s at {fps:g} frames a second, but meta/episodes "
                    f"gives it {start:.3f} to {start + said:.3f} s of this video"
                )
            claims.setdefault(path, []).append((start, start + seconds, row))
    for path, claimed in claims.items():
        claimed.sort(key=lambda claim: claim[0])
        latest = claimed[0]
        for before, now in itertools.pairwise(claimed):
            latest = max(latest, before, key=lambda claim: claim[1])
            if now[0] < latest[1] - half:
                fault = (
                    f"{path}: episodes {latest[2].index} and {now[2].index} both claim "
                    f"its seconds {now[0]:.3f} to {min(latest[1], now[1]):.3f}, and "
                    "nothing says whose pictures these are"
                )
                for row in (latest[2], now[2]):
                    row.fault = row.fault or fault


def check_times(times: np.ndarray, fps: float, where: str) -> None:
    """Refuses rows whose times (T,) s are not 0, 1, 2, ... frames at the rate."""
    if not np.isfinite(times).all():
        raise EpisodeError(f"{where} has a timestamp that is no number")
    expected = np.arange(len(times)) / fps
    late = np.spacing(np.abs(times).astype(np.float32)).astype(np.float64)
    off = np.flatnonzero(np.abs(times - expected) > TOLERANCE + late)
    if not len(off):
        return
    k = int(off[0])
    steps = np.diff(times)
    hint = ""
    if not steps.any():
        hint = "; all times are equal"
    elif k and steps.min() > 0 and np.ptp(steps) < 2 * TOLERANCE:
        hint = f"; the times are those of {1 / steps.mean():.4g} frames a second"
    raise EpisodeError(
        f"{where} has timestamp {times[k]:.4f} s in row {k}, expected "
        f"{expected[k]:.4f} s (frame_index / fps, fps is {fps:g}){hint}"
    )


# --- tasks ----------------------------------------------------------------------------


def read_tasks(folder: Path) -> dict[int, str]:
    """The table of tasks: number -> text; {} where there is none."""
    lines, table = folder / "meta" / "tasks.jsonl", folder / "meta" / "tasks.parquet"
    rows: list[dict[str, Any]] = []
    if table.is_file():
        content = read_table(table)
        texts = [
            column.name
            for column in content.schema
            if pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
        ]
        if len(texts) == 1 and "task_index" in content.column_names:
            rows = content.rename_columns(
                ["task" if n in texts else n for n in content.column_names]
            ).to_pylist()
    elif lines.is_file():
        rows = read_lines(lines)
    return {
        row["task_index"]: row["task"]
        for row in rows
        if isinstance(row.get("task_index"), int) and isinstance(row.get("task"), str)
    }


def tasks_of(
    row: Row, numbers: np.ndarray | None, table: Mapping[int, str], where: str
) -> list[tuple[int, str]]:
    """What an episode shows from which frame on; [] if nothing says it.

    `numbers` (T,) are each frame's task_index, `table` has their texts. EpisodeError
    if there are several tasks, and nothing says which frame shows which.
    """
    found = [] if numbers is None else [int(n) for n in np.asarray(numbers).ravel()]
    several = len(set(found)) > 1
    if len(row.tasks) == 1 and not several:
        return [(0, row.tasks[0])]
    if not found or not set(found) <= set(table):
        if several or len(row.tasks) > 1:
            raise EpisodeError(
                f"{where} has several tasks, but its task_index has numbers that "
                "meta/tasks does not name, so that nothing says which frame shows which"
            )
        return []
    begins = [t for t, n in enumerate(found) if t == 0 or n != found[t - 1]]
    return [(t, table[found[t]]) for t in begins]
