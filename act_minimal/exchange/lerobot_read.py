"""LeRobot's datasets, v2.0 to v3.0, read as episodes.

In all versions meta/info.json says the version, the rate, the features, and how the
other files are called. v2.1 has meta/episodes.jsonl, and one parquet file and one video
a camera for each episode. v3.0 has meta/episodes/*/*.parquet, and parquet files and
videos of many episodes each; where an episode begins in them stands in meta/episodes.
"""

import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ..datasets.embodiment import arm_attributes
from ..episodes import Episode, check_episode, speeds_of
from ..support.errors import UserError
from ..support.files import read_object
from ..support.hdf5_files import Attribute, EpisodeError, is_true, rate_of
from ..support.video import VideoReader, threads_for
from .lerobot_files import INFO, decode_pictures, numbers_of, read_table
from .lerobot_rows import Row, check_times, read_rows, read_tasks, tasks_of
from .lerobot_units import (
    ACTION,
    CAMERA,
    ENV,
    STATE,
    FeatureNames,
    LeRobotJoints,
    lerobot_joints,
    names_of,
    parse_names,
    recognise_joints,
)

VERSIONS = ("v2.0", "v2.1", "v3.0")
OURS = "meta/act_minimal.json"  # what LeRobot has no place for; it does not look there
# Ours -> theirs, for what an episode may have beside state, action and images.
EXTRAS = {
    "qvel": "observation.velocity",
    "effort": "observation.effort",
    "env_state": ENV,
    "base_action": "base_action",
}
COUNTERS = ("timestamp", "frame_index", "episode_index", "index", "task_index")
KNOWN = {STATE, ACTION, "next.success", *EXTRAS.values(), *COUNTERS}
PARTS = {"qvel": "vel", "effort": "torque"}  # as names of numbers of a state end


class LeRobotReader:
    """A LeRobot dataset, opened; a context manager.

    Args:
        robot: One of lerobot_units.ROBOTS, or "auto": by the names of the numbers.
        units: What the numbers there are, see `lerobot_joints`; "auto" goes by their
            names and values.
        strict: Whether counts that contradict each other are an error; otherwise what
            is there is read, and the fault is kept in `faults`.

    Attributes:
        version: "v2.0", "v2.1" or "v3.0".
        cameras: Our names of the cameras, in order of the features.
        left_out: Features that an Episode has no place for.
        unrecorded: Which of "qvel" and "effort" the dataset does not have.

    Raises:
        UserError: Not such a dataset, a version that is not known, or one of which
            nothing says whose joints its numbers are, and in which units.
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
        self._kinds = {
            key: f["dtype"]
            for key, f in features.items()
            if f["dtype"] in ("video", "image")
        }
        depth = {key for key in self._kinds if _is_depth(key, features[key])}
        self._keys = self._find_cameras([k for k in self._kinds if k not in depth])
        self.cameras = tuple(self._keys)
        self.left_out = [k for k in features if k not in {*KNOWN, *self._kinds}]
        self.left_out += sorted(depth)
        for key in (STATE, ACTION):
            if key not in features:
                raise UserError(f"{self.folder / INFO}: the feature {key} is missing")
        self._rows = read_rows(
            self.folder,
            self.info,
            {c: k for c, k in self._keys.items() if self._kinds[k] == "video"},
        )
        for row in self._rows:
            if row.fault and strict:
                self._complain(row.fault)
        self._tasks = read_tasks(self.folder)
        path = self.folder / OURS
        ours = read_object(path, EpisodeError) if path.is_file() else {}
        self.joints = self._find_joints(ours, robot, units)
        if unused := self._names(ACTION).unused if self._is_arm else []:
            listed = f"{unused[0]} to {unused[-1]}, {len(unused)} numbers"
            self.left_out.append(f"velocities and torques of {ACTION} ({listed})")
        recorded = self._columns_of(STATE)
        self.unrecorded = [
            name
            for name, kind in PARTS.items()
            if EXTRAS[name] not in features and kind not in recorded
        ]
        self._add_ours(ours)
        self._check_counts()
        self._pool = ThreadPoolExecutor(max(1, len(self.cameras)))
        threads = threads_for(len(self.cameras))
        self._videos = {camera: VideoReader(threads) for camera in self.cameras}
        self._table: tuple[Path | None, Any] = (None, None)  # the newest data file

    def __len__(self) -> int:
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
        info = read_object(path, EpisodeError)
        found = info.get("codebase_version")
        if found not in VERSIONS:
            raise UserError(
                f"{path}: codebase_version is {found!r}, expected one of: "
                f"{', '.join(VERSIONS)}"
            )
        fps = rate_of(info.get("fps"))
        if not (np.isfinite(fps) and fps > 0):
            raise EpisodeError(
                f"{path}: fps is {info.get('fps')!r}, expected a positive number"
            )
        info["fps"] = fps
        features = info.get("features")
        if not isinstance(features, dict) or not all(
            isinstance(f, dict) and isinstance(f.get("dtype"), str)
            for f in features.values()
        ):
            raise EpisodeError(f"{path}: features are no dictionary with a dtype each")
        return info

    def _find_cameras(self, keys: list[str]) -> dict[str, str]:
        found: dict[str, str] = {}
        for key in keys:
            camera = key
            for start in (CAMERA, "observation."):
                camera = camera.removeprefix(start)
            if camera in found:
                raise UserError(
                    f"{self.folder / INFO}: the features {found[camera]} and {key} "
                    f"would both be the camera {camera!r} here, expected one"
                )
            found[camera] = key
        return found

    def _find_joints(
        self, ours: dict[str, Any], robot: str, units: str
    ) -> LeRobotJoints:
        where = str(self.folder / INFO)
        if "robot" in ours and robot in ("auto", ours["robot"]):  # an export of ours
            units = str(ours.get("units", "auto")) if units == "auto" else units
            names = names_of(self.info["features"][STATE])
            return lerobot_joints(str(ours["robot"]), units, names)
        keys = (STATE, ACTION)
        return recognise_joints(self.info, keys, where, robot, units, self._extremes)

    def _extremes(self) -> np.ndarray | None:
        """(2, S) least and greatest of each number of the state, over all episodes."""
        low, high = [], []
        for path in dict.fromkeys(row.data for row in self._rows):
            try:
                numbers = numbers_of(read_table(path, [STATE]), STATE, path)
            except EpisodeError:  # is named when that episode is read
                continue
            if len(numbers) and numbers.shape[1] == (low or [numbers[0]])[0].shape[0]:
                low.append(numbers.min(axis=0))
                high.append(numbers.max(axis=0))
        return np.array([np.min(low, axis=0), np.max(high, axis=0)]) if low else None

    @property
    def _is_arm(self) -> bool:
        """Whether the names of the numbers are those of an arm known here."""
        return self.joints.robot != "other"

    def _names(self, key: str) -> FeatureNames:
        return parse_names(names_of(self.info["features"].get(key, {})))

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
        listing = "meta/episodes" + ("" if self.version == "v3.0" else ".jsonl")
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
        if row.fault:
            raise EpisodeError(row.fault)
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
            wait(wanted.values())
        episode.images = {camera: task.result() for camera, task in wanted.items()}
        check_episode(episode, where)
        return episode

    def episodes(self) -> Iterator[Episode]:
        return (self.read(i) for i in range(len(self)))

    def _columns(self, row: Row) -> dict[str, Any]:
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
            if key in KNOWN or key in inside
        }
        order = columns["frame_index"].ravel()
        if not np.array_equal(order, np.arange(row.length)):
            k = int(np.flatnonzero(order != np.arange(row.length))[0])
            raise EpisodeError(
                f"{row.data}: episode {row.index} has frame_index {order[k]:g} where "
                f"{k} is expected"
            )
        times = columns["timestamp"].astype(np.float64).ravel()
        check_times(times, self.fps, f"{row.data}: episode {row.index}")
        return columns

    def _numbers(self, row: Row, columns: dict[str, Any], where: str) -> Episode:
        try:
            qpos = self._ours(columns, STATE)
            action = self._ours(columns, ACTION)
            found = {}
            for name, kind in PARTS.items():
                key = EXTRAS[name]  # other writers may have it of other joints
                if key in columns and columns[key].shape == qpos.shape:
                    found[name] = self._ours(columns, key, kind)
                elif kind in self._columns_of(STATE):
                    found[name] = self._ours(columns, STATE, kind)
        except UserError as error:
            raise EpisodeError(f"{where}: {error}") from error
        extras = {
            name: columns[EXTRAS[name]].astype(np.float32)
            for name in ("env_state", "base_action")
            if EXTRAS[name] in columns
        }
        kept = row.extras.get("attributes")
        if not isinstance(kept, dict):  # not a dataset of ours, which has them all
            same = qpos.shape[1] == action.shape[1]
            kept = self._attributes(row, columns, qpos.shape[1] if same else 0, where)
        return Episode(
            qpos=qpos,
            qvel=found.get("qvel", speeds_of(qpos, self.fps)),
            effort=found.get("effort", np.zeros_like(qpos)),
            action=action,
            env_state=extras.get("env_state"),
            base_action=extras.get("base_action"),
            fps=self.fps,
            sim=bool(row.extras.get("sim", False)),
            attributes=dict(kept),
        )

    def _attributes(
        self, row: Row, columns: dict[str, Any], width: int, where: str
    ) -> dict[str, Attribute]:
        """What is known of an episode that somebody else recorded.

        `width` is of states and actions; 0 where they differ, and are not the same
        joints.
        """
        joints = self.joints.our_names(width)
        commands = names_of(self.info["features"][ACTION])
        if not self._is_arm and commands not in ([], joints):
            joints = []
        attributes: dict[str, Attribute] = {
            **arm_attributes(self.joints.robot, joints, self.joints.our_units)
        }
        tasks = tasks_of(row, columns.get("task_index"), self._tasks, where)
        if len(tasks) == 1:
            attributes["task"] = tasks[0][1]
        elif tasks:
            attributes["tasks"] = json.dumps(tasks, ensure_ascii=False)
        if "next.success" in columns:
            attributes["success"] = bool(columns["next.success"].any())
        return attributes

    def _columns_of(self, key: str) -> dict[str, np.ndarray]:
        """Which columns of a feature are positions, speeds and torques, if several."""
        columns = self._names(key).columns
        return columns if self._is_arm and {"vel", "torque"} & set(columns) else {}

    def _ours(self, columns: dict[str, Any], key: str, kind: str = "pos") -> np.ndarray:
        """A feature's positions ("pos"), speeds ("vel") or efforts ("torque"), ours."""
        array, names = columns[key], self._names(key)
        width = array.shape[1]
        if self._is_arm and names.joints and names.width != width:
            raise EpisodeError(
                f"{key} has {width} numbers a frame, info.json names {names.width}"
            )
        if (chosen := self._columns_of(key).get(kind)) is not None:
            array = array[:, chosen]
        if kind == "torque":
            return self.joints.in_our_order(array, names.joints).astype(np.float32)
        return self.joints.ours(array, names.joints, speed=kind == "vel")

    def _images(
        self, row: Row, camera: str, columns: dict[str, Any], times: np.ndarray
    ) -> np.ndarray:
        if camera in row.videos:
            path, start, _ = row.videos[camera]
            return self._videos[camera].read(path, start + times, self.fps)
        key = self._keys[camera]
        if key not in columns:
            raise EpisodeError(f"{row.data}: the column {key} is missing")
        return decode_pictures(columns[key], f"{row.data}: {key}", self.folder)


def _is_depth(key: str, feature: dict[str, Any]) -> bool:
    """Whether a camera measures distances, by LeRobot's marks, or ALOHA's ending."""
    infos = [feature, feature.get("info"), feature.get("video_info")]
    for info in infos:
        if not isinstance(info, dict):
            continue
        if any(is_true(info.get(f"{x}is_depth_map", False)) for x in ("", "video.")):
            return True
        pixels = str(info.get("video.pix_fmt") or info.get("pix_fmt") or "")
        if re.fullmatch(r"gray(9|1\d|f).*", pixels):  # more than 8 bits of grey
            return True
    return key.endswith("_depth")
