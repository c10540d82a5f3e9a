"""LeRobot's datasets, there and back; and LeRobot itself, where uv is at hand.

Every image says which one it is, in dark and bright squares: the number of its frame,
of its episode, and the camera. So a frame out of place is seen, whatever the video did.
"""

import itertools
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import av
import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from act_minimal.datasets.embodiment import ARM_JOINTS, joint_names, reach_of
from act_minimal.episodes import (
    Episode,
    episode_path,
    list_episodes,
    load_episode,
    save_episode,
)
from act_minimal.exchange.convert import convert
from act_minimal.exchange.lerobot_files import Levels, numbers_of, of_numbers
from act_minimal.exchange.lerobot_read import LeRobotReader
from act_minimal.exchange.lerobot_rows import check_times
from act_minimal.exchange.lerobot_units import (
    lerobot_joints,
    robot_of_episode,
    robot_of_type,
)
from act_minimal.exchange.lerobot_write import LeRobotWriter
from act_minimal.support.errors import SettingError, UserError
from act_minimal.support.hdf5_files import EpisodeError
from act_minimal.support.video import VideoReader, VideoWriter
from hardware.so100.calibration import Calibration
from hardware.so100.kinematics import ARMS, JOINTS

from ..lerobot_environment import needs_environment, run
from ..made_up import random_episode
from ..programs import kill

pytestmark = pytest.mark.mostly_quick

VERSIONS = ("lerobot-v2.1", "lerobot-v3.0")
BITS = 2 ** np.arange(6)


def draw(frames: int, episode: int, camera: int, size=(32, 48)) -> np.ndarray:
    """(T, H, W, 3): a grid of 4 x 6 cells that are dark (0) or bright (1).

    The first row is the number of the frame in binary digits, the second one that of
    the episode, the last one is red or blue: which camera.
    """
    row, column = size[0] // 4, size[1] // 6
    digits = np.zeros((frames, 4, 6, 3), np.uint8)
    for t in range(frames):
        digits[t, 0] = 40 + 170 * ((t & BITS) > 0)[:, None]
        digits[t, 1] = 40 + 170 * ((episode & BITS) > 0)[:, None]
    digits[:, 3] = (60, 120, 180) if camera else (180, 120, 60)
    cells = digits.repeat(row, axis=1).repeat(column, axis=2)
    more = (0, size[0] - 4 * row), (0, size[1] - 6 * column)
    return np.pad(cells, ((0, 0), *more, (0, 0)), mode="edge")


def read_numbers(images: np.ndarray) -> tuple[np.ndarray, np.ndarray, bool]:
    """Frame and episode that each image says it is, and whether it is camera 0."""
    row, column = images.shape[1] // 4, images.shape[2] // 6
    cells = images[:, : 4 * row, : 6 * column].reshape(-1, 4, row, 6, column, 3)
    cells = cells.mean(axis=(2, 4))  # (T, 4, 6, 3)
    digits = cells[:, :2].mean(axis=-1) > 125
    bottom = cells[:, 3].mean(axis=(0, 1))
    frame, episode = np.moveaxis(digits @ BITS, 1, 0)
    return frame, episode, bool(bottom[0] > bottom[2])


def make_episode(
    frames: int,
    number: int,
    cameras=("top", "wrist"),
    width=6,
    size=(32, 48),
    **changes,
) -> Episode:
    """One whose pictures say which they are."""
    images = {c: draw(frames, number, i, size) for i, c in enumerate(cameras)}
    attributes = {"task": "so100_pick_place", "success": number % 2 == 0}
    attributes |= {"scene": 1_000_000_000 + number, "speed": 0.1 * number}
    given = {"images": images, "attributes": attributes} | changes
    return random_episode(frames, number, width, **given)


def make_folder(folder: Path, lengths: list[int], **changes) -> Path:
    for i, frames in enumerate(lengths):
        save_episode(episode_path(folder, i), make_episode(frames, i, **changes))
    return folder


def read_one(folder: Path, **words) -> Episode:
    with LeRobotReader(folder, **words) as reader:
        return reader.read(0)


def info_of(folder: Path) -> dict:
    return json.loads((folder / "meta/info.json").read_text())


def assert_same_numbers(a: Episode, b: Episode, tolerance: float) -> None:
    for name in ("qpos", "qvel", "effort", "action", "env_state", "base_action"):
        x, y = getattr(a, name), getattr(b, name)
        assert (x is None) == (y is None), name
        if x is not None:
            assert y.dtype == np.float32
            np.testing.assert_allclose(y, x, rtol=tolerance, atol=tolerance)


def assert_right_frames(episode: Episode, number: int, cameras=("top", "wrist")):
    assert set(episode.images) == set(cameras)
    for i, camera in enumerate(cameras):
        frame, shown, first = read_numbers(episode.images[camera])
        np.testing.assert_array_equal(frame, np.arange(len(episode)))
        assert (shown == number).all()
        assert first == (i == 0)


@pytest.mark.slow
@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=5),
    version=st.sampled_from(VERSIONS),
    robot=st.sampled_from(["so100", "so101", "other"]),
    cameras=st.integers(0, 2),
    codec=st.sampled_from(["h264", "lossless"]),
)
@example([1], "lerobot-v2.1", "so100", 2, "h264")
@example([1, 1, 7], "lerobot-v3.0", "so100", 2, "h264")
@example([3, 9, 2], "lerobot-v3.0", "so101", 1, "av1")
@settings(max_examples=12, deadline=None)
def test_there_and_back(tmp_path_factory, lengths, version, robot, cameras, codec):
    folder = tmp_path_factory.mktemp("back")
    names = ("top", "wrist")[:cameras]
    size = (64, 96) if codec == "av1" else (32, 48)  # AV1 wants larger pictures
    source = make_folder(folder / "ours", lengths, cameras=names, size=size)
    done = convert(source, folder / "theirs", version, robot=robot, video=codec)
    counts = (len(lengths), sum(lengths))
    assert (done.source, done.episodes, done.frames) == ("hdf5", *counts)
    back = convert(folder / "theirs", folder / "back", "hdf5", compression="raw")
    assert (back.source, back.robot) == (version[-4:], robot)
    assert (back.episodes, back.frames) == counts
    assert not back.left_out + back.faults + list(back.skipped)
    exact = 0.0 if robot == "other" else 1e-6  # degrees round to the last digit
    for i, path in enumerate(list_episodes(folder / "back")):
        first, second = load_episode(episode_path(source, i)), load_episode(path)
        assert_same_numbers(first, second, exact)
        assert_right_frames(second, i, names)
        assert second.attributes == first.attributes
        assert (second.fps, second.sim) == (first.fps, first.sim)
        for camera in names if codec == "lossless" else ():
            np.testing.assert_array_equal(first.images[camera], second.images[camera])


def test_files_of_several_episodes_read_in_any_order(tmp_path):
    lengths = [5, 1, 9, 3, 4, 7]
    several = {"video_mb": 1e-3, "data_mb": 4e-3}  # files
    joints = lerobot_joints("so100")
    writer = LeRobotWriter(tmp_path / "set", "v3.0", joints, **several)
    for i, frames in enumerate(lengths):
        writer.add(make_episode(frames, i), f"episode {i}")
    writer.close()
    videos = sorted((tmp_path / "set/videos/observation.images.top").rglob("*.mp4"))
    tables = sorted((tmp_path / "set/data").rglob("*.parquet"))
    assert 1 < len(videos) < len(lengths)
    assert 1 < len(tables) < len(lengths)
    with LeRobotReader(tmp_path / "set") as reader:
        for i in (0, 1, 2, 3, 4, 5, 5, 4, 2, 0, 3, 1):
            episode = reader.read(i)
            assert len(episode) == lengths[i]
            assert_right_frames(episode, i)
            assert_same_numbers(make_episode(lengths[i], i), episode, 1e-6)
        assert reader.read(3, images=False).images == {}


def test_a_new_video_begins_before_32_bit_times_are_too_coarse(tmp_path, monkeypatch):
    monkeypatch.setattr("act_minimal.exchange.lerobot_write.VIDEO_SECONDS", 10 / 30)
    source = make_folder(tmp_path / "ours", [6, 4, 1, 9])
    convert(source, tmp_path / "set", "lerobot-v3.0")
    [table] = (tmp_path / "set/meta/episodes").rglob("*.parquet")
    rows = pq.read_table(table).to_pylist()
    key = "videos/observation.images.top"
    assert [row[f"{key}/file_index"] for row in rows] == [0, 0, 1, 1]
    begins = [row[f"{key}/from_timestamp"] for row in rows]
    np.testing.assert_allclose(begins, [0, 6 / 30, 0, 1 / 30])
    ends = [row[f"{key}/to_timestamp"] for row in rows]
    np.testing.assert_allclose(ends, [6 / 30, 10 / 30, 1 / 30, 10 / 30])
    with LeRobotReader(tmp_path / "set") as reader:
        for i, episode in enumerate(reader.episodes()):
            assert_right_frames(episode, i)


@pytest.mark.parametrize("version", VERSIONS)
def test_the_documented_layout(tmp_path, version):
    source = make_folder(tmp_path / "ours", [4, 6])
    convert(source, tmp_path / "set", version)
    info = info_of(tmp_path / "set")
    assert info["codebase_version"] == version[-4:]
    assert info["robot_type"] == "so100_follower"
    counts = {"total_episodes": 2, "total_frames": 10, "total_tasks": 1, "fps": 30}
    assert info.items() >= counts.items()
    assert (info["chunks_size"], info["splits"]) == (1000, {"train": "0:2"})
    assert info["features"]["observation.state"] == {
        "dtype": "float32",
        "shape": [6],
        "names": [f"{joint}.pos" for joint in JOINTS],
    }
    assert info["features"]["observation.images.top"]["shape"] == [32, 48, 3]
    assert info["features"]["timestamp"]["dtype"] == "float32"
    everything = (p for p in (tmp_path / "set").rglob("*") if p.is_file())
    files = {p.relative_to(tmp_path / "set").as_posix() for p in everything}
    if version == "lerobot-v2.1":
        assert (info["total_videos"], info["total_chunks"]) == (4, 1)
        videos = [f"videos/chunk-000/observation.images.{c}" for c in ("top", "wrist")]
        assert files == {
            *(f"data/chunk-000/episode_00000{i}.parquet" for i in (0, 1)),
            *(f"{folder}/episode_00000{i}.mp4" for folder in videos for i in (0, 1)),
            *("meta/info.json", "meta/episodes.jsonl", "meta/episodes_stats.jsonl"),
            *("meta/tasks.jsonl", "meta/act_minimal.json"),
        }
        lines = (tmp_path / "set/meta/episodes.jsonl").read_text().splitlines()
        assert [json.loads(line) for line in lines] == [
            {"episode_index": i, "tasks": ["so100_pick_place"], "length": n}
            for i, n in ((0, 4), (1, 6))
        ]
        table = pq.read_table(tmp_path / "set/data/chunk-000/episode_000001.parquet")
    else:
        assert "total_videos" not in info
        assert files == {
            *("data/chunk-000/file-000.parquet", V3_META, V3_VIDEO),
            *(V3_VIDEO.replace("top", "wrist"), "meta/info.json", "meta/stats.json"),
            *("meta/tasks.parquet", "meta/act_minimal.json"),
        }
        table = pq.read_table(tmp_path / "set/data/chunk-000/file-000.parquet").slice(4)
        tasks = pq.read_table(tmp_path / "set/meta/tasks.parquet")
        assert tasks.to_pylist() == [{"task_index": 0, "task": "so100_pick_place"}]
    assert table.column("index").to_pylist() == list(range(4, 10))
    assert table.column("frame_index").to_pylist() == list(range(6))
    assert table.column("episode_index").to_pylist() == [1] * 6
    assert table.schema.field("timestamp").type == pa.float32()
    np.testing.assert_allclose(table.column("timestamp"), np.arange(6) / 30, rtol=1e-6)


def test_lean_leaves_out_what_a_policy_must_not_see(tmp_path):
    source = make_folder(tmp_path / "ours", [4])
    convert(source, tmp_path / "set", "lerobot-v3.0", lean=True, task="Put it there.")
    info = info_of(tmp_path / "set")
    seen = {key for key in info["features"] if key.startswith("observation")}
    images = {f"observation.images.{camera}" for camera in ("top", "wrist")}
    assert seen == {"observation.state"} | images
    episode = read_one(tmp_path / "set")
    first = load_episode(episode_path(source, 0))
    assert episode.env_state is None
    assert not episode.effort.any()
    speed = np.gradient(first.qpos, axis=0) * 30  # what positions say of velocities
    np.testing.assert_allclose(episode.qvel, speed, rtol=1e-3, atol=1e-3)
    shutil.move(tmp_path / "set/meta/act_minimal.json", tmp_path / "aside.json")
    episode = read_one(tmp_path / "set", units="degrees")  # as by other writers
    assert episode.attributes == {
        "task": "Put it there.",
        "robot": "so100",
        "units": "rad",
        "joints": json.dumps(list(JOINTS)),
    }
    assert episode.sim is False
    np.testing.assert_allclose(episode.qpos, first.qpos, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("size", [(33, 47), (16, 16), (31, 64)])
def test_sizes_that_codecs_dislike(tmp_path, size):
    images = {"top": draw(5, 0, 0, size)}
    save_episode(tmp_path / "ours/episode_0.hdf5", make_episode(5, 0, images=images))
    for codec in ("h264", "lossless"):
        out = tmp_path / codec
        convert(tmp_path / "ours", out, "lerobot-v3.0", video=codec)
        difference = read_one(out).images["top"].astype(int) - images["top"]
        assert np.abs(difference).mean() < (1e-9 if codec == "lossless" else 3)
    if size[0] % 2:
        with pytest.raises(SettingError, match="'av1' needs an even width and height"):
            convert(tmp_path / "ours", tmp_path / "no", "lerobot-v3.0", video="av1")
        assert not (tmp_path / "no").exists()


def test_settings_that_cannot_be_meant(tmp_path):
    source, out = make_folder(tmp_path / "ours", [3]), tmp_path / "out"
    v3 = "lerobot-v3.0"
    for message, words in {
        "to is 'zip'": {"to": "zip"},
        "video is 'gif'": {"to": v3, "video": "gif"},
        "robot is 'panda'": {"robot": "panda"},
        "units are 'miles'": {"units": "miles"},
        "units are 'percent', which only": {"units": "percent", "robot": "openarm"},
        "'degrees', which only a SO-100": {"units": "degrees", "robot": "aloha"},
        "'old-degrees', which nothing writes": dict(
            units="old-degrees", robot="so100", to=v3
        ),
    }.items():
        with pytest.raises(SettingError, match=message):
            convert(source, out, **words)
    for i, (message, changes) in enumerate(
        {
            "7 numbers a frame, expected 6 an arm": {"width": 7},
            "episode_0.hdf5 has 29.97 frames a second": {"fps": 29.97},
            r"'a\{b\}' is no name for a camera": {"images": {"a{b}": draw(3, 0, 0)}},
        }.items()
    ):
        make_folder(tmp_path / f"{i}", [3], **changes)
        with pytest.raises(UserError, match=message):
            convert(tmp_path / f"{i}", out, v3)
    (tmp_path / "bare").mkdir()
    for empty in ("missing", "bare"):
        with pytest.raises(UserError, match=f"{empty} (is not a folder|has no)"):
            convert(tmp_path / empty, out)
    assert not out.exists()
    assert not list(tmp_path.glob(".*"))
    make_folder(out, [2])
    with pytest.raises(UserError, match="is there already and not empty"):
        convert(source, out, v3)
    assert len(list_episodes(out)) == 1


@pytest.mark.parametrize("robot", ["so100", "so101"])
@given(st.lists(st.integers(0, 4095), min_size=6, max_size=6))
@settings(max_examples=30, deadline=None)
def test_degrees_are_those_that_lerobot_reads_from_the_same_servos(robot, steps):
    rows = [(0, 1000 - 50 * i, 3000 + 30 * i) for i in range(6)]
    calibration = Calibration.of_ranges(rows)
    state = calibration.state_of(np.array([steps], float), ARMS[robot])  # ours
    motors = list(calibration.motors.values())
    low, high = np.array([(m.range_min, m.range_max) for m in motors]).T
    degrees = (np.array(steps) - (low + high) / 2) * 360 / 4095
    degrees[5] = (steps[5] - low[5]) / (high[5] - low[5]) * 100
    joints = lerobot_joints(robot)
    np.testing.assert_allclose(joints.theirs(state), [degrees], rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(joints.ours(np.array([degrees])), state, atol=1e-5)
    # Speeds have no zero: two moments' difference, whatever the moments.
    apart = joints.theirs(state).astype(float) - joints.theirs(np.zeros((1, 6)))
    np.testing.assert_allclose(joints.theirs(state, speed=True), apart, atol=1e-4)


@pytest.mark.parametrize("robot", ["so100", "so101"])
def test_percent_is_100_at_the_ends_of_a_joint(robot):
    arm, joints = ARMS[robot], lerobot_joints(robot, "percent")
    ends = np.where(arm.sense > 0, arm.ranges.T, arm.ranges.T[::-1])  # (2, 6)
    ends[:, 5] = 0, 1
    turn = np.pi * 4095 / 4096
    ends[:, 4] = arm.middle[4] - turn, arm.middle[4] + turn
    wanted = np.array([[-100.0] * 5 + [0], [100.0] * 5 + [100]])
    np.testing.assert_allclose(joints.theirs(ends), wanted, atol=0.05)
    np.testing.assert_allclose(joints.ours(wanted), ends, atol=1e-3)


def test_which_robot_it_is():
    where = "info.json"
    for said, found in {
        "so101_follower": ("so101", "auto"),
        "bi_openarm_follower": ("openarm", "auto"),
        "aloha": ("aloha", "auto"),
        "panda": ("other", "same"),
        None: ("other", "same"),
    }.items():
        assert robot_of_type(said, where) == found
    with pytest.raises(UserError, match="--robot so100 or --robot so101"):
        robot_of_type("so_follower", where)
    for robot, units, arms in itertools.product(
        ("so100", "so101", "openarm", "aloha", "other"), ("auto", "same"), (1, 2)
    ):
        joints = lerobot_joints(robot, units)
        width = arms * len(ARM_JOINTS.get(robot, JOINTS))
        again = lerobot_joints(*robot_of_type(joints.robot_type(width), where))
        assert (again.robot, again.units) == (joints.robot, joints.units)
    assert lerobot_joints("openarm").robot_type(16) == "bi_openarm_follower"
    assert lerobot_joints("openarm").robot_type(8) == "openarm_follower"
    assert lerobot_joints("openarm", "same").robot_type(16) == "bi_openarm_radians"
    assert lerobot_joints("so101").robot_type(12) == "bi_so101_follower"
    for attributes, width, robot in (
        ({"robot": "so101", "task": "so100_x"}, 6, "so101"),
        ({"task": "openarm_handover"}, 16, "openarm"),
        ({}, 14, "aloha"),
        ({"robot": "two pipers"}, 14, "other"),
        ({"joints": '["a", "b"]'}, 14, "other"),
        ({"task": "knit"}, 6, "other"),
    ):
        assert robot_of_episode(attributes, width) == robot


def test_numbers_go_by_their_names_where_there_are_any(tmp_path):
    source = make_folder(tmp_path / "ours", [3])
    convert(source, tmp_path / "set", "lerobot-v2.1")
    path = tmp_path / "set/data/chunk-000/episode_000000.parquet"
    order = [5, 0, 1, 2, 3, 4]  # the gripper first
    rows = np.array(pq.read_table(path)["action"].to_pylist(), np.float32)[:, order]
    edit_table(path, "action", pa.array(rows.tolist()))
    features = info_of(tmp_path / "set")["features"]
    features["action"]["names"] = {"motors": [f"main_{JOINTS[i]}" for i in order]}
    edit_json(tmp_path / "set/meta/info.json", features=features)
    read = read_one(tmp_path / "set")
    assert_same_numbers(load_episode(episode_path(source, 0)), read, 1e-6)


def test_statistics_are_those_of_the_data():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(80, 3)).astype(np.float32)
    found = of_numbers(rows)
    np.testing.assert_allclose(found["mean"], rows.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(found["std"], rows.std(axis=0), atol=1e-6)
    np.testing.assert_allclose(found["q90"], np.quantile(rows, 0.9, axis=0), atol=1e-6)
    assert found["count"] == [80]
    halves, whole = [Levels(), Levels()], Levels()
    images = rng.integers(3, 250, (60, 20, 30, 3), dtype=np.uint8)
    for levels, part in zip(halves, (images[:20], images[20:]), strict=True):
        levels.add(part)
        whole.merge(levels)
    found = whole.statistics()
    flat = images.reshape(-1, 3) / 255
    for name, value in {
        "mean": flat.mean(axis=0),
        "std": flat.std(axis=0),
        "min": flat.min(axis=0),
        "max": flat.max(axis=0),
        "q10": np.quantile(flat, 0.1, axis=0, method="inverted_cdf"),
    }.items():
        np.testing.assert_allclose(np.ravel(found[name]), value, atol=1e-9)
        assert np.shape(found[name]) == (3, 1, 1)
    assert found["count"] == [60]


def edit_json(path: Path, **changes) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def edit_table(path: Path, key: str, values: list | pa.Array | None) -> None:
    """Another column of a parquet file; a list keeps its type, None removes it."""
    table = pq.read_table(path)
    kind = table.schema.field(key).type
    table = table.drop_columns([key])
    if values is not None:
        values = pa.array(values, kind) if isinstance(values, list) else values
        table = table.append_column(key, values)
    pq.write_table(table, path)


# What is done to a folder, by the path in it.


def gone(path: str) -> Callable[[Path], None]:
    return lambda folder: (folder / path).unlink()


def cut(path: str) -> Callable[[Path], object]:
    def harm(folder: Path) -> object:
        content = (folder / path).read_bytes()
        return (folder / path).write_bytes(content[: len(content) // 2])

    return harm


def info(**changes) -> Callable[[Path], None]:
    return lambda folder: edit_json(folder / "meta/info.json", **changes)


def column(path: str, key: str, values: list) -> Callable[[Path], None]:
    return lambda folder: edit_table(folder / path, key, values)


V2_DATA = "data/chunk-000/episode_000001.parquet"
V3_DATA = "data/chunk-000/file-000.parquet"
V2_VIDEO = "videos/chunk-000/observation.images.top/episode_000001.mp4"
V3_VIDEO = "videos/observation.images.top/chunk-000/file-000.mp4"
V3_META = "meta/episodes/chunk-000/file-000.parquet"
V2_LIST = "meta/episodes.jsonl"
NAN = float("nan")
NO_ACTION = {"observation.state": {"dtype": "float32"}}
# (version, what is done to the folder, what is said); nothing can be kept
UNREADABLE = [
    ("v3.0", gone("meta/info.json"), "has no .*hdf5"),
    ("v3.0", cut("meta/info.json"), "be read as JSON"),
    (
        *("v3.0", info(codebase_version="v9.0")),
        "codebase_version is 'v9.0', expected one of: v2.0, v2.1, v3.0",
    ),
    ("v2.1", info(fps=0), "fps is 0, expected a positive"),
    ("v2.1", info(features=NO_ACTION), "the feature action is missing"),
    ("v3.0", info(data_path="../../{file_index}.x"), "data_path leads out of it"),
    ("v3.0", info(data_path="data/{nonsense}"), "which cannot be filled in"),
    ("v3.0", cut(V3_META), "not a whole parquet"),
    ("v3.0", lambda f: shutil.rmtree(f / "meta/episodes"), "was not finalized"),
    ("v2.1", gone(V2_LIST), "episodes.jsonl: no such file"),
    ("v2.1", cut(V2_LIST), r"episodes.jsonl line \d is not one JSON value a line"),
    ("v3.0", cut(V3_VIDEO), "not a whole video"),
]
SPOILT = [
    # and which episodes can be kept
    (
        *("v3.0", [0, 1, 2], info(total_episodes=4)),
        "total_episodes is 4, meta/episodes has 3",
    ),
    (
        *("v2.1", [0, 1, 2], info(total_frames=3)),
        "total_frames is 3, meta/episodes.jsonl has 15",
    ),
    (
        *("v3.0", [0], column(V3_META, "length", [4, 7, 4])),
        "file-000.mp4: episode 1 has 7 frames, 0.233 s .* gives it 0.133 to 0.333 s",
    ),
    ("v2.1", [0, 2], gone(V2_DATA), r"episode_000001.parquet: no such file"),
    ("v2.1", [0, 2], cut(V2_DATA), "episode_000001.parquet: not a whole parquet file"),
    (
        *("v2.1", [0, 2], column(V2_DATA, "frame_index", [0, 1, 3, 2, 4, 5])),
        "episode 1 has frame_index 3 where 2 is expected",
    ),
    (
        *("v3.0", [0], column(V3_DATA, "episode_index", [0] * 4 + [1] * 5 + [2] * 6)),
        "episode 1 has 5 frames, meta/episodes says 6",
    ),
    (
        *("v2.1", [0, 2], column(V2_DATA, "action", [[NAN] * 6] + [[0.0] * 6] * 5)),
        "episode 1: /action has a NaN or infinite value at frame 0",
    ),
    (
        *("v2.1", [0, 2], column(V2_DATA, "timestamp", [0.0] * 5 + [NAN])),
        "episode 1 has a timestamp that is no number",
    ),
    (
        *("v2.1", [0, 2], lambda f: edit_table(f / V2_DATA, "action", None)),
        "episode_000001.parquet: the column action is missing",
    ),
    ("v2.1", [0, 2], gone(V2_VIDEO), "episode_000001.mp4: no such file"),
    ("v2.1", [0, 2], cut(V2_VIDEO), "episode_000001.mp4: not a whole video"),
    (
        *("v2.1", [0, 2], lambda f: (f / V2_VIDEO).write_bytes(b"text" * 500)),
        "episode_000001.mp4: not a whole video",
    ),
    (
        *("v2.1", [0, 2]),
        lambda f: shutil.copy(f / V2_VIDEO.replace("01.", "00."), f / V2_VIDEO),
        r"frame 4 of the episode belongs at 0.133 s, the video ends after 0.100 s",
    ),
]


@pytest.mark.parametrize(("version", "harm", "message"), UNREADABLE)
def test_what_cannot_be_read_is_named(tmp_path, version, harm, message):
    source = make_folder(tmp_path / "ours", [4, 6, 5])
    convert(source, tmp_path / "set", f"lerobot-{version}")
    harm(tmp_path / "set")
    for skip in (False, True):
        said = None if skip else message
        with pytest.raises(UserError, match=said) as caught:
            convert(tmp_path / "set", tmp_path / "out", skip_broken=skip)
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "out").exists()
        assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(("version", "kept", "harm", "message"), SPOILT)
def test_faults_are_named_and_what_is_whole_is_kept(
    tmp_path, version, kept, harm, message
):
    lengths = [4, 6, 5]
    whole = make_folder(tmp_path / "ours", lengths)
    convert(whole, tmp_path / "set", f"lerobot-{version}")
    harm(tmp_path / "set")
    with pytest.raises(UserError, match=message) as caught:
        convert(tmp_path / "set", tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".*"))
    done = convert(tmp_path / "set", tmp_path / "out", skip_broken=True)
    assert done.episodes == len(kept)
    assert bool(done.faults) == (kept == [0, 1, 2])
    assert len(done.skipped) == 3 - len(kept)
    for path, i in zip(list_episodes(tmp_path / "out"), kept, strict=True):
        episode = load_episode(path)
        assert len(episode) == lengths[i]
        assert_right_frames(episode, i)
    # And the counts of what is written anew are right.
    convert(tmp_path / "set", tmp_path / "mended", "lerobot-v3.0", skip_broken=True)
    with LeRobotReader(tmp_path / "mended") as reader:
        assert len(reader) == len(kept)
        for episode, i in zip(reader.episodes(), kept, strict=True):
            assert_right_frames(episode, i)


def test_a_video_that_lost_a_frame_shifts_nothing(tmp_path):
    """The times of a frame that is gone stay empty; no other frame takes its place."""
    writer = VideoWriter(tmp_path / "a.mp4", 30, (32, 48))
    images = draw(9, 0, 0)
    writer.add(images[:4])
    writer.frames += 1  # a tick without a picture
    writer.add(images[5:])
    writer.close()
    reader = VideoReader()
    times = np.arange(9) / 30
    there = np.delete(np.arange(9), 4)
    found = reader.read(tmp_path / "a.mp4", times[there], 30)
    np.testing.assert_array_equal(read_numbers(found)[0], there)
    with pytest.raises(EpisodeError, match=r"frame 4 .* at 0.133 s, .* is at 0.167 s"):
        reader.read(tmp_path / "a.mp4", times, 30)
    late = reader.read(tmp_path / "a.mp4", times[5:] + 0.4 / 30, 30)  # a clock's jitter
    np.testing.assert_array_equal(read_numbers(late)[0], np.arange(5, 9))
    reader.close()


def test_far_into_a_long_video(tmp_path):
    writer = VideoWriter(tmp_path / "a.mp4", 30, (32, 48))
    steps = np.arange(900) % 35
    writer.add(draw(35, 0, 0)[steps])
    writer.close()
    reader = VideoReader()
    for start in (870, 3, 400, 410, 200):  # with and without a jump
        times = (start + np.arange(20)) / 30
        found = read_numbers(reader.read(tmp_path / "a.mp4", times, 30))[0]
        np.testing.assert_array_equal(found, steps[start : start + 20])
    reader.close()


def test_velocities_of_other_joints_than_the_state_are_not_taken(tmp_path):
    source = make_folder(tmp_path / "ours", [4], cameras=())
    convert(source, tmp_path / "set", "lerobot-v2.1", robot="other")
    path = tmp_path / "set/data/chunk-000/episode_000000.parquet"
    edit_table(path, "observation.velocity", pa.array([[1.0, 2.0]] * 4))
    episode = read_one(tmp_path / "set")
    speed = np.gradient(episode.qpos, axis=0) * 30
    np.testing.assert_allclose(episode.qvel, speed, rtol=1e-5)


def test_pictures_inside_the_parquet_file(tmp_path):
    source = make_folder(tmp_path / "ours", [3, 4], cameras=("top",))
    convert(source, tmp_path / "set", "lerobot-v2.1")
    features = info_of(tmp_path / "set")["features"]
    features["observation.images.top"]["dtype"] = "image"
    features["next.success"] = {"dtype": "bool", "shape": [1]}
    features["next.reward"] = {"dtype": "float32", "shape": [1]}
    edit_json(tmp_path / "set/meta/info.json", features=features)
    (tmp_path / "set/meta/act_minimal.json").unlink()
    for i, n in enumerate((3, 4)):
        path = tmp_path / f"set/data/chunk-000/episode_00000{i}.parquet"
        pngs = [cv2.imencode(".png", x[..., ::-1])[1] for x in draw(n, i, 0)]
        pictures = [{"bytes": png.tobytes(), "path": "a.png"} for png in pngs]
        table = pq.read_table(path)
        table = table.append_column("observation.images.top", pa.array(pictures))
        won = pa.array([False] * (n - 1) + [i == 0])
        pq.write_table(table.append_column("next.success", won), path)
    done = convert(tmp_path / "set", tmp_path / "back", compression="raw")
    assert done.left_out == ["next.reward"]
    for i, path in enumerate(list_episodes(tmp_path / "back")):
        episode = load_episode(path)
        np.testing.assert_array_equal(episode.images["top"], draw(3 + i, i, 0))
        assert episode.attributes["success"] == (i == 0)
    edit_table(path := tmp_path / "set" / V2_DATA, "observation.images.top", 4 * [None])
    with pytest.raises(EpisodeError, match=f"{path.name}: .* frame 0 is no whole"):
        convert(tmp_path / "set", tmp_path / "no")


def test_columns_that_hold_no_rows_of_numbers():
    where = Path("a.parquet")
    for kind in (pa.list_(pa.float32()), pa.list_(pa.float64(), 2)):
        table = pa.table({"x": pa.array([[1, 2], [3, 4], [5, 6]], kind)})
        cut = numbers_of(table.slice(1), "x", where)  # a slice's own rows
        np.testing.assert_array_equal(cut, [[3, 4], [5, 6]])
    flags = numbers_of(pa.table({"x": [True, False]}), "x", where)
    np.testing.assert_array_equal(flags, [[True], [False]])
    for values, message in (
        ([[1.0, 2.0], [3.0]], "rows of different length"),
        ([[1.0, 2.0], None], "has empty rows"),
        ([[1.0, None], [2.0, 3.0]], "rows of different length"),
        (["left", "right"], "holds string, expected numbers"),
    ):
        with pytest.raises(EpisodeError, match=f"a.parquet: x .*{message}"):
            numbers_of(pa.table({"x": values}), "x", where)


SO = [f"{joint}.pos" for joint in JOINTS]
OLD = [f"main_{joint}" for joint in JOINTS]


def write_foreign(
    folder: Path,
    states: list[np.ndarray],
    *,
    robot: object = "some_arm",
    names: object = None,
    actions: list[np.ndarray] | None = None,
    version: str = "v2.1",
    fps: object = 30,
    times=None,
    tasks=("pick",),
    task_index=None,
    table=("pick", "place"),
    features: dict | None = None,
    columns: dict | None = None,
) -> Path:
    """A dataset without our own notes: one (T, S) array an episode, and no cameras."""
    rows, tables, start = [], [], 0
    feature = {"dtype": "float32", "shape": [states[0].shape[1]], "names": names}
    for i, state in enumerate(states):
        t = np.arange(len(state))
        action = state if actions is None else actions[i]
        own = {
            "observation.state": pa.array(state.tolist(), pa.list_(pa.float32())),
            "action": pa.array(action.tolist(), pa.list_(pa.float32())),
            "timestamp": pa.array(t / 30 if times is None else times, pa.float32()),
            "frame_index": pa.array(t),
            "episode_index": pa.array(0 * t + i),
            "index": pa.array(start + t),
            "task_index": pa.array(0 * t if task_index is None else task_index),
        }
        tables.append(pa.table(own | (columns or {})))
        row = {"episode_index": i, "tasks": tasks, "length": len(state)}
        row |= {"data/chunk_index": 0, "data/file_index": 0}
        rows.append(row)
        start += len(state)
    (folder / "meta/episodes/chunk-000").mkdir(parents=True)
    (folder / "data/chunk-000").mkdir(parents=True)
    if version == "v3.0":
        pq.write_table(pa.Table.from_pylist(rows), folder / V3_META)
        pq.write_table(pa.concat_tables(tables), folder / V3_DATA)
        numbers = list(range(len(table)))
        named = pa.table({"task_index": numbers, "__index_level_0__": list(table)})
        pq.write_table(named, folder / "meta/tasks.parquet")
    else:
        for i, content in enumerate(tables):
            pq.write_table(content, folder / f"data/chunk-000/episode_{i:06d}.parquet")
        for name, lines in (
            ("episodes", rows),
            ("tasks", [{"task_index": i, "task": x} for i, x in enumerate(table)]),
        ):  # as json.dumps(..., ensure_ascii=False) writes them
            texts = [json.dumps(line, ensure_ascii=False) + "\n" for line in lines]
            (folder / f"meta/{name}.jsonl").write_text("".join(texts), encoding="utf-8")
    info = {
        "codebase_version": version,
        "robot_type": robot,
        "fps": fps,
        "total_episodes": len(states),
        "total_frames": start,
        "features": {"observation.state": feature, "action": feature}
        | (features or {}),
    }
    (folder / "meta/info.json").write_text(json.dumps(info), encoding="utf-8")
    return folder


def rows_of(row: list[float], frames: int = 3) -> np.ndarray:
    return np.tile(np.array(row, np.float32), (frames, 1))


POSE = [30.0, 0.0, -45.0, 90.0, 10.0, -20.0, 60.0, -65.0]  # degrees, the gripper open
OTHER = [-10.0, 5.0, 15.0, 25.0, 35.0, 20.0, -40.0, -32.5]


def in_ours(pose: list[float]) -> np.ndarray:
    return np.append(np.radians(pose[:7]), pose[7] / -65)


@pytest.mark.parametrize("first", ["left", "right"])
@pytest.mark.parametrize("robot", ["bi_openarm_follower", None, "something else"])
def test_openarms_go_by_the_names_of_their_numbers(tmp_path, first, robot):
    sides = ["left", "right"] if first == "left" else ["right", "left"]
    poses = {"left": POSE, "right": OTHER}
    names, row = [], []
    for side in sides:
        for joint, angle in zip(ARM_JOINTS["openarm"], poses[side], strict=True):
            ends = {"pos": angle, "vel": 2 * angle, "torque": 0.1 * angle}
            names += [f"{side}_{joint}.{end}" for end in ends]
            row += list(ends.values())
    folder = write_foreign(tmp_path / "set", [rows_of(row)], robot=robot, names=names)
    done = convert(folder, tmp_path / "out")
    assert (done.robot, done.units, done.notices) == ("openarm", "degrees", [])
    assert "torques of action" in done.left_out[0]
    episode = load_episode(episode_path(tmp_path / "out", 0))
    right, left = in_ours(OTHER), in_ours(POSE)
    for found, scale in ((episode.qpos, 1), (episode.action, 1), (episode.qvel, 2)):
        expected = scale * np.concatenate([right, left])
        np.testing.assert_allclose(found[1], expected, atol=1e-6)
    torque = 0.1 * np.array(OTHER + POSE)
    np.testing.assert_allclose(episode.effort[1], torque, atol=1e-5)
    assert json.loads(episode.attributes["joints"]) == joint_names("openarm", 16)
    assert episode.attributes["units"] == "rad"


@pytest.mark.parametrize(("version", "side"), [("v2.1", ""), ("v3.0", "right_")])
def test_one_openarm_alone(tmp_path, version, side):
    bare = [f"{joint}.pos" for joint in ARM_JOINTS["openarm"]]
    words = {"robot": "openarm_follower", "version": version}
    words["names"] = {"motors": [side + name for name in bare]}
    folder = write_foreign(tmp_path / "set", [rows_of(OTHER)], **words)
    episode = read_one(folder)
    np.testing.assert_allclose(episode.qpos[0], in_ours(OTHER), atol=1e-6)
    convert(folder, tmp_path / "again", "lerobot-v3.0")
    info = info_of(tmp_path / "again")
    assert info["robot_type"] == "openarm_follower"
    assert info["features"]["action"]["names"] == bare
    table = pq.read_table(tmp_path / "again" / V3_DATA)
    np.testing.assert_allclose(table.column("action").to_pylist()[0], OTHER, atol=1e-4)


def test_openarms_leave_in_the_order_and_the_units_of_lerobots_follower(tmp_path):
    ours = np.concatenate([in_ours(OTHER), in_ours(POSE)]).astype(np.float32)
    episode = make_episode(4, 0, (), width=16, env_state=None)
    episode.qpos, episode.effort = np.tile(ours, (4, 1)), np.tile(ours, (4, 1))
    episode.action, episode.qvel = 1.0 * episode.qpos, 1.0 * episode.qpos
    episode.attributes = {"task": "openarm_handover"}
    save_episode(tmp_path / "ours/episode_0.hdf5", episode)
    convert(tmp_path / "ours", tmp_path / "set", "lerobot-v3.0")
    info = info_of(tmp_path / "set")
    assert info["robot_type"] == "bi_openarm_follower"
    names = [f"{s}_{j}.pos" for s in ("left", "right") for j in ARM_JOINTS["openarm"]]
    assert info["features"]["observation.state"]["names"] == names
    columns = pq.read_table(tmp_path / "set" / V3_DATA).to_pydict()
    for key in ("observation.state", "action", "observation.velocity"):
        np.testing.assert_allclose(columns[key][0], POSE + OTHER, atol=1e-4)
    swapped = np.concatenate([ours[8:], ours[:8]])  # N m there too
    np.testing.assert_allclose(columns["observation.effort"][0], swapped, atol=1e-6)
    convert(tmp_path / "set", tmp_path / "back")
    assert_same_numbers(episode, load_episode(episode_path(tmp_path / "back", 0)), 1e-6)
    said = read_one(tmp_path / "set", robot="openarm")  # what the export says too
    np.testing.assert_allclose(said.qpos, episode.qpos, atol=1e-6)
    (tmp_path / "set/meta/act_minimal.json").unlink()
    np.testing.assert_allclose(read_one(tmp_path / "set").qpos, episode.qpos, atol=1e-6)


def test_exports_of_openarms_in_radians_still_come_back(tmp_path):
    """As they were made before: right arm first, and said to be a follower's."""
    source = make_folder(tmp_path / "ours", [3], cameras=(), width=16)
    convert(source, tmp_path / "set", "lerobot-v2.1", robot="other")
    names = [f"{name}.pos" for name in joint_names("openarm", 16)]
    features = info_of(tmp_path / "set")["features"]
    for key in ("observation.state", "action"):
        features[key]["names"] = names
    info(robot_type="bi_openarm_follower", features=features)(tmp_path / "set")
    notes = tmp_path / "set/meta/act_minimal.json"
    edit_json(notes, robot="openarm", units="same")
    first = load_episode(episode_path(source, 0))
    assert_same_numbers(first, read_one(tmp_path / "set"), 0.0)
    convert(tmp_path / "set", tmp_path / "again", "lerobot-v2.1")
    again = info_of(tmp_path / "again")
    assert again["robot_type"] == "bi_openarm_radians"
    assert again["features"]["action"]["names"][0] == "left_joint_1.pos"
    assert_same_numbers(first, read_one(tmp_path / "again"), 0.0)
    (tmp_path / "again/meta/act_minimal.json").unlink()
    assert_same_numbers(first, read_one(tmp_path / "again"), 0.0)


def test_zeros_and_senses_of_before_the_redesign(tmp_path):
    old = np.array([3.0, 188.0, 181.0, 72.0, -2.0, 1.0])
    new = np.array([3.0, -98.0, 91.0, 72.0, -2.0, 1.0])  # LeRobot's page on migration
    for sides in ([""], ["left_", "right_"]):
        arms, place = len(sides), tmp_path / f"{len(sides)}"
        names = OLD if arms == 1 else [side + j for side in sides for j in JOINTS]
        for robot in ("so100", "so101"):
            rows = [rows_of([*old] * arms)]
            folder = write_foreign(place / robot, rows, robot=robot, names=names)
            done = convert(folder, place / f"{robot}-out")
            assert (done.units, done.notices) == ("old-degrees", [])
            found = load_episode(episode_path(place / f"{robot}-out", 0)).qpos[0]
            expected = lerobot_joints(robot).ours(np.tile(new, (1, arms)))[0]
            np.testing.assert_allclose(found, expected, atol=1e-5)
            # What is written is in today's degrees, and says so.
            convert(folder, place / f"{robot}-v3", "lerobot-v3.0")
            table = pq.read_table(place / f"{robot}-v3" / V3_DATA)
            row = table.column("action").to_pylist()[0]
            np.testing.assert_allclose(row, np.tile(new, arms), atol=1e-4)
    # Said otherwise, the numbers are taken so, and are seen to be out of reach.
    done = convert(tmp_path / "1/so100", tmp_path / "no", units="degrees")
    [lift, elbow] = done.notices
    assert lift.startswith("qpos[1] (shoulder_lift) goes from 1.71 to 1.71, a so100")
    assert elbow.startswith("qpos[2] (elbow_flex) goes")


PARKED = [3.0, -98.0, 91.0, 72.0, -2.0, 1.0]
OPENARM = [f"{name}.pos" for name in joint_names("openarm", 16)]
# robot_type, names of the state, a row; what is asked for
UNDECIDED = [
    (
        *("so101_follower", SO, [100.0, -100.0, 3.0, 99.0, 50.0, 10.0]),
        r"\(shoulder_pan, shoulder_lift ending at exactly 100 hints at percent\); "
        "say which with: --units degrees or --units percent$",
    ),
    (
        *("so100_follower", SO, [*PARKED[:5], 101.0]),
        "--units degrees or --units percent$",
    ),
    (
        *("so_follower", SO, PARKED),
        "--robot so100 or --robot so101, and its units with --units",
    ),
    (
        *(None, SO, PARKED),
        "named like a SO-100's or SO-101's.* robot_type None does not say which",
    ),
    (
        *("so100", None, [3.0, 188.0, 181.0, 72.0, -2.0, 1.0]),
        "robot_type is 'so100', but the numbers of the state are named nowhere",
    ),
    (
        *("so100", [*"xyzabc"], [0.1, 0.2, 0.3, 0.0, 0.0, 0.0]),
        "the state are named .*'x'.*, expected shoulder_pan",
    ),
    (
        *("so100", OLD, [1.0, 2.0, 0.5, 0.2, 0.1, 50.0]),
        "--units old-degrees .before June 2025. or --units same .radians.$",
    ),
    (
        *("bi_openarm_follower", OPENARM, [0.1] * 16),
        "within 0.10, .* --units degrees or --units same",
    ),
    (
        *("bi_openarm_follower", None, POSE + OTHER),
        "observation.state has the names None, expected an OpenArm's",
    ),
]


@pytest.mark.parametrize(("robot", "names", "row", "message"), UNDECIDED)
def test_what_the_files_leave_open_is_asked_for(tmp_path, robot, names, row, message):
    version = "v3.0" if robot == "so101_follower" else "v2.1"
    words = {"robot": robot, "names": names, "version": version}
    folder = write_foreign(tmp_path / "set", [rows_of(row)], **words)
    with pytest.raises(UserError, match=message) as caught:
        convert(folder, tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()
    convert(folder, tmp_path / "out", robot="other")
    same = load_episode(episode_path(tmp_path / "out", 0)).qpos[0]
    np.testing.assert_allclose(same, row, rtol=1e-6)


def test_answers_and_what_needs_none(tmp_path):
    row = [100.0, -100.0, 3.0, 99.0, 50.0, 10.0]
    words = {"robot": "so_follower", "names": SO}
    folder = write_foreign(tmp_path / "set", [rows_of(row)], **words)
    for units in ("degrees", "percent", "old-degrees"):
        found = read_one(folder, robot="so101", units=units).qpos[0]
        expected = lerobot_joints("so101", units).ours(rows_of(row))[0]
        np.testing.assert_allclose(found, expected)
    # Percent ends at 100, so one joint beyond it decides.
    rows = [rows_of(row), rows_of([0, 0, 0, 0, -130.0, 50])]
    wide = write_foreign(tmp_path / "wide", rows, robot="so101_follower", names=SO)
    with LeRobotReader(wide) as reader:
        assert (reader.joints.robot, reader.joints.units) == ("so101", "degrees")
    for robot in ("koch_follower", "omx_follower"):  # of the same names, other arms
        other = write_foreign(tmp_path / robot, [rows_of(row)], robot=robot, names=SO)
        done = convert(other, tmp_path / f"{robot}-out")
        assert (done.robot, done.units) == ("other", "same")
        assert "qpos[0] (shoulder_pan.pos) goes from 100.00" in done.notices[0]
        episode = load_episode(episode_path(tmp_path / f"{robot}-out", 0))
        assert json.loads(episode.attributes["joints"]) == SO
        assert "units" not in episode.attributes
    assert reach_of("other", 6) is None


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"units": "deg"}, "units are deg, expected rad for robot so100"),
        ({"joints": json.dumps(JOINTS[::-1])}, r"joints are \['gripper', .* expected"),
        ({"joints": json.dumps(list(JOINTS)), "units": "rad"}, None),
        ({"joints": "?"}, None),
    ],
)
def test_an_episode_is_not_taken_for_what_it_says_it_is_not(tmp_path, said, message):
    episode = make_episode(3, 0, ())
    episode.attributes |= said
    save_episode(tmp_path / "ours/episode_0.hdf5", episode)
    if message is None:
        convert(tmp_path / "ours", tmp_path / "set", "lerobot-v3.0")
        return
    with pytest.raises(EpisodeError, match=f"episode_0.hdf5: {message}"):
        convert(tmp_path / "ours", tmp_path / "set", "lerobot-v3.0")
    convert(tmp_path / "ours", tmp_path / "set", "lerobot-v3.0", robot="other")


@pytest.mark.parametrize("width", [5, 7])
def test_as_many_numbers_as_names(tmp_path, width):
    rows = [np.full((3, width), 120.0)]
    folder = write_foreign(tmp_path / "set", rows, robot="so100", names=SO)
    message = f"episode 0: observation.state has {width} numbers a frame, info.json .*6"
    with pytest.raises(EpisodeError, match=message):
        convert(folder, tmp_path / "out")


def test_names_of_another_robots_numbers_come_back(tmp_path):
    names = ["a.left", "b", "c"]
    folder = write_foreign(tmp_path / "set", [rows_of([1.0, 2, 3])], names=names)
    convert(folder, tmp_path / "ours")
    convert(tmp_path / "ours", tmp_path / "again", "lerobot-v2.1")
    info = info_of(tmp_path / "again")
    assert info["features"]["action"]["names"] == names


def test_joints_are_what_state_and_action_have_in_common(tmp_path):
    state, names = rows_of([1.0, 2, 3]), ["a", "b", "c"]
    for i, (values, action_names) in enumerate(
        [
            (rows_of([1.0, 2]), ["x", "y"]),
            (state, ["c", "b", "a"]),
            (state, None),
            (state, names),
        ]
    ):
        action = {"dtype": "float32", "shape": [values.shape[1]], "names": action_names}
        words = {"actions": [values], "features": {"action": action}}
        folder = write_foreign(tmp_path / f"{i}", [state], names=names, **words)
        said = read_one(folder).attributes.get("joints")
        assert said == (None if i < 2 else json.dumps(names))


@pytest.mark.parametrize(
    ("times", "message"),
    [
        (np.arange(40) / 31, "0.0323 s in row 1, .* of 31 frames a second"),
        (np.arange(40) / 10, "0.1000 s in row 1, expected 0.0333 s .* of 10 frames"),
        (np.zeros(40), "0.0000 s in row 1, .*; all times are equal"),
        (np.arange(40) / 30 + 0.5, r"0.5000 s in row 0, expected 0.0000 s .*30\)$"),
        (
            np.append(np.arange(39) / 30, 1.302),
            r"1.3020 s in row 39, expected 1.3000 s \(frame_index / fps, fps is 30\)$",
        ),
        (np.append(np.arange(39) / 30, np.inf), "has a timestamp that is no number"),
    ],
)
def test_times_that_leave_the_rate(tmp_path, times, message):
    folder = write_foreign(tmp_path / "set", [np.ones((40, 2))], times=times)
    with pytest.raises(EpisodeError, match=f"episode_000000.parquet: .*{message}"):
        convert(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_times_as_coarse_as_32_bits_are_right():
    for frames, fps in ((200_000, 30.0), (5, 29.97), (1, 30.0), (100_000, 50.0)):
        exact = np.arange(frames) / fps
        check_times(exact, fps, "episode")
        check_times(exact.astype(np.float32).astype(np.float64), fps, "episode")
        shifted = exact.astype(np.float32).astype(np.float64)
        shifted[-1] += 0.004
        with pytest.raises(EpisodeError, match=f"in row {frames - 1}, expected"):
            check_times(shifted, fps, "episode")


@pytest.mark.parametrize("fps", ["30", [30.0], 30.0, "30.0"])
def test_a_rate_however_it_is_written(tmp_path, fps):
    folder = write_foreign(tmp_path / "set", [np.ones((3, 2))], fps=fps)
    assert read_one(folder).fps == 30.0


@pytest.mark.parametrize("fps", ["fast", [30, 60], None, True, -1, "inf"])
def test_a_rate_that_is_none(tmp_path, fps):
    folder = write_foreign(tmp_path / "set", [np.ones((3, 2))], fps=fps)
    with pytest.raises(EpisodeError, match=r"info.json: fps is .*, expected a posi"):
        LeRobotReader(folder)


STRETCHES = {
    # lengths are 4, 6, 5: where each begins and ends in the video, frames
    "shared": ([0, 0, 10], [4, 6, 15], "episodes [01] and [01] both claim", [2]),
    "a little": ([0, 3, 10], [4, 9, 15], "episodes 0 and 1 .* 0.100 to 0.133,", [2]),
    "nested": ([0, 4, 4], [4, 10, 9], "episodes [12] and [12] both claim", [0]),
    "late": ([0, 4, 12], [4, 10, 15], "gives it 0.400 to 0.500 s of this", [0, 1]),
    "longer": ([0, 4, 10], [4, 10, 16], "episode 2 has 5 frames, 0.167 s", [0, 1]),
    "shorter": ([0, 4, 10], [4, 9, 15], "episode 1 has 6 frames, 0.200 s", [0, 2]),
    "before": ([-1, 4, 10], [3, 10, 15], "gives it -0.033 to 0.100 s of", [1, 2]),
}


@pytest.mark.parametrize("case", STRETCHES)
def test_episodes_that_claim_wrong_stretches_of_a_video(tmp_path, case):
    begins, ends, message, kept = STRETCHES[case]
    convert(make_folder(tmp_path / "ours", [4, 6, 5]), tmp_path / "set", "lerobot-v3.0")
    key = "videos/observation.images.wrist"
    for end, frames in (("from", begins), ("to", ends)):
        values = [frame / 30 for frame in frames]
        edit_table(tmp_path / "set" / V3_META, f"{key}/{end}_timestamp", values)
    with pytest.raises(EpisodeError, match=rf"images.wrist/.*\.mp4: .*{message}"):
        convert(tmp_path / "set", tmp_path / "out")
    done = convert(tmp_path / "set", tmp_path / "out", skip_broken=True)
    assert len(done.skipped) == 3 - len(kept)
    for path, i in zip(list_episodes(tmp_path / "out"), kept, strict=True):
        assert_right_frames(load_episode(path), i)


def test_one_video_for_all_episodes_of_an_old_dataset(tmp_path):
    convert(make_folder(tmp_path / "ours", [4, 6]), tmp_path / "set", "lerobot-v2.1")
    pattern = V2_VIDEO.replace("observation.images.top", "{video_key}")
    edit_json(tmp_path / "set/meta/info.json", video_path=pattern)
    with pytest.raises(EpisodeError, match="episodes 0 and 1 both claim its seconds"):
        LeRobotReader(tmp_path / "set")


MARKS = {
    "0.6": {"info": {"is_depth_map": True}},
    "before": {"info": {"video.is_depth_map": True}},
    "video_info": {"info": {}, "video_info": {"video.is_depth_map": True}},
    "both": {"video_info": {"is_depth_map": True}, "info": None},
    "bits": {"info": {"video.pix_fmt": "gray16le"}},
}


@pytest.mark.parametrize("kind", ["video", "image"])
@pytest.mark.parametrize("mark", MARKS)
def test_depth_is_left_out_by_name(tmp_path, mark, kind):
    key = "observation.images.tof"
    features = {key: {"dtype": kind, "shape": [48, 64, 1]} | MARKS[mark]}
    folder = write_foreign(tmp_path / "set", [np.ones((3, 2))], features=features)
    for to in ("hdf5", "lerobot-v3.0"):
        done = convert(folder, tmp_path / to, to)
        assert done.left_out == [key]
    assert load_episode(episode_path(tmp_path / "hdf5", 0)).images == {}
    info = info_of(tmp_path / "lerobot-v3.0")
    assert not [name for name in info["features"] if "tof" in name]
    # Velocities and efforts that were not recorded are not made up there.
    assert "observation.velocity" not in info["features"]
    assert "observation.effort" not in info["features"]


def test_what_is_marked_as_no_depth_is_a_camera(tmp_path):
    key = "observation.images.top"
    png = cv2.imencode(".png", np.full((4, 6, 3), 9, np.uint8))[1].tobytes()
    for i, mark in enumerate((False, None, "false", 0)):
        info = {"is_depth_map": mark, "video.is_depth_map": mark}
        features = {key: {"dtype": "image", "shape": [4, 6, 3], "info": info}}
        cells = pa.array([{"bytes": png, "path": None}] * 2)
        folder = tmp_path / f"{i}"
        rows = [np.ones((2, 2))]
        write_foreign(folder, rows, features=features, columns={key: cells})
        assert read_one(folder).images["top"].tolist() == [[[[9] * 3] * 6] * 4] * 2


def test_depth_that_nothing_marks_is_no_colour_camera(tmp_path):
    key = "observation.images.tof"
    features = {key: {"dtype": "image", "shape": [48, 64, 3], "info": None}}
    depth = np.full((48, 64), 700, np.uint16)
    png = {"bytes": cv2.imencode(".png", depth)[1].tobytes(), "path": None}
    words = {"features": features, "columns": {key: pa.array([png, png])}}
    write_foreign(tmp_path / "set", [np.ones((2, 2))], **words)
    with pytest.raises(EpisodeError, match=f"000000.parquet: {key}: .* 16 bits"):
        convert(tmp_path / "set", tmp_path / "out")
    path = tmp_path / "depth.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=30)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "gray16le"
        frame = av.VideoFrame.from_ndarray(depth, "gray16le")
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(EpisodeError, match=r"depth.mkv: holds 16-bit grey"):
        VideoReader().read(path, np.zeros(1), 30)


def test_two_features_cannot_be_one_camera(tmp_path):
    keys = ("observation.images.top", "observation.top")
    features = {key: {"dtype": "image", "shape": [4, 4, 3]} for key in keys}
    folder = write_foreign(tmp_path / "set", [np.ones((2, 2))], features=features)
    with pytest.raises(UserError, match=f"{keys[0]} and {keys[1]} would both be the"):
        convert(folder, tmp_path / "out")


@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
@pytest.mark.parametrize(
    ("said", "numbers", "expected"),
    [
        (["pick"], None, "pick"),
        ("put it there", None, "put it there"),
        (["one\u2028line\x85é"], None, "one\u2028line\x85é"),
        (["pick", "place"], [1, 1, 1], "place"),
        ([], [0, 0, 0], "pick"),
        (["pick", "place"], [0, 1, 0], [[0, "pick"], [1, "place"], [2, "pick"]]),
        (["place", "pick"], [1, 1, 0], [[0, "place"], [2, "pick"]]),
    ],
)
def test_tasks_are_kept_frame_by_frame(tmp_path, version, said, numbers, expected):
    words = {"tasks": said or None, "task_index": numbers, "version": version}
    folder = write_foreign(tmp_path / "set", [np.ones((3, 2))], **words)

    def check(folder: Path) -> None:
        attributes = read_one(folder).attributes
        key = "task" if isinstance(expected, str) else "tasks"
        assert {"task", "tasks"} & attributes.keys() == {key}
        found = str(attributes[key])
        assert (found if key == "task" else json.loads(found)) == expected

    check(folder)
    for to in ("lerobot-v2.1", "lerobot-v3.0"):  # and as LeRobot has them again
        convert(folder, tmp_path / "ours", "hdf5")
        convert(tmp_path / "ours", tmp_path / to, to)
        (tmp_path / to / "meta/act_minimal.json").unlink()
        check(tmp_path / to)
        shutil.rmtree(tmp_path / "ours")


def test_several_tasks_of_which_nothing_says_when(tmp_path):
    words = {"tasks": ["pick", "place"], "task_index": [0, 7, 7]}
    folder = write_foreign(tmp_path / "set", [np.ones((3, 2))], **words)
    with pytest.raises(EpisodeError, match="several tasks, but its task_index has num"):
        convert(folder, tmp_path / "out")
    folder = write_foreign(tmp_path / "odd", [np.ones((3, 2))], tasks=[3])
    with pytest.raises(EpisodeError, match=r"episodes.jsonl: line 1: .*tasks is \[3\]"):
        convert(folder, tmp_path / "out")


def test_red_and_blue_are_put_right_where_one_says_so(tmp_path):
    source = make_folder(tmp_path / "ours", [3], cameras=("top",))
    convert(source, tmp_path / "set", "lerobot-v3.0", video="lossless", colours="bgr")
    convert(tmp_path / "set", tmp_path / "back", compression="raw", colours="bgr")
    first = load_episode(episode_path(source, 0)).images["top"]
    there = read_one(tmp_path / "set")
    back = load_episode(tmp_path / "back/episode_0.hdf5")
    np.testing.assert_array_equal(there.images["top"], first[..., ::-1])
    np.testing.assert_array_equal(back.images["top"], first)


CHILD = """
import sys
from act_minimal.exchange import convert as data_tools
source, out, to = sys.argv[1:]
print("ready", flush=True)
data_tools.convert(source, out, to)
"""


@pytest.mark.slow
@pytest.mark.parametrize("to", ["lerobot-v2.1", "lerobot-v3.0", "hdf5"])
def test_kill_in_the_middle_leaves_nothing_that_looks_whole(tmp_path, to):
    source, out = make_folder(tmp_path / "ours", [35] * 8), tmp_path / "out"
    seen = set()
    for delay in (0.0, 0.1, 0.2, 0.3, 0.45):
        kill("-c", CHILD, source, out, to, delay=delay)
        if out.exists():
            seen.add("whole")
            break
        left = [path for path in tmp_path.iterdir() if path != source]
        assert all(path.name.startswith(".out.") for path in left)
        seen.add("partial" if left else "nothing")
    if not out.exists():
        assert seen & {"partial", "nothing"}
        convert(source, out, to)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
    back = convert(out, tmp_path / "back", "hdf5")
    assert (back.episodes, back.frames) == (8, 280)


def test_a_full_disk_is_one_sentence(tmp_path, monkeypatch):
    def full(_):
        raise OSError(28, "No space left on device")

    source = make_folder(tmp_path / "ours", [3])
    monkeypatch.setattr("act_minimal.support.files.os.fsync", full)
    with pytest.raises(UserError, match="could not be written: no space left"):
        convert(source, tmp_path / "out", "lerobot-v3.0")
    assert [path.name for path in tmp_path.iterdir()] == ["ours"]


def client(python: Path, tmp_path: Path, *words: object) -> str:
    script = Path(__file__).with_name("lerobot_data_client.py")
    home = {"HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1"}
    return run(python, script, *map(str, words), **home)


def assert_seen(read: Path, lengths: list[int]) -> tuple[dict, dict]:
    """What LeRobot read are the very episodes 0, 1, ... of make_episode."""
    said = json.loads(read.with_suffix(".json").read_text())
    arrays = dict(np.load(read.with_suffix(".npz")))
    assert (said["episodes"], said["frames"]) == (len(lengths), sum(lengths))
    assert said["fps"] == 30
    joints, start = lerobot_joints("so100"), 0
    for i, n in enumerate(lengths):
        rows = slice(start, start + n)
        expected = make_episode(n, i)
        for key, ours in (("observation.state", "qpos"), ("action", "action")):
            value = joints.theirs(getattr(expected, ours))
            np.testing.assert_allclose(arrays[key][rows], value, rtol=1e-6, atol=1e-5)
        assert (arrays["episode_index"][rows] == i).all()
        np.testing.assert_array_equal(arrays["frame_index"][rows], np.arange(n))
        np.testing.assert_array_equal(arrays["index"][rows], start + np.arange(n))
        for c, camera in enumerate(("top", "wrist")):
            images = arrays[f"observation.images.{camera}"][rows]  # (T, 3, H, W), to 1
            assert (images.shape, images.dtype) == ((n, 3, 32, 48), np.float32)
            images = (images * 255).round().astype(np.uint8).transpose(0, 2, 3, 1)
            frame, shown, first = read_numbers(images)
            np.testing.assert_array_equal(frame, np.arange(n))
            assert (shown == i).all()
            assert first == (c == 0)
        start += n
    return said, arrays


@pytest.mark.slow
@needs_environment
@pytest.mark.timeout(900)
def test_lerobot_reads_what_is_written_here(tmp_path, lerobot_python):
    lengths = [5, 9, 3]
    source = make_folder(tmp_path / "ours", lengths)
    convert(source, tmp_path / "set", "lerobot-v3.0")
    client(lerobot_python, tmp_path, "read", tmp_path / "set", tmp_path / "read")
    said, arrays = assert_seen(tmp_path / "read", lengths)
    assert said["robot_type"] == "so100_follower"
    assert set(said["tasks"]) == {"so100_pick_place"}
    # As LeRobot's policies ask for it: shapes, statistics, windows over a seam.
    assert said["features"]["observation.state"] == ["STATE", [6]]
    assert said["features"]["action"] == ["ACTION", [6]]
    assert said["features"]["observation.environment_state"] == ["ENV", [7]]
    assert said["features"]["observation.images.top"] == ["VISUAL", [3, 32, 48]]
    assert said["stats"]["observation.images.top"]["mean"] == [3, 1, 1]
    for name in ("min", "max", "mean", "std", "q01", "q99"):
        assert said["stats"]["action"][name] == [6]
        assert said["stats"]["timestamp"][name] == [1]
    assert said["seam"]["padded"] == [False, True]
    assert said["seam"]["images"] == [[2, 3, 32, 48]] * 2
    # Pixels as ours, not only nearly: both sides decode the same.
    with LeRobotReader(tmp_path / "set") as reader:
        ours = np.concatenate([e.images["wrist"] for e in reader.episodes()])
    theirs = arrays["observation.images.wrist"].transpose(0, 2, 3, 1) * 255
    assert np.abs(ours - theirs).max() <= 2


@pytest.mark.slow
@needs_environment
@pytest.mark.timeout(900)
def test_lerobot_upgrades_our_v21_and_records_on(tmp_path, lerobot_python):
    lengths = [5, 9]
    source = make_folder(tmp_path / "ours", lengths)
    convert(source, tmp_path / "set", "lerobot-v2.1")
    # Recording goes on in a dataset of ours, and comes back with both parts.
    convert(source, tmp_path / "mine", "lerobot-v3.0", lean=True)
    more, joints = make_episode(7, 2), lerobot_joints("so100")
    arrays = {f"observation.images.{c}": x for c, x in more.images.items()}
    arrays["observation.state"] = joints.theirs(more.qpos)
    arrays["action"] = joints.theirs(more.action)
    np.savez(tmp_path / "more.npz", lengths=np.array([7]), **arrays)
    commands = (
        ("upgrade", tmp_path, "set"),
        ("read", tmp_path / "set", tmp_path / "upgraded"),
        ("append", tmp_path / "mine", tmp_path / "more"),
        ("read", tmp_path / "mine", tmp_path / "appended"),
    )
    words = (word for command in commands for word in ("+", *command))
    client(lerobot_python, tmp_path, *list(words)[1:])
    assert_seen(tmp_path / "upgraded", lengths)
    assert_seen(tmp_path / "appended", [*lengths, 7])
    with LeRobotReader(tmp_path / "mine") as reader:
        for i, episode in enumerate(reader.episodes()):
            expected = make_episode([*lengths, 7][i], i)
            assert_right_frames(episode, i)
            apart = np.abs(episode.qpos - expected.qpos)
            assert (apart <= 1e-5 * (1 + np.abs(expected.qpos))).all()
            if i < 2:
                assert episode.attributes == expected.attributes
            else:
                assert episode.attributes["task"] == "task 0"
                assert episode.attributes["robot"] == "so100"


@pytest.mark.slow
@needs_environment
@pytest.mark.timeout(900)
def test_datasets_that_lerobot_records_load_here(tmp_path, lerobot_python):
    lengths, rng = [6, 4, 8], np.random.default_rng(5)
    total = sum(lengths)
    arrays = {
        "observation.state": rng.uniform(-90, 90, (total, 6)).astype(np.float32),
        "action": rng.uniform(-90, 90, (total, 6)).astype(np.float32),
        "next.success": np.zeros((total, 1), bool),
        "lengths": np.array(lengths),
        "fps": np.array(30),
        "robot_type": np.array("so101_follower"),
    }
    arrays["next.success"][total - 1] = True
    for c, camera in enumerate(("top", "wrist")):
        pictures = [draw(n, i, c) for i, n in enumerate(lengths)]
        arrays[f"observation.images.{camera}"] = np.concatenate(pictures)
    words = []
    for kind in ("video", "image"):
        np.savez(tmp_path / f"{kind}-in.npz", kind=np.array(kind), **arrays)
        words += ["+", "write", tmp_path / kind, tmp_path / f"{kind}-in"]
    client(lerobot_python, tmp_path, *words[1:])
    for kind in ("video", "image"):
        back = tmp_path / f"{kind}-back"
        with pytest.raises(UserError, match="numbers of the state are named nowhere"):
            convert(tmp_path / kind, back)
        said = {"robot": "so101", "units": "degrees"}
        done = convert(tmp_path / kind, back, compression="raw", **said)
        assert (done.episodes, done.frames, done.robot) == (3, total, "so101")
        joints, start = lerobot_joints("so101"), 0
        for i, n in enumerate(lengths):
            episode = load_episode(episode_path(back, i))
            rows = slice(start, start + n)
            for key, found in (("observation.state", "qpos"), ("action", "action")):
                there = joints.theirs(getattr(episode, found))
                np.testing.assert_allclose(there, arrays[key][rows], atol=1e-4)
            assert_right_frames(episode, i)
            assert episode.attributes == {
                "task": f"task {i % 2}",
                "robot": "so101",
                "units": "rad",
                "joints": json.dumps(list(JOINTS)),
                "success": i == 2,
            }
            assert (episode.fps, episode.sim) == (30.0, False)
            start += n
