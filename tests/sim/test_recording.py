"""Demonstrators, recordings, replay and films of the simulated arm."""

import shutil
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import av
import cv2
import h5py
import numpy as np
import pytest

from act_minimal.episodes import load_episode, save_episode
from act_minimal.sim import make_task
from act_minimal.sim.film import Take, film, pick
from act_minimal.sim.recording import demonstrate, record
from act_minimal.sim.replay import replay
from act_minimal.sim.so100.expert import Expert, Reach
from act_minimal.support.errors import SettingError, UserError
from act_minimal.support.gl import GLError

from ..programs import kill, python

TASK = make_task("so100_pick_place")


def content(path):
    """All arrays and attributes of a file."""
    with h5py.File(path) as file:
        found = {f"/@{k}": v for k, v in file.attrs.items()}

        def visit(name, node):
            found.update({f"{name}@{k}": v for k, v in node.attrs.items()})
            if isinstance(node, h5py.Dataset):
                found[name] = node[()]

        file.visititems(visit)
    return found


def assert_same_recordings(a: Path, b: Path):
    names = sorted(p.name for p in a.iterdir())
    assert names == sorted(p.name for p in b.iterdir())
    for name in names:
        one, other = content(a / name), content(b / name)
        assert one.keys() == other.keys()
        for key, value in one.items():
            assert np.array_equal(value, other[key]), f"{name}: {key}"


@pytest.fixture(scope="module")
def scripted(tmp_path_factory):
    """Five scripted episodes without images."""
    out = tmp_path_factory.mktemp("scripted") / "data"
    record(TASK, out, 5, demonstrator="scripted", progress=False)
    return out


def test_people_approach_from_above_or_from_the_side():
    expert = Expert(TASK, "human")
    reach = Reach()
    start = TASK.sample(np.random.default_rng(3))
    offsets = []  # of the fingers from the cube, a quarter of a second before closing
    for seed in range(30):
        plan = expert.plan(start, seed)
        closing = int(np.argmax(np.diff(plan[:, 5]) < -0.005))  # first closing tick
        before = plan[max(closing - 8, 0)]
        reach.configuration.update(np.append(before[:5], 0.5))
        tip = reach.configuration.get_transform_frame_to_world("grasp", "site")
        offsets.append(tip.translation()[:2] - start[6:8])
    from_side = np.linalg.norm(offsets, axis=1) > 0.008
    assert 5 <= from_side.sum() <= 25


@pytest.mark.quick
def test_unreachable_points_are_refused():
    with pytest.raises(UserError, match=r"cannot reach .* nearest it gets"):
        Reach()(np.array([0.0, -0.9, 0.1]), 0.0, np.zeros(5))


@pytest.mark.quick
def test_an_episode_says_where_it_comes_from(scripted):
    episode = load_episode(scripted / "episode_1.hdf5")
    said = episode.attributes
    assert said["task"] == "so100_pick_place"
    assert (said["demonstrator"], said["seed"]) == ("scripted", 0)
    assert said["success"]
    assert said["scene"] == 1_000_000_000 + said["attempt"]
    assert (said["robot"], said["units"]) == ("so100", "rad")
    assert (episode.fps, episode.sim) == (30, True)
    assert episode.qpos.shape == episode.action.shape == (len(episode), 6)
    assert episode.env_state is not None
    assert episode.env_state.shape == (len(episode), 7)
    # The gripper closes and opens again; the cube ends in the bin.
    assert episode.action[:, 5].min() < 0.1 < 0.5 < episode.action[-1, 5]
    np.testing.assert_allclose(episode.env_state[-1, :2], [0.15, -0.2], atol=0.045)


def test_only_successes_are_recorded(tmp_path, monkeypatch):
    # The third attempt gives up.
    plan = Expert.plan
    third = 1_000_000_002

    def give_up(self, start, seed):
        return plan(self, start, seed)[: 20 if seed == third else None]

    monkeypatch.setattr(Expert, "plan", give_up)
    paths = record(TASK, tmp_path, 4, demonstrator="scripted", progress=False)
    attempts = [load_episode(p).attributes["attempt"] for p in paths]
    assert attempts == [0, 1, 3, 4]
    assert [p.name for p in paths] == [f"episode_{i}.hdf5" for i in range(4)]


def test_an_expert_that_always_fails_is_reported(tmp_path, monkeypatch):
    monkeypatch.setattr(Expert, "plan", lambda self, start, seed: np.zeros((2, 6)))
    with pytest.raises(UserError, match="only 0 of 1 demonstrations succeeded"):
        record(TASK, tmp_path, 1, progress=False)


def test_more_episodes_can_be_added(scripted, tmp_path):
    record(TASK, tmp_path, 3, demonstrator="scripted", progress=False)
    before = [p.stat().st_mtime_ns for p in sorted(tmp_path.iterdir())]
    paths = record(TASK, tmp_path, 5, demonstrator="scripted", progress=False)
    assert len(paths) == 5
    assert [p.stat().st_mtime_ns for p in sorted(tmp_path.iterdir())][:3] == before
    assert_same_recordings(tmp_path, scripted)
    fewer = record(TASK, tmp_path, 2, demonstrator="scripted", progress=False)
    assert fewer == paths[:2]


KILLED = """
import sys
from pathlib import Path
from act_minimal.sim import make_task
from act_minimal.sim.recording import record
record(make_task("so100_pick_place"), Path(sys.argv[1]), int(sys.argv[2]),
       demonstrator="human", cameras=("wrist",), size=(24, 32), compression="raw",
       seed=5, progress=False)
"""


def test_a_killed_recording_goes_on_to_the_very_same_files(tmp_path):
    out = tmp_path / "killed"
    kill("-c", KILLED, out, 500, ready=(out / "episode_2.hdf5").exists)
    whole = sorted(out.glob("*.hdf5"))
    assert len(whole) >= 3
    n = len(whole) + 2
    for path in whole:
        assert load_episode(path).attributes["success"]  # none is half-written
    settings = {"demonstrator": "human", "seed": 5, "cameras": ("wrist",)}
    settings |= {"size": (24, 32), "compression": "raw", "progress": False}
    record(TASK, out, n, **settings)
    record(TASK, tmp_path / "whole", n, **settings)
    assert_same_recordings(out, tmp_path / "whole")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"seed": 1}, r"episode_\d.hdf5 was recorded with seed 0, but now seed 1"),
        ({"demonstrator": "human"}, "recorded with demonstrator scripted"),
        ({"cameras": ("top",)}, r"recorded with cameras \{\}, but now cameras .*top"),
    ],
)
@pytest.mark.quick
def test_another_recording_is_not_mixed_in(scripted, change, words):
    before = sorted(p.stat().st_mtime_ns for p in scripted.iterdir())
    settings = {"demonstrator": "scripted", "seed": 0, "progress": False}
    with pytest.raises(UserError, match=words):
        record(TASK, scripted, 9, **settings | change)
    assert sorted(p.stat().st_mtime_ns for p in scripted.iterdir()) == before


def test_another_image_size_or_camera_is_not_mixed_in(tmp_path, scripted):
    episode = load_episode(scripted / "episode_0.hdf5")
    episode.images = {"top": np.zeros((len(episode), 24, 32, 3), np.uint8)}
    save_episode(tmp_path / "episode_0.hdf5", episode)
    settings = {"demonstrator": "scripted", "progress": False}
    sizes = {("top",): (96, 128), ("wrist",): (24, 32), (): (24, 32)}
    for cameras, size in sizes.items():
        with pytest.raises(UserError, match=r"with cameras \{'top': \(24, 32\)\}, but"):
            record(TASK, tmp_path, 2, cameras=cameras, size=size, **settings)


@pytest.mark.quick
def test_after_a_removal_the_next_number_is_the_highest_and_one(tmp_path, scripted):
    for i in (0, 2):
        shutil.copy(scripted / f"episode_{i}.hdf5", tmp_path)
    before = {p: p.read_bytes() for p in tmp_path.iterdir()}
    paths = record(TASK, tmp_path, 4, demonstrator="scripted", progress=False)
    assert [p.name for p in paths] == [f"episode_{i}.hdf5" for i in (0, 2, 3, 4)]
    assert all(path.read_bytes() == content for path, content in before.items())
    attempts = [load_episode(p).attributes["attempt"] for p in paths]
    assert attempts == sorted(set(attempts)), "an attempt is there twice"
    save_episode(tmp_path / "other_9.hdf5", load_episode(paths[0]))
    with pytest.raises(UserError, match=r"other_9\.hdf5, which is no name"):
        record(TASK, tmp_path, 9, demonstrator="scripted", progress=False)


@pytest.mark.quick
@pytest.mark.parametrize("other", ["log.jsonl", "meta/info.json", "tally.json"])
def test_nothing_is_recorded_into_a_folder_of_another_kind(tmp_path, other):
    (tmp_path / other).parent.mkdir(exist_ok=True)
    (tmp_path / other).write_text("{}")
    with pytest.raises(UserError, match="expected episodes or an empty folder"):
        record(TASK, tmp_path, 1, progress=False)


@pytest.mark.quick
@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"cameras": ("top", "front")}, r"no camera 'front'.* are: top, wrist"),
        ({"cameras": ("top", "top")}, "no camera 'top' to record once"),
        ({"n": 0}, "n is 0, expected from 1"),
        ({"seed": -1}, "seed is -1, expected at least 0"),
        ({"size": (0, 128)}, r"size is \(0, 128\), expected"),
        ({"size": (96, 15)}, r"size is \(96, 15\), expected .* at least 16"),
    ],
)
def test_bad_settings_are_refused_before_anything_is_recorded(
    tmp_path, settings, words
):
    with pytest.raises(SettingError, match=words):
        record(TASK, tmp_path / "new", **{"n": 1, "progress": False} | settings)
    assert not (tmp_path / "new").exists()


def test_a_full_disk_is_one_sentence_and_leaves_nothing_half_written(tmp_path):
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))"
    run = python("-c", limit + KILLED, tmp_path, 1)
    assert "episode_0.hdf5 could not be written: no space left" in run.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("demonstrator", ["scripted", "human"])
def test_replay_succeeds_again(tmp_path, scripted, demonstrator):
    if demonstrator == "human":
        record(TASK, tmp_path, 8, demonstrator="human", seed=3, progress=False)
        scripted = tmp_path
    result = replay(scripted, 8, progress=False)
    assert result["successes"] == result["n"] == (8 if scripted == tmp_path else 5)
    # Actions are stored as float32; that is all the difference there may be.
    assert max(row["largest_difference"] for row in result["episodes"]) < 1e-4


def test_replay_notices_a_recording_of_another_scene(tmp_path, scripted):
    episode = load_episode(scripted / "episode_0.hdf5")
    episode.attributes["scene"] = 7
    save_episode(tmp_path / "episode_0.hdf5", episode)
    row = replay(tmp_path, 1, progress=False)["episodes"][0]
    assert row["largest_difference"] > 1e-3
    assert not row["success"]


@pytest.mark.quick
def test_what_cannot_be_replayed(tmp_path, scripted):
    with pytest.raises(UserError, match=r"is not a folder; `act record`"):
        replay(tmp_path / "none", 1, progress=False)
    with pytest.raises(UserError, match=r"has no \*.hdf5 episodes"):
        replay(tmp_path, 1, progress=False)
    with pytest.raises(SettingError, match=r"0 episodes .* expected at least 1"):
        replay(scripted, 0, progress=False)
    episode = load_episode(scripted / "episode_0.hdf5")
    whole = episode.attributes
    for scene, fps, words in (
        ({}, 30.0, r"episode_0.hdf5 has no attributes .*'scene'"),
        ({"scene": 0}, 10.0, r"has 10 frames a second, .* ticks at 30 Hz"),
        ({"scene": -1}, 30.0, r"only episodes that were recorded in simul"),  # an arm's
    ):
        episode.attributes = {k: v for k, v in whole.items() if k != "scene"} | scene
        episode.fps = fps
        (tmp_path / "episode_0.hdf5").unlink(missing_ok=True)
        save_episode(tmp_path / "episode_0.hdf5", episode)
        with pytest.raises(UserError, match=words):
            replay(tmp_path, 1, progress=False)
    both = replace(
        episode,
        attributes=whole,
        fps=30.0,
        action=np.tile(episode.action, 2),
        qpos=np.tile(episode.qpos, 2),
        qvel=np.tile(episode.qvel, 2),
        effort=np.tile(episode.effort, 2),
    )
    (tmp_path / "episode_0.hdf5").unlink()
    save_episode(tmp_path / "episode_0.hdf5", both)
    with pytest.raises(UserError, match=r"actions of 12 joints, but .* has 6"):
        replay(tmp_path, 1, progress=False)


def frames_of(path):
    video = cv2.VideoCapture(str(path))
    frames = []
    while (frame := video.read())[0]:
        frames.append(frame[1][..., ::-1])  # BGR -> RGB
    video.release()
    return frames


def test_a_film_shows_the_rollouts_and_how_they_ended(tmp_path):
    starts = [TASK.sample(np.random.default_rng(i)) for i in range(3)]
    moving = np.repeat(starts[0][None], 24, axis=0)
    moving[:, 0] += np.linspace(0, 1.5, 24)
    takes = [
        Take("ACT 1", moving, True),
        Take("ACT 2", np.repeat(starts[1][None], 12, axis=0), False),
        Take("ACT 3", np.repeat(starts[2][None], 4, axis=0), False),
    ]
    place = tmp_path / "new" / "film.mp4"
    path = film(TASK, takes, place, columns=2, size=(96, 128), progress=False)
    assert path == place
    assert list(path.parent.iterdir()) == [path]
    frames = frames_of(path)
    assert len(frames) == 24 // 4 + 15
    # Two rows of a line of 20 pixels over the pictures, two views of each rollout.
    assert frames[0].shape == (2 * 116, 2 * 256, 3)
    for view in (slice(0, 128), slice(128, 256)):
        first, later = (frames[i][20:116, view].astype(int) for i in (0, 5))
        assert np.abs(first - later).max() > 50
    ended = frames[-1].astype(int)
    blue, vermilion = ended[2:5, :256].mean((0, 1)), ended[2:5, 256:].mean((0, 1))
    assert blue[2] > blue[0] + 60
    assert vermilion[0] > vermilion[2] + 60
    assert np.median(frames[0][2:5]) > 240  # the line is white until then
    assert frames[-1][120:, 260:].min() > 240  # the fourth place is empty
    with av.open(str(path)) as container:  # what every browser plays, while it loads
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.pix_fmt) == ("h264", "yuv420p")
    bytes_of_it = path.read_bytes()
    assert bytes_of_it.index(b"moov") < bytes_of_it.index(b"mdat")


@pytest.mark.skipif(sys.platform == "win32", reason="limits files as POSIX does")
def test_a_film_without_room_is_said(tmp_path):
    import resource

    take = Take("x", TASK.sample(np.random.default_rng(0))[None], True)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(UserError, match=r"film.mp4 could not be written: no space"):
            film(TASK, [take], tmp_path / "film.mp4", progress=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list(tmp_path.iterdir())


@pytest.mark.quick
def test_a_film_of_nothing_or_without_opengl_is_refused(tmp_path, monkeypatch):
    for name in ("film.avi", "film", "film.mp4.txt"):
        with pytest.raises(SettingError, match=r"film is .*, expected .* in \.mp4"):
            film(TASK, [], tmp_path / name)
    with pytest.raises(UserError, match="no rollout to film"):
        film(TASK, [], tmp_path / "film.mp4")
    monkeypatch.setenv("MUJOCO_GL", "disabled")
    take = Take("x", TASK.sample(np.random.default_rng(0))[None], True)
    with pytest.raises(GLError, match="MUJOCO_GL"):
        film(TASK, [take], tmp_path / "film.mp4", progress=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.quick
@pytest.mark.parametrize(
    ("outcomes", "expected"),
    [
        ("ssssssss", "ssss"),
        ("ffffffff", "ffff"),
        ("sfsfsfsf", "ffss"),
        ("sssfssss", "fsss"),
        ("fffsffff", "fffs"),
        ("sf", "fs"),
    ],
)
def test_films_show_failures_first_and_at_most_half(outcomes, expected):
    rolls = [
        SimpleNamespace(scene=i, success=letter == "s", qpos=np.zeros((1, 13)))
        for i, letter in enumerate(outcomes)
    ]
    takes = pick(rolls, "ACT", 4)
    assert "".join("s" if t.success else "f" for t in takes) == expected


def test_an_aim_that_the_arm_does_not_get_to_is_one_failed_attempt():
    """People aim there, too; a recording of hundreds once ended with it."""
    (found,) = demonstrate(TASK, [349], "human", seed=1)
    attempt, episode = found
    assert attempt == 349
    assert not episode.attributes["success"]
    assert (episode.action == episode.action[0]).all()  # it stays
    np.testing.assert_allclose(episode.action[0], episode.qpos[0], atol=1e-6)


@pytest.mark.quick
def test_only_what_cannot_be_reached_counts_as_an_attempt(monkeypatch):
    def plan(self, start, seed):
        raise UserError("something else")

    monkeypatch.setattr(Expert, "plan", plan)
    with pytest.raises(UserError, match="something else"):
        list(demonstrate(TASK, [0], "scripted", seed=0))
