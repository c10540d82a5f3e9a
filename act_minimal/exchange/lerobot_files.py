"""The files of a LeRobot dataset: JSON, lines of JSON, parquet, pictures in parquet.

And the statistics kept with them, of each episode and of all. Of numbers: min, max,
mean, std and quantiles of each, over all frames. Of images: the same of each colour,
from 0 to 1, over a sample of frames and pixels; a count of how often each of the 256
levels occurs says all of that exactly, and adds up.
"""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..support.files import write_text
from ..support.hdf5_files import EpisodeError

INFO = "meta/info.json"
DATA_V2 = "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"
VIDEO_V2 = (
    "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"
)
DATA_V3 = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO_V3 = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
EPISODES_V3 = "meta/episodes/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"


def read_lines(path: Path) -> list[dict[str, Any]]:
    """A file of one JSON dictionary a line."""
    if not path.is_file():
        raise EpisodeError(f"{path}: no such file")
    found, where = [], str(path)
    try:
        # Not splitlines(): a text in JSON may hold other signs that end lines there.
        for n, line in enumerate(path.read_text(encoding="utf-8").split("\n"), start=1):
            where = f"{path} line {n}"
            if line.strip():
                found.append(json.loads(line))
    except (ValueError, OSError) as error:
        raise EpisodeError(f"{where} is not one JSON value a line: {error}") from error
    if not all(isinstance(line, dict) for line in found):
        raise EpisodeError(f"{path}: a line holds no dictionary")
    return found


def read_table(path: Path, columns: list[str] | None = None) -> Any:
    """A parquet file, or some columns of it, as an Arrow table."""
    if not path.is_file():
        raise EpisodeError(f"{path}: no such file")
    try:
        with pq.ParquetFile(path) as file:
            return file.read(columns)
    except (pa.ArrowException, OSError) as error:
        raise EpisodeError(
            f"{path}: not a whole parquet file ({' '.join(str(error).split())[:100]}); "
            "a recording that was not finalized leaves such files"
        ) from error


def numbers_of(table: Any, key: str, path: Path) -> np.ndarray:
    """A column of numbers, or of lists of numbers, as (rows, width)."""
    if key not in table.column_names:
        raise EpisodeError(f"{path}: the column {key} is missing")
    column = table.column(key).combine_chunks()
    kind = column.type
    if column.null_count:
        raise EpisodeError(f"{path}: {key} has empty rows")
    if pa.types.is_fixed_size_list(kind) or pa.types.is_list(kind):
        widths = column.value_lengths().unique()
        flat = column.flatten()
        if len(widths) > 1 or flat.null_count:
            raise EpisodeError(f"{path}: {key} has rows of different length")
    else:
        flat = column
    if not any(
        is_kind(flat.type)
        for is_kind in (pa.types.is_floating, pa.types.is_integer, pa.types.is_boolean)
    ):
        raise EpisodeError(f"{path}: {key} holds {kind}, expected numbers")
    return flat.to_numpy(zero_copy_only=False).reshape(len(column), -1)


def decode_pictures(cells: list[Any], where: str, folder: Path) -> np.ndarray:
    """Pictures that lie in the parquet file itself: (T, H, W, 3) uint8 RGB."""
    out = []
    for k, cell in enumerate(cells):
        content = cell.get("bytes") if isinstance(cell, dict) else None
        if not content and isinstance(cell, dict) and cell.get("path"):
            path = folder / str(cell["path"])
            if path.resolve().is_relative_to(folder.resolve()) and path.is_file():
                content = path.read_bytes()
        coded = np.frombuffer(content or b"", np.uint8)
        how = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_ANYDEPTH
        image = cv2.imdecode(coded, how) if len(coded) else None
        if image is not None and image.dtype != np.uint8:
            raise EpisodeError(
                f"{where}: frame {k} has {8 * image.itemsize} bits a pixel and colour, "
                'as depth has, expected 8; depth is left out where "is_depth_map" '
                "marks it in info.json"
            )
        if image is None or (out and image.shape != out[0].shape):
            raise EpisodeError(f"{where}: frame {k} is no whole picture like frame 0")
        out.append(image)
    return np.stack(out)


def table_of(columns: dict[str, np.ndarray]) -> Any:
    """Numbers as an Arrow table: one a cell where the width is 1, else a list."""
    arrays = {}
    for key, rows in columns.items():
        flat = pa.array(np.ascontiguousarray(rows).ravel())
        width = rows.shape[1]
        arrays[key] = pa.FixedSizeListArray.from_arrays(flat, width)
        if width == 1:
            arrays[key] = flat
    return pa.table(arrays)


def write_lines(path: Path, lines: list[dict[str, Any]]) -> None:
    """One JSON dictionary a line."""
    write_text(
        path, "".join(json.dumps(line, allow_nan=False) + "\n" for line in lines)
    )


def write_tasks(path: Path, tasks: list[str]) -> None:
    """A table of tasks and their numbers, with the task as pandas' index."""

    def column(name: str, kind: str, numpy_kind: str) -> dict[str, Any]:
        kinds = {"pandas_type": kind, "numpy_type": numpy_kind}
        return {"name": name, "field_name": name, **kinds, "metadata": None}

    said = {
        "index_columns": ["task"],
        "column_indexes": [],
        "columns": [
            column("task_index", "int64", "int64"),
            column("task", "unicode", "object"),
        ],
        "pandas_version": "2.0.0",
    }
    table = pa.table(
        {"task_index": np.arange(len(tasks)), "task": pa.array(tasks, pa.string())}
    )
    pq.write_table(table.replace_schema_metadata({"pandas": json.dumps(said)}), path)


# ---------------------------------------------------------------- statistics

QUANTILES = {"q01": 0.01, "q10": 0.1, "q50": 0.5, "q90": 0.9, "q99": 0.99}
FRAMES, PIXELS = 100, 150  # a sample has about so many frames, and pixels a side


def of_numbers(rows: np.ndarray, *, quantiles: bool = True) -> dict[str, Any]:
    """Statistics of (T, width) numbers, as lists."""
    wide = np.asarray(rows, np.float64)
    out = {
        "min": wide.min(axis=0).tolist(),
        "max": wide.max(axis=0).tolist(),
        "mean": wide.mean(axis=0).tolist(),
        "std": wide.std(axis=0).tolist(),
        "count": [len(wide)],
    }
    if quantiles:
        values = np.quantile(wide, list(QUANTILES.values()), axis=0)
        out |= {name: v.tolist() for name, v in zip(QUANTILES, values, strict=True)}
    return out


class Levels:
    """How often each level of each colour occurs in a sample of images."""

    def __init__(self):
        self.frames = 0
        self.counts = np.zeros((3, 256))

    def add(self, images: np.ndarray) -> None:
        """Look at (T, H, W, 3) uint8; a sample of it."""
        t, h, w, _ = images.shape
        step = max(1, t // FRAMES)
        sample = images[::step, :: max(1, h // PIXELS), :: max(1, w // PIXELS)]
        self.frames += len(sample)
        tall = np.ascontiguousarray(sample).reshape(-1, sample.shape[2], 3)
        for c in range(3):
            self.counts[c] += cv2.calcHist([tall], [c], None, [256], [0, 256]).ravel()

    def merge(self, other: "Levels") -> None:
        self.frames += other.frames
        self.counts += other.counts

    def statistics(self, *, quantiles: bool = True) -> dict[str, Any]:
        """Statistics as nested lists of shape (3, 1, 1); levels from 0 to 1."""
        level = np.arange(256) / 255
        total = self.counts.sum(axis=1)  # (3,)
        share = self.counts / total[:, None]
        mean = share @ level
        found = self.counts > 0
        out = {
            "min": level[found.argmax(axis=1)],
            "max": level[255 - found[:, ::-1].argmax(axis=1)],
            "mean": mean,
            "std": np.sqrt((share * (level - mean[:, None]) ** 2).sum(axis=1)),
        }
        if quantiles:
            below = np.cumsum(share, axis=1)
            for name, q in QUANTILES.items():
                out[name] = level[(below >= q - 1e-12).argmax(axis=1)]
        lists = {k: v.reshape(3, 1, 1).tolist() for k, v in out.items()}
        return lists | {"count": [self.frames]}
