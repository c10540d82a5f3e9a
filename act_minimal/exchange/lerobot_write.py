"""Episodes written as a LeRobot dataset, v2.1 or v3.0.

What LeRobot has no place for (success, scene, seed, ...) goes to meta/act_minimal.json,
which LeRobot does not look at, so that nothing is lost on the way there and back.
"""

import json
import math
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..datasets.embodiment import joint_names, named_joints
from ..datasets.folders import Alike, episode_shape
from ..episodes import Episode, check_episode
from ..support.errors import SettingError, UserError
from ..support.files import write_json
from ..support.hdf5_files import EpisodeError
from ..support.video import Codec, VideoWriter, threads_for
from .lerobot_files import (
    DATA_V2,
    DATA_V3,
    EPISODES_V3,
    INFO,
    VIDEO_V2,
    VIDEO_V3,
    Levels,
    of_numbers,
    table_of,
    write_lines,
    write_tasks,
)
from .lerobot_read import COUNTERS, EXTRAS, OURS
from .lerobot_units import ACTION, CAMERA, STATE, LeRobotJoints, check_names

Version = Literal["v2.1", "v3.0"]
DATA_MB, VIDEO_MB, CHUNK = 100, 200, 1000  # LeRobot's own limits of files and folders
# LeRobot looks frames up by 32-bit times, 0.1 ms exactly; later than this they are
# coarser than that, and it would refuse frames that are there.
VIDEO_SECONDS = 1000.0
NO_TASK = "no task given"


class LeRobotWriter:
    """A dataset that grows episode by episode, and is whole after `close`.

    Args:
        folder: Empty or missing; made whole elsewhere, it should be a temporary place.
        lean: Leave out velocities, efforts and the scene's state, which LeRobot would
            feed to a policy.
        without: Which of "qvel" and "effort" were not recorded, and are left out too.
        task: What the episodes show; by default what each says itself.
        video_mb: Size at which v3.0 begins the next video.
        data_mb: Size at which v3.0 begins the next parquet file.
    """

    def __init__(
        self,
        folder: Path,
        version: Version,
        joints: LeRobotJoints,
        *,
        codec: Codec = "h264",
        lean: bool = False,
        without: Collection[str] = (),
        task: str | None = None,
        video_mb: float = VIDEO_MB,
        data_mb: float = DATA_MB,
    ):
        if version not in ("v2.1", "v3.0"):
            raise SettingError(f"version is {version!r}, expected 'v2.1' or 'v3.0'")
        self.folder, self.version, self.joints = folder, version, joints
        self._v3 = version == "v3.0"
        self.codec: Codec = codec
        self.lean, self.without, self.task = lean, without, task
        self.video_mb, self.data_mb = video_mb, data_mb
        self.rows: list[dict[str, Any]] = []  # one an episode, as in meta/episodes
        self.tasks: list[str] = []
        self.frames = 0
        self._ours: list[dict[str, Any]] = []
        self._numbers: dict[str, list[np.ndarray]] = {}
        self._levels: dict[str, Levels] = {}
        self._videos: dict[str, VideoWriter] = {}
        self._files: dict[str, int] = {}  # how many files of each kind are begun
        self._data: pq.ParquetWriter | None = None
        self._alike = Alike()
        self._fps, self._sizes = 0, dict[str, tuple[int, ...]]()  # of the first one
        self._pool = ThreadPoolExecutor()

    # --- episodes -----------------------------------------------------------------

    def add(self, episode: Episode, where: str) -> None:
        """Append an episode; EpisodeError if it is not valid, or not as the first."""
        check_episode(episode, where)
        if not self.rows:
            check_names(list(episode.images), where)
            if episode.fps != round(episode.fps):
                raise UserError(
                    f"{where} has {episode.fps:g} frames a second, LeRobot keeps whole "
                    "numbers only"
                )
            self._fps = int(episode.fps)
            self._sizes = {c: a.shape[1:3] for c, a in sorted(episode.images.items())}
        self._alike.check(episode_shape(episode), where)
        self._check_joints(episode, where)
        index, length = len(self.rows), len(episode)
        shown = self._tasks_of(episode, where)
        for task in dict.fromkeys(shown):
            if task not in self.tasks:
                self.tasks.append(task)
        numbers = np.array([self.tasks.index(task) for task in shown])
        columns = self._columns(episode, index, numbers)
        row: dict[str, Any] = {"episode_index": index}
        row["tasks"] = list(dict.fromkeys(shown))
        row["length"] = length
        # Cameras side by side: encoders leave Python alone for most of the time.
        jobs = {
            camera: self._pool.submit(self._add_video, camera, images, index)
            for camera, images in episode.images.items()
        }
        row |= self._add_data(columns, index)
        row |= {"dataset_from_index": self.frames}
        row |= {"dataset_to_index": self.frames + length}
        statistics = {}
        for key, rows in columns.items():
            self._numbers.setdefault(key, []).append(rows)
            statistics[key] = of_numbers(rows, quantiles=self._v3)
        wait(jobs.values())
        for camera, job in jobs.items():
            place, levels = job.result()
            row |= place
            self._levels.setdefault(camera, Levels()).merge(levels)
            key = CAMERA + camera
            statistics[key] = levels.statistics(quantiles=self._v3)
        row["stats"] = statistics
        self.rows.append(row)
        self.frames += length
        attributes = {
            key: value.item() if isinstance(value, np.generic) else value
            for key, value in episode.attributes.items()
        }
        whole = {  # JSON holds no infinity and no NaN
            key: value
            for key, value in attributes.items()
            if not isinstance(value, float) or math.isfinite(value)
        }
        self._ours.append(
            {"episode_index": index, "length": length, "sim": bool(episode.sim)}
            | {"attributes": whole}
        )

    def _check_joints(self, episode: Episode, where: str) -> None:
        """Refuse an episode that says that its numbers are others than expected."""
        if not self.joints.our_units:
            return
        width, said = episode.qpos.shape[1], episode.attributes
        found = {
            "units": str(said.get("units") or "rad"),
            "joints": named_joints(said.get("joints"), width),
        }
        expected = {"units": "rad", "joints": joint_names(self.joints.robot, width)}
        found["joints"] = found["joints"] or expected["joints"]
        for key, value in found.items():
            if value != expected[key]:
                raise EpisodeError(
                    f"{where}: {key} are {value}, expected {expected[key]} for robot "
                    f"{self.joints.robot}; --robot other keeps the numbers as they are"
                )

    def _tasks_of(self, episode: Episode, where: str) -> list[str]:
        """What each frame shows: by `tasks`, [[first frame, text], ...], or `task`."""
        task = self.task or str(episode.attributes.get("task") or "")
        shown = [task or NO_TASK] * len(episode)
        changes = "[]" if task else str(episode.attributes.get("tasks", "[]"))
        try:
            for start, text in json.loads(changes):
                shown[int(start) :] = [str(text)] * (len(episode) - int(start))
        except (TypeError, ValueError) as error:
            raise EpisodeError(
                f"{where}: attribute 'tasks' is {changes!r}, expected JSON: [[first "
                "frame, text], ...]"
            ) from error
        return shown

    def _columns(
        self, episode: Episode, index: int, tasks: np.ndarray
    ) -> dict[str, np.ndarray]:
        """Everything that goes to the parquet file: key -> (T, width)."""
        steps = np.arange(len(episode))
        columns = {
            STATE: self.joints.theirs(episode.qpos),
            ACTION: self.joints.theirs(episode.action),
        }
        if not self.lean:
            speed = self.joints.theirs(episode.qvel, speed=True)
            found = {
                "qvel": speed,
                "effort": self.joints.in_their_order(episode.effort),
            }
            found |= {
                "env_state": episode.env_state,
                "base_action": episode.base_action,
            }
            for name, array in found.items():
                if array is not None and name not in self.without:
                    columns[EXTRAS[name]] = np.asarray(array, np.float32)
        counters = (steps / episode.fps, steps, 0 * steps + index, self.frames + steps)
        for key, values in zip(COUNTERS, (*counters, tasks), strict=True):
            kind = np.float32 if key == "timestamp" else np.int64
            columns[key] = values.astype(kind)[:, None]
        return columns

    def _add_data(self, columns: dict[str, np.ndarray], index: int) -> dict[str, int]:
        table = table_of(columns)
        if self._data is not None:
            begun = Path(self._data.where).stat().st_size
            if not self._v3 or begun > self.data_mb * 2**20:
                self._data.close()
                self._data = None
        if self._data is None:
            path = self._next_file("data", index)
            self._data = pq.ParquetWriter(path, table.schema)
        self._data.write_table(table)  # a row group an episode
        return {f"data/{k}": v for k, v in self._place("data").items()}

    def _add_video(
        self, camera: str, images: np.ndarray, index: int
    ) -> tuple[dict[str, Any], Levels]:
        levels, key = Levels(), CAMERA + camera
        levels.add(images)
        video = self._videos.get(camera)
        full = video is not None and (
            not self._v3
            or video.bytes > self.video_mb * 2**20
            or video.frames + len(images) > VIDEO_SECONDS * video.fps
        )
        if video is not None and full:
            video.close()
        if video is None or full:
            size, threads = images.shape[1:3], threads_for(len(self._sizes))
            path = self._next_file(key, index)
            video = VideoWriter(path, self._fps, size, self.codec, threads)
            self._videos[camera] = video
        start = video.seconds
        video.add(images)
        place: dict[str, Any] = {
            f"videos/{key}/{k}": v for k, v in self._place(key).items()
        }
        place[f"videos/{key}/from_timestamp"] = start
        place[f"videos/{key}/to_timestamp"] = video.seconds
        return place, levels

    def _next_file(self, kind: str, index: int) -> Path:
        """Where the next file of numbers ("data") or of a camera goes."""
        self._files[kind] = self._files.get(kind, 0) + 1
        v2, v3 = (DATA_V2, DATA_V3) if kind == "data" else (VIDEO_V2, VIDEO_V3)
        name = (v3 if self._v3 else v2).format(
            video_key=kind,
            episode_chunk=index // CHUNK,
            episode_index=index,
            **self._place(kind),
        )
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def _place(self, kind: str) -> dict[str, int]:
        chunk, file = divmod(self._files[kind] - 1, CHUNK)
        return {"chunk_index": chunk, "file_index": file}

    # --- the end ------------------------------------------------------------------

    def abandon(self) -> None:
        """Let go of the files without making them whole."""
        self._pool.shutdown()
        for video in self._videos.values():
            video.close()
        if self._data is not None:
            self._data.close()

    def close(self) -> None:
        """Make the dataset whole: what the encoders hold, then everything in meta/."""
        if not self.rows:
            raise UserError(f"{self.folder}: a dataset needs at least one episode")
        self.abandon()
        meta = self.folder / "meta"
        meta.mkdir(parents=True, exist_ok=True)
        statistics = {row["episode_index"]: row.pop("stats") for row in self.rows}
        if not self._v3:
            known = ("episode_index", "tasks", "length")
            lists = {
                "episodes": [{key: row[key] for key in known} for row in self.rows],
                "episodes_stats": [
                    {"episode_index": i, "stats": s} for i, s in statistics.items()
                ],
                "tasks": [
                    {"task_index": i, "task": task} for i, task in enumerate(self.tasks)
                ],
            }
            for name, lines in lists.items():
                write_lines(meta / f"{name}.jsonl", lines)
        else:
            self._write_episodes(statistics)
            write_tasks(meta / "tasks.parquet", self.tasks)
            whole = {k: of_numbers(np.concatenate(v)) for k, v in self._numbers.items()}
            for camera, levels in self._levels.items():
                whole[CAMERA + camera] = levels.statistics()
            write_json(meta / "stats.json", whole)
        about = {"robot": self.joints.robot, "units": self.joints.units}
        write_json(self.folder / OURS, about | {"episodes": self._ours})
        write_json(self.folder / INFO, self._info())  # last: it makes the dataset one

    def _write_episodes(self, statistics: dict[int, dict[str, Any]]) -> None:
        path = self.folder / EPISODES_V3.format(chunk_index=0, file_index=0)
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = []
        for row in self.rows:
            flat = {
                f"stats/{key}/{name}": value
                for key, values in statistics[row["episode_index"]].items()
                for name, value in values.items()
            }
            place = {"meta/episodes/chunk_index": 0, "meta/episodes/file_index": 0}
            rows.append(row | flat | place)
        pq.write_table(pa.Table.from_pylist(rows), path)

    def _info(self) -> dict[str, Any]:
        features: dict[str, Any] = {}
        for key, rows in self._numbers.items():
            width = rows[0].shape[1]
            names = None
            if key in (STATE, ACTION, EXTRAS["qvel"], EXTRAS["effort"]):
                names = self.joints.their_names(width)
            dtype = str(rows[0].dtype)
            features[key] = {"dtype": dtype, "shape": [width], "names": names}
        cameras = {}
        for camera, size in self._sizes.items():
            cameras[CAMERA + camera] = {
                "dtype": "video",
                "shape": [*size, 3],
                "names": ["height", "width", "channels"],
                "info": self._videos[camera].info(),
            }
        n, v3 = len(self.rows), self._v3
        info: dict[str, Any] = {
            "codebase_version": self.version,
            "robot_type": self.joints.robot_type(self._numbers[STATE][0].shape[1]),
            "total_episodes": n,
            "total_frames": self.frames,
            "total_tasks": len(self.tasks),
        }
        if v3:
            info |= {
                "data_files_size_in_mb": DATA_MB,
                "video_files_size_in_mb": VIDEO_MB,
            }
        else:
            info["total_videos"] = n * len(cameras)
            info["total_chunks"] = math.ceil(n / CHUNK)
        info["chunks_size"] = CHUNK
        info["fps"] = self._fps
        info["splits"] = {"train": f"0:{n}"}
        info["data_path"] = DATA_V3 if v3 else DATA_V2
        video_path = VIDEO_V3 if v3 else VIDEO_V2
        info["video_path"] = video_path if cameras else None
        return info | {"features": cameras | features}
