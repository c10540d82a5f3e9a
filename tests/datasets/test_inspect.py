"""Each fault, planted in a sound dataset, must be found, and nothing else."""

import json

import cv2
import numpy as np
import pytest

from act_minimal.datasets.embodiment import named_joints
from act_minimal.datasets.inspect import (
    contact_sheet,
    inspect_dataset,
    render_report,
    report_json,
)
from act_minimal.episodes import Episode, episode_path, save_episode
from act_minimal.support.errors import UserError

pytestmark = pytest.mark.mostly_quick

FRAMES = 60


def make_episode(seed: int, frames: int = FRAMES) -> Episode:
    """Joints that move, commands that lead them, cameras that see something move."""
    t = np.linspace(0, 6, frames)[:, None]
    phase = np.random.default_rng(seed).uniform(0, 6, 3)
    qpos = np.sin(t + phase).astype(np.float32)
    action = np.sin(t + 0.13 + phase).astype(np.float32)
    y, x = np.mgrid[:12, :16]
    image = np.stack([x * 10, y * 10, x * y], axis=-1)
    top = np.stack([image + i for i in range(frames)]).astype(np.uint8)
    images = {"top": top, "wrist": top[:, ::-1].copy()}
    attributes = {"task": "pick", "demonstrator": "human", "success": True}
    return Episode(
        qpos, np.cos(qpos), 0 * qpos, action, images, qpos + 1, 30.0, True, attributes
    )


def write(folder, change=None, count: int = 3) -> None:
    """Episodes 0, 1, 2; `change` is applied to the last."""
    for i in range(count):
        episode = make_episode(i, FRAMES + i)
        if change is not None and i == count - 1:
            change(episode)
        save_episode(episode_path(folder, i), episode)


def test_a_sound_dataset(tmp_path):
    write(tmp_path)
    report = inspect_dataset(tmp_path)
    assert report.healthy, report.warnings
    assert (report.episodes, report.frames) == (3, 183)
    assert (report.shortest, report.longest) == (60, 62)
    assert report.seconds == pytest.approx(183 / 30)
    assert report.fps == [30.0]
    assert report.cameras == {"top": [(12, 16)], "wrist": [(12, 16)]}
    assert (report.successes, report.failures, report.unlabelled) == (3, 0, 0)
    assert report.attributes == {"task": {"pick": 3}, "demonstrator": {"human": 3}}
    for key in ("qpos", "action"):
        episodes = (make_episode(i, FRAMES + i) for i in range(3))
        rows = np.concatenate([getattr(episode, key) for episode in episodes])
        for j, found in enumerate(report.ranges[key]):
            column = rows[:, j].astype(float)
            assert found.minimum == pytest.approx(column.min())
            assert found.maximum == pytest.approx(column.max())
            assert found.mean == pytest.approx(column.mean())
            assert found.std == pytest.approx(column.std())
    text = render_report(report)
    assert "3 readable, 0 broken; 183 frames, 6 s at 30 frames a second" in text
    assert "No problems found." in text
    assert json.loads(json.dumps(report_json(report)))["healthy"] is True


def hold(rows: np.ndarray, first: int = 10, end: int = 45) -> None:
    rows[first:end] = rows[first]


def freeze(episode: Episode) -> None:
    hold(episode.images["wrist"])


def pause(episode: Episode) -> None:
    """The arm stands still, and so do the images: nothing is wrong."""
    for rows in (*episode.images.values(), episode.qpos):
        hold(rows)


def dark(episode: Episode) -> None:
    noise = np.random.default_rng(0).integers(0, 3, episode.images["top"].shape)
    episode.images["top"] = noise.astype(np.uint8)


def act(change):
    """The action becomes what `change` makes of the episode."""
    return lambda episode: setattr(episode, "action", change(episode))


@pytest.mark.parametrize(
    ("change", "warning"),
    [
        (
            freeze,
            "episode_2.hdf5: camera 'wrist' is frozen for 35 frames from frame 10",
        ),
        (pause, None),
        (
            lambda e: hold(e.images["top"], 0, len(e)),
            "episode_2.hdf5: camera 'top' shows the same image throughout",
        ),
        (
            act(lambda e: e.qpos),
            "episode_2.hdf5: the actions equal the state in every frame",
        ),
        (
            act(lambda e: np.concatenate([e.qpos[1:], e.qpos[-1:]])),
            "episode_2.hdf5: the actions equal the next state",
        ),
        (
            act(lambda e: np.full_like(e.action, 0.5)),
            "episode_2.hdf5: the action never changes",
        ),
        (dark, "episode_2.hdf5: camera 'top' shows a single colour"),
        (
            lambda e: setattr(e, "fps", 50.0),
            "episodes differ in frames a second: 30, 50",
        ),
        (
            lambda e: e.images.pop("wrist"),
            "camera 'wrist' is missing from 1 of 3 episodes, first from episo",
        ),
        (
            lambda e: e.images.update(top=e.images["top"][:, :10]),
            "images of camera 'top' differ in size: 12x16, 10x16",
        ),
        (
            act(lambda e: e.action[:, :2]),
            "episode_2.hdf5: action is 2 numbers wide, 3 in the files bef",
        ),
        (
            lambda e: e.attributes.update(success=False),
            "1 of 3 episodes marked as failures",
        ),
    ],
)
def test_one_fault_gives_one_warning(tmp_path, change, warning):
    write(tmp_path, change)
    report = inspect_dataset(tmp_path)
    assert report.broken == {}
    if warning is None:
        assert report.warnings == []
    else:
        assert len(report.warnings) == 1
        assert report.warnings[0].startswith(warning)
        assert warning.split(":")[0] in render_report(report)


def test_a_joint_that_hardly_moves(tmp_path):
    for i in range(2):
        episode = make_episode(i)
        episode.action[:, 1] = 0.7 + 1e-4 * episode.action[:, 1]
        save_episode(episode_path(tmp_path, i), episode)
    (warning,) = inspect_dataset(tmp_path).warnings
    assert warning.startswith("action[1] hardly moves")


def test_broken_files_are_listed_and_the_rest_is_read(tmp_path):
    write(tmp_path, count=4)
    path = episode_path(tmp_path, 1)
    path.write_bytes(path.read_bytes()[:9000])
    episode_path(tmp_path, 2).write_text("not an episode at all")
    report = inspect_dataset(tmp_path)
    assert report.episodes == 2
    assert set(report.broken) == {"episode_1.hdf5", "episode_2.hdf5"}
    assert report.broken["episode_1.hdf5"].startswith("truncated file")
    assert report.broken["episode_2.hdf5"] == "not an HDF5 file"
    assert not report.healthy
    assert "BROKEN  episode_2.hdf5: not an HDF5 file" in render_report(report)


def test_nothing_readable(tmp_path):
    with pytest.raises(UserError, match=r"has no \*\.hdf5 episodes"):
        inspect_dataset(tmp_path)
    with pytest.raises(UserError, match="no readable"):
        contact_sheet(tmp_path, tmp_path / "sheet.png")
    episode_path(tmp_path, 0).write_text("rubbish")
    report = inspect_dataset(tmp_path)
    assert (report.episodes, len(report.broken)) == (0, 1)
    assert "0 readable, 1 broken" in render_report(report)
    json.dumps(report_json(report))


def test_files_that_are_not_read_are_named(tmp_path):
    write(tmp_path)
    (tmp_path / "episode_3.h5").touch()
    report = inspect_dataset(tmp_path)
    assert report.episodes == 3
    assert report.warnings == ["episode_3.h5 is not read: episodes are called *.hdf5"]
    for path in tmp_path.glob("*.hdf5"):
        path.unlink()
    with pytest.raises(UserError, match=r"has episode_3\.h5, which would not be read"):
        inspect_dataset(tmp_path)


def of_arm(robot: str, qpos: np.ndarray, **attributes) -> Episode:
    moved = qpos + 0.05 * np.sin(np.linspace(0, 9, FRAMES))[:, None]
    rows = moved.astype(np.float32)
    said = {"robot": robot} if robot else {}
    about = {"fps": 30.0, "attributes": said | attributes}
    return Episode(rows, 0 * rows, 0 * rows, rows + 0.01, **about)


@pytest.mark.parametrize(
    ("robot", "qpos", "expected"),
    [
        ("so100", [0.0, -1.5, 1.5, 0.0, 3.1, 0.5], []),
        # shoulder_lift as before LeRobot's redesign; degrees for radians
        ("so100", [0.0, 1.7, 1.5, 0.0, 0.0, 0.5], ["qpos[1] (shoulder_lift) goes"]),
        ("so101", [0.0, 0.0, 30.0, 0.0, 0.0, 0.5], ["qpos[2] (elbow_flex) goes from"]),
        ("so101", [0.0, 0.0, 0.0, 0.0, 0.0, 40], ["qpos[5] (gripper) goes from 39.95"]),
        ("openarm", [*[0.1] * 11, -1.2, *[0.1] * 4], ["qpos[11] (left_joint_4) goes"]),
        ("openarm", [*[0.1] * 3, 2.4, *[0.1] * 12], []),
        ("", [0.0, 90.0], ["qpos[1] goes from 89.95 to 90.05, more than a turn"]),
        ("", [0.0, 6.0], []),
    ],
)
def test_joints_beyond_their_reach_are_a_notice(tmp_path, robot, qpos, expected):
    save_episode(episode_path(tmp_path, 0), of_arm(robot, np.array(qpos)))
    warnings = inspect_dataset(tmp_path).warnings
    assert len(warnings) == len(expected)
    for warning, start in zip(warnings, expected, strict=True):
        assert warning.startswith(start)


def test_notices_go_by_the_names_of_the_joints(tmp_path):
    episode = of_arm("", np.array([0.0, 90.0]), joints='["lift", "turn"]')
    save_episode(episode_path(tmp_path, 0), episode)
    [warning] = inspect_dataset(tmp_path).warnings
    assert warning.startswith("qpos[1] (turn) goes from 89.95")
    assert named_joints('["lift", 3]', 2) == named_joints("lift", 2) == []


@pytest.mark.parametrize(("said", "successes"), [("False", 0), ("True", 1), (0, 0)])
def test_success_however_it_is_written(tmp_path, said, successes):
    write(tmp_path, lambda e: e.attributes.update(success=said), count=1)
    report = inspect_dataset(tmp_path)
    assert (report.successes, report.failures) == (successes, 1 - successes)


def test_without_images(tmp_path):
    write(tmp_path, freeze)
    report = inspect_dataset(tmp_path, images=False)
    assert report.healthy
    assert "Cameras: none" in render_report(report)


@pytest.mark.slow
def test_contact_sheet_shows_the_frames(tmp_path):
    write(tmp_path, count=5)
    episode_path(tmp_path, 5).write_text("rubbish, left out of the picture")
    path = tmp_path / "deep" / "sheet.png"
    contact_sheet(tmp_path, path, episodes=6)
    picture = cv2.imread(str(path))[..., ::-1]
    assert picture.shape[0] > 300
    assert picture.shape[1] > 900
    # The last frame of the last episode is there, in its place and its colours: its
    # own corner's colour fills a patch as large as a pixel of it.
    corner = make_episode(4, FRAMES + 4).images["top"][-1, 0, 0].astype(int)
    close = np.abs(picture.astype(int) - corner).max(axis=2) <= 2
    assert close.sum() > 50
