"""LeRobot's datasets, v2.0 to v3.0, read as episodes.

In all versions meta/info.json says the version, the rate, the features, and how the
other files are called. v2.1 has meta/episodes.jsonl, and one parquet file and one video
a camera for each episode. v3.0 has meta/episodes/*/*.parquet, and parquet files and
videos of many episodes each; where an episode begins in them stands in meta/episodes.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from act_minimal.episodes import Attribute, Episode, EpisodeError, check_episode
from act_minimal.errors import UserError
from act_minimal.files import read_json
from act_minimal.lerobot_edge import make_edge, robot_of_type
from act_minimal.lerobot_files import (
    decode_pictures,
    numbers_of,
    read_lines,
    read_table,
)
from act_minimal.lerobot_video import VideoReader, threads_for

VERSIONS = ("v2.0", "v2.1", "v3.0")
INFO = "meta/info.json"
OURS = "meta/act_minimal.json"  # what LeRobot has no place for; it does not look there
STATE, ACTION = "observation.state", "action"
# Ours -> theirs, for what an episode may have beside state, action and images.
EXTRAS = {
    "qvel": "observation.velocity",
    "effort": "observation.effort",
    "env_state": "observation.environment_state",
    "base_action": "base_action",
}
COUNTERS = ("timestamp", "frame_index", "episode_index", "index", "task_index")
CAMERA = "observation.images."


def camera_key(camera: str) -> str:
    """LeRobot's name of a camera's feature."""
    return CAMERA + camera


@dataclass
class _Row:
    """Where one episode is."""

    index: int
    length: int
    tasks: list[str]
    data: Path
    videos: dict[str, tuple[Path, float]]  # camera -> video, s where it begins there
    extras: dict[str, Any] = field(default_factory=dict)  # from OURS


class LeRobotReader:
    """A LeRobot dataset, opened; a context manager.

    Args:
        folder: Holds meta/info.json.
        robot: "auto" believes info.json's robot_type, or one of lerobot_edge.ROBOTS.
        units: What the numbers there are; see lerobot_edge.make_edge.
        strict: Whether counts that contradict each other are an error; otherwise what
            is there is read, and the fault is kept in `faults`.

    Attributes:
        version: "v2.0", "v2.1" or "v3.0".
        fps: Frames a second.
        cameras: Our names of the cameras, in order of the features.
        edge: Units and names.
        left_out: Features that an Episode has no place for.
        faults: What a lenient reader found.

    Raises:
        UserError: Not such a dataset, or a version that is not known.
        EpisodeError: A file of it is missing or damaged.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        robot: str = "auto",
        units: str = "auto",
        strict: bool = True,
    ):
        self.folder, self.faults = Path(folder), list[str]()
        self._strict = strict
        self.info = self._read_info()
        self.version = str(self.info["codebase_version"])
        self.fps = float(self.info["fps"])
        features = self.info["features"]
        images = {"video", "image"}
        self._kinds = {
            key: f["dtype"] for key, f in features.items() if f["dtype"] in images
        }
        depth = {k for k in self._kinds if _is_depth(features[k])}
        self._keys = {_camera_of(k): k for k in self._kinds if k not in depth}
        self.cameras = tuple(self._keys)
        known = {STATE, ACTION, "next.success", *EXTRAS.values(), *COUNTERS}
        self.left_out = [k for k in features if k not in {*known, *self._kinds}]
        self.left_out += sorted(depth)
        for key in (STATE, ACTION):
            if key not in features:
                raise UserError(f"{self.folder / INFO}: the feature {key} is missing")
        ours = self._read_ours()
        if robot == "auto" and "robot" in ours:
            robot = str(ours["robot"])
            units = ours.get("units", "auto") if units == "auto" else units
        elif robot == "auto":
            where = str(self.folder / INFO)
            robot, implied = robot_of_type(self.info.get("robot_type"), where)
            units = implied if units == "auto" else units
        self.edge = make_edge(robot, units)
        self._rows = self._read_rows_v3() if self._is_v3 else self._read_rows_v2()
        self._add_ours(ours)
        self._check_counts()
        self._pool = ThreadPoolExecutor(max(1, len(self.cameras)))
        threads = threads_for(len(self.cameras))
        self._videos = {camera: VideoReader(threads) for camera in self.cameras}
        self._table: tuple[Path | None, Any] = (None, None)  # the newest data file

    @property
    def _is_v3(self) -> bool:
        return self.version.startswith("v3")

    def __len__(self) -> int:
        """Number of episodes."""
        return len(self._rows)

    def __enter__(self) -> "LeRobotReader":
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()
        for video in self._videos.values():
            video.close()

    def name(self, i: int) -> str:
        """What messages call episode `i`."""
        return f"{self.folder} episode {self._rows[i].index}"

    # --- meta ---------------------------------------------------------------------

    def _read_info(self) -> dict[str, Any]:
        path = self.folder / INFO
        if not path.is_file():
            raise UserError(f"{path}: no such file, so this is no LeRobot dataset")
        info = read_json(path, EpisodeError)
        if not isinstance(info, dict):
            raise EpisodeError(f"{path} holds a {type(info).__name__}, expected a dict")
        found = info.get("codebase_version")
        if found not in VERSIONS:
            raise UserError(
                f"{path}: codebase_version is {found!r}, expected one of: "
                f"{', '.join(VERSIONS)}"
            )
        fps = info.get("fps")
        if not isinstance(fps, int | float) or isinstance(fps, bool) or not fps > 0:
            raise EpisodeError(f"{path}: fps is {fps!r}, expected a positive number")
        features = info.get("features")
        if not isinstance(features, dict) or not all(
            isinstance(f, dict) and isinstance(f.get("dtype"), str)
            for f in features.values()
        ):
            raise EpisodeError(f"{path}: features are no dictionary with a dtype each")
        return info

    def _read_ours(self) -> dict[str, Any]:
        path = self.folder / OURS
        if not path.is_file():
            return {}
        content = read_json(path, EpisodeError)
        if not isinstance(content, dict):
            raise EpisodeError(f"{path} holds no dictionary")
        return content

    def _path(self, template: str, default: str, **words: Any) -> Path:
        """A file of the dataset, by the pattern in info.json; never one outside."""
        pattern = self.info.get(template) or default
        try:
            path = self.folder / pattern.format(**words)
        except (AttributeError, KeyError, IndexError, ValueError) as error:
            raise EpisodeError(
                f"{self.folder / INFO}: {template} is {pattern!r}, which cannot be "
                "filled in"
            ) from error
        if not path.resolve().is_relative_to(self.folder.resolve()):
            raise EpisodeError(f"{self.folder / INFO}: {template} leads out of it")
        return path

    def _read_rows_v2(self) -> list[_Row]:
        path = self.folder / "meta" / "episodes.jsonl"
        size = int(self.info.get("chunks_size") or 1000)
        rows = []
        for line in read_lines(path):
            try:
                index, length = int(line["episode_index"]), int(line["length"])
                tasks = [str(task) for task in line.get("tasks") or []]
            except (KeyError, TypeError, ValueError) as error:
                raise EpisodeError(
                    f"{path}: an episode lacks its episode_index or length"
                ) from error
            words = {"episode_index": index, "episode_chunk": index // size}
            data = self._path(
                "data_path",
                "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
                **words,
            )
            videos = {
                camera: (
                    self._path(
                        "video_path",
                        "videos/chunk-{episode_chunk:03d}/{video_key}/"
                        "episode_{episode_index:06d}.mp4",
                        video_key=key,
                        **words,
                    ),
                    0.0,
                )
                for camera, key in self._keys.items()
                if self._kinds[key] == "video"
            }
            rows.append(_Row(index, length, tasks, data, videos))
        return sorted(rows, key=lambda row: row.index)

    def _read_rows_v3(self) -> list[_Row]:
        folder = self.folder / "meta" / "episodes"
        paths = sorted(folder.glob("*/*.parquet"))
        if not paths:
            raise EpisodeError(
                f"{folder} has no parquet file; the recording was not finalized"
            )
        rows = []
        for path in paths:
            table = read_table(path)
            wanted = [n for n in table.column_names if not n.startswith("stats/")]
            for line in table.select(wanted).to_pylist():
                try:
                    rows.append(self._row_v3(line))
                except (KeyError, TypeError, ValueError) as error:
                    raise EpisodeError(
                        f"{path}: an episode lacks a column or its value ({error})"
                    ) from error
        return sorted(rows, key=lambda row: row.index)

    def _row_v3(self, line: dict[str, Any]) -> _Row:
        videos = {}
        for camera, key in self._keys.items():
            if self._kinds[key] != "video":
                continue
            path = self._path(
                "video_path",
                "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
                video_key=key,
                chunk_index=int(line[f"videos/{key}/chunk_index"]),
                file_index=int(line[f"videos/{key}/file_index"]),
            )
            videos[camera] = (path, float(line[f"videos/{key}/from_timestamp"]))
        data = self._path(
            "data_path",
            "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
            chunk_index=int(line["data/chunk_index"]),
            file_index=int(line["data/file_index"]),
        )
        tasks = [str(task) for task in line["tasks"] or []]
        return _Row(
            int(line["episode_index"]), int(line["length"]), tasks, data, videos
        )

    def _add_ours(self, ours: dict[str, Any]) -> None:
        """Extras go to the episodes that they were written for; others get none."""
        rows = {row.index: row for row in self._rows}
        for entry in ours.get("episodes") or []:
            index = entry.get("episode_index") if isinstance(entry, dict) else None
            row = rows.get(index) if isinstance(index, int) else None
            if row is not None and entry.get("length") == row.length:
                row.extras = entry

    def _check_counts(self) -> None:
        indices = [row.index for row in self._rows]
        frames = sum(row.length for row in self._rows)
        listing = "meta/episodes" + ("" if self._is_v3 else ".jsonl")
        counts = {"total_episodes": len(indices), "total_frames": frames}
        for key, found in counts.items():
            said = self.info.get(key)
            if said != found:
                self._complain(
                    f"{self.folder / INFO}: {key} is {said}, {listing} has {found}"
                )
        if indices != list(range(len(indices))):
            self._complain(
                f"{self.folder / listing}: the episodes are numbered {indices[:5]} "
                f"..., expected 0 to {len(indices) - 1}, each once"
            )

    def _complain(self, fault: str) -> None:
        if self._strict:
            raise EpisodeError(
                f"{fault}; `act data convert --skip-broken` keeps what is whole"
            )
        self.faults.append(fault)

    # --- episodes -----------------------------------------------------------------

    def read(self, i: int, *, images: bool = True) -> Episode:
        """Episode `i`: numbers in our units, pictures by their times.

        Velocities that were not recorded are the differences of the positions; efforts
        that were not recorded are zeros.

        Raises:
            EpisodeError: Names the file and the fault.
        """
        row = self._rows[i]
        columns = self._columns(row)
        where = f"{row.data}: episode {row.index}"
        wanted: dict[str, Any] = {}
        if images:
            times = columns["timestamp"].astype(np.float64).ravel()
            wanted = {
                camera: self._pool.submit(self._images, row, camera, columns, times)
                for camera in self.cameras
            }
        try:
            episode = self._numbers(row, columns, where)
        finally:  # nobody reads on behind an error
            pictures = {camera: task.exception() for camera, task in wanted.items()}
        for error in pictures.values():
            if error is not None:
                raise error
        episode.images = {camera: task.result() for camera, task in wanted.items()}
        check_episode(episode, where)
        return episode

    def episodes(self) -> Iterator[Episode]:
        """All of them, in order."""
        return (self.read(i) for i in range(len(self)))

    def _columns(self, row: _Row) -> dict[str, Any]:
        """The episode's rows of its data file: key -> (T, width), or coded images."""
        path, table = self._table
        if path != row.data:
            table = read_table(row.data)
            self._table = (row.data, table)
        for key in (STATE, ACTION, "timestamp", "frame_index", "episode_index"):
            if key not in table.column_names:
                raise EpisodeError(f"{row.data}: the column {key} is missing")
        mine = numbers_of(table, "episode_index", row.data).ravel() == row.index
        found = np.flatnonzero(mine)
        if len(found) != row.length or row.length == 0:
            raise EpisodeError(
                f"{row.data}: episode {row.index} has {len(found)} frames, "
                f"meta/episodes says {row.length}"
            )
        if found[-1] - found[0] + 1 == len(found):  # in one piece, as they should be
            table = table.slice(int(found[0]), len(found))
        else:
            table = table.take(pa.array(found))
        inside = {k for k, kind in self._kinds.items() if kind == "image"}
        columns = {
            key: table.column(key).to_pylist()
            if key in inside
            else numbers_of(table, key, row.data)
            for key in table.column_names
            if key in {STATE, ACTION, "next.success", *EXTRAS.values(), *COUNTERS}
            or key in inside
        }
        order = columns["frame_index"].ravel()
        if not np.array_equal(order, np.arange(row.length)):
            k = int(np.flatnonzero(order != np.arange(row.length))[0])
            raise EpisodeError(
                f"{row.data}: episode {row.index} has frame_index {order[k]:g} where "
                f"{k} is expected"
            )
        if not np.isfinite(columns["timestamp"]).all():
            raise EpisodeError(
                f"{row.data}: episode {row.index} has a timestamp that is no number"
            )
        return columns

    def _numbers(self, row: _Row, columns: dict[str, Any], where: str) -> Episode:
        try:
            qpos = self._here(columns, STATE)
            action = self._here(columns, ACTION)
            beside = {  # strangers may measure them of other joints than they state
                key
                for key in (EXTRAS["qvel"], EXTRAS["effort"])
                if key in columns and columns[key].shape != columns[STATE].shape
            }
            columns = {k: x for k, x in columns.items() if k not in beside}
            if EXTRAS["qvel"] in columns:
                qvel = self._here(columns, EXTRAS["qvel"], speed=True)
            else:
                steps = np.gradient(qpos, axis=0) if len(qpos) > 1 else 0 * qpos
                qvel = (steps * self.fps).astype(np.float32)
        except UserError as error:
            raise EpisodeError(f"{where}: {error}") from error
        extras = {
            name: columns[key].astype(np.float32)
            for name, key in EXTRAS.items()
            if key in columns and name != "qvel"
        }
        attributes: dict[str, Attribute] = {}
        kept = row.extras.get("attributes")
        if isinstance(kept, dict):  # a dataset of ours: as they were
            attributes = kept
        else:
            if row.tasks:
                attributes["task"] = "; ".join(row.tasks)
            if self.edge.robot != "other":
                attributes["robot"] = self.edge.robot
            if "next.success" in columns:
                attributes["success"] = bool(columns["next.success"].any())
        return Episode(
            qpos=qpos,
            qvel=qvel,
            effort=extras.get("effort", np.zeros_like(qpos)),
            action=action,
            env_state=extras.get("env_state"),
            base_action=extras.get("base_action"),
            fps=self.fps,
            sim=bool(row.extras.get("sim", False)),
            attributes=dict(attributes),
        )

    def _here(
        self, columns: dict[str, Any], key: str, *, speed: bool = False
    ) -> np.ndarray:
        array = columns[key]
        feature = self.info["features"].get(key, {})
        order = self.edge.order(feature.get("names"), array.shape[1])
        if order is not None:
            array = array[:, order]
        return self.edge.here(array, speed=speed)

    def _images(
        self, row: _Row, camera: str, columns: dict[str, Any], times: np.ndarray
    ) -> np.ndarray:
        if camera in row.videos:
            path, start = row.videos[camera]
            return self._videos[camera].read(path, start + times, self.fps)
        key = self._keys[camera]
        if key not in columns:
            raise EpisodeError(f"{row.data}: the column {key} is missing")
        return decode_pictures(columns[key], f"{row.data}: {key}", self.folder)


def _camera_of(key: str) -> str:
    for start in (CAMERA, "observation."):
        key = key.removeprefix(start)
    return key


def _is_depth(feature: dict[str, Any]) -> bool:
    info = feature.get("info") or feature.get("video_info") or {}
    return isinstance(info, dict) and bool(info.get("video.is_depth_map"))
