"""Episodes against files written and read here by hand, as the original's code does."""

import contextlib
import os
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from act_minimal.dataset import Demonstrations
from act_minimal.datasets.folders import episodes_of, kind_of, shape_of
from act_minimal.episodes import (
    Episode,
    episode_path,
    find_episodes,
    list_episodes,
    load_episode,
    next_episode,
    save_episode,
    save_next_episode,
)
from act_minimal.support.errors import UserError
from act_minimal.support.hdf5_files import (
    EpisodeError,
    is_true,
    misnamed_files,
    rate_of,
)

from .made_up import random_episode
from .programs import kill, python

pytestmark = pytest.mark.mostly_quick

RNG = np.random.default_rng(0)


def smooth_images(frames: int, height: int = 24, width: int = 32) -> np.ndarray:
    """Pictures that JPEG keeps well; red, green and blue all differ."""
    y, x = np.mgrid[:height, :width]
    blue = np.full_like(x, 200)
    planes = [np.stack([x * 4 + t, y * 3 + 60, blue], -1) for t in range(frames)]
    return np.stack(planes).astype(np.uint8)


def make_episode(frames: int = 7, cameras: tuple[str, ...] = ("top", "wrist")):
    images = {c: smooth_images(frames) for c in cameras}
    about = {"task": "pick", "seed": 3, "success": True, "speed": 0.5}
    return random_episode(frames, images=images, sim=True, attributes=about)


def originals_loader(path: Path, cameras: list[str], start: int = 0) -> dict:
    """What the original's dataset class takes from a file, key by key."""
    with h5py.File(path, "r") as root:
        out = {"sim": root.attrs["sim"], "compress": root.attrs.get("compress", False)}
        out["length"] = root["/action"].shape[0]
        out["qpos"] = root["/observations/qpos"][start]
        out["qvel"] = root["/observations/qvel"][start]
        out["effort"] = root["/observations/effort"][start]
        out["images"] = {c: root[f"/observations/images/{c}"][start] for c in cameras}
        if out["compress"]:
            out["images"] = {c: cv2.imdecode(i, 1) for c, i in out["images"].items()}
        out["action"] = root["/action"][max(0, start - 1) :]
    return out


def write_original(
    path: Path,
    *,
    frames: int = 5,
    dtype=np.float32,
    compress: str | None = None,
    sim: bool | None = False,
    effort: bool = True,
    base: bool = False,
    depth: bool = False,
) -> dict:
    """Writes a file in the original's layouts, and returns what is in it."""
    truth = {k: RNG.normal(size=(frames, 14)) for k in ("qpos", "qvel", "effort")}
    truth["action"] = RNG.normal(size=(frames, 14))
    truth["base"] = RNG.normal(size=(frames, 2))
    cameras = ["cam_high", "cam_left_wrist"]
    with h5py.File(path, "w") as root:
        if sim is not None:
            root.attrs["sim"] = sim
        root["action"] = truth["action"].astype(dtype)
        if base:
            root["base_action"] = truth["base"].astype(dtype)
        observations = root.create_group("observations")
        for key in ("qpos", "qvel") + (("effort",) if effort else ()):
            observations[key] = truth[key].astype(dtype)
        group = observations.create_group("images")
        truth["images"] = {}
        rows: dict[str, list[np.ndarray]] = {}
        for n, camera in enumerate(cameras):
            images = np.roll(smooth_images(frames, 48, 64), 9 * n, axis=2)
            truth["images"][camera] = images
            if compress is None:
                group.create_dataset(camera, data=images, chunks=(1, 48, 64, 3))
            else:
                options = [cv2.IMWRITE_JPEG_QUALITY, 50]
                rows[camera] = [cv2.imencode(".jpg", i, options)[1] for i in images]
        if depth:
            data = np.zeros((frames, 48, 64), np.uint16)
            group.create_dataset("cam_high_depth", data=data)
        lengths = [[len(row) for row in rows[c]] for c in rows]
        for n, camera in enumerate(rows):
            # The recorder pads all cameras alike; compress_data.py one by one.
            longest = max(lengths[n]) if compress == "per camera" else np.max(lengths)
            padded = np.zeros((frames, longest), np.uint8)
            for t, row in enumerate(rows[camera]):
                padded[t, : len(row)] = row
            group.create_dataset(camera, data=padded, chunks=(1, longest))
        if compress:
            root.attrs["compress"] = True
        if compress == "global":
            # float32, the default type of h5py when the original wrote it
            root.create_dataset("compress_len", (len(rows), frames), "f4")
            root["compress_len"][...] = lengths
    return truth


def test_raw_comes_back_bit_for_bit(tmp_path):
    episode = make_episode()
    save_episode(tmp_path / "deep" / "episode_0.hdf5", episode)
    back = load_episode(tmp_path / "deep" / "episode_0.hdf5")
    for name in ("qpos", "qvel", "effort", "action", "env_state"):
        np.testing.assert_array_equal(getattr(back, name), getattr(episode, name))
        assert getattr(back, name).dtype == np.float32
    assert list(back.images) == ["top", "wrist"]
    for camera in back.images:
        np.testing.assert_array_equal(back.images[camera], episode.images[camera])
    assert (back.fps, back.sim, len(back)) == (30.0, True, 7)
    assert back.attributes == episode.attributes
    content = 2 * episode.images["top"].nbytes + 7 * 4 * (4 * 6 + 7)
    size = (tmp_path / "deep" / "episode_0.hdf5").stat().st_size
    assert content < size < content + 2**16  # the room claimed in advance is given back
    kinds = [type(back.attributes[k]) for k in ("task", "seed", "success")]
    assert kinds == [str, int, bool]


@pytest.mark.slow
@given(
    frames=st.integers(1, 4),
    state=st.integers(1, 9),
    action=st.integers(1, 9),
    env=st.none() | st.integers(1, 3),
    base=st.booleans(),
    fps=st.floats(0.5, 1000),
    text=st.text(
        st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1
    ),
    number=st.integers(-(2**63), 2**63 - 1),
)
@settings(max_examples=25, deadline=None)
def test_any_shape_comes_back(
    tmp_path_factory, frames, state, action, env, base, fps, text, number
):
    path = tmp_path_factory.mktemp("shapes") / "episode_0.hdf5"

    def numbers(width: int) -> np.ndarray:
        return RNG.normal(size=(frames, width)).astype(np.float32)

    episode = Episode(numbers(state), numbers(state), numbers(state), numbers(action))
    episode.fps = fps
    episode.env_state = numbers(env) if env else None
    episode.base_action = numbers(2) if base else None
    episode.attributes = {"text": text, "number": number}
    save_episode(path, episode)
    back = load_episode(path)
    for name in ("qpos", "action", "env_state", "base_action"):
        a, b = getattr(back, name), getattr(episode, name)
        assert (a is None) == (b is None)
        if b is not None:
            np.testing.assert_array_equal(a, b)
    assert back.fps == fps
    assert back.attributes == episode.attributes


def test_chosen_cameras_and_none(tmp_path):
    save_episode(tmp_path / "e.hdf5", make_episode())
    one = load_episode(tmp_path / "e.hdf5", cameras=["wrist"])
    assert list(one.images) == ["wrist"]
    assert load_episode(tmp_path / "e.hdf5", images=False).images == {}
    with pytest.raises(EpisodeError, match=r"e\.hdf5.*'front' is missing.*top, wrist"):
        load_episode(tmp_path / "e.hdf5", cameras=["front"])


def test_numeric_order_without_hidden_files(tmp_path):
    for i in (10, 2, 1, 0):
        episode_path(tmp_path, i).touch()
    (tmp_path / ".episode_3.hdf5.1.tmp").touch()
    (tmp_path / ".episode_4.hdf5").touch()
    (tmp_path / "notes.txt").touch()
    assert list_episodes(tmp_path) == [episode_path(tmp_path, i) for i in (0, 1, 2, 10)]
    assert list_episodes(tmp_path / "nowhere") == []


@pytest.mark.parametrize("compression", ["raw", "jpeg"])
def test_the_originals_loader_reads_ours(tmp_path, compression):
    episode = make_episode()
    path = tmp_path / "episode_0.hdf5"
    save_episode(path, episode, compression=compression, quality=95)
    seen = originals_loader(path, ["top", "wrist"], start=3)
    assert seen["sim"]
    assert seen["length"] == 7
    for name in ("qpos", "qvel", "effort"):
        np.testing.assert_array_equal(seen[name], getattr(episode, name)[3])
    np.testing.assert_array_equal(seen["action"], episode.action[2:])
    for camera in ("top", "wrist"):
        difference = seen["images"][camera].astype(int) - episode.images[camera][3]
        assert np.abs(difference).mean() < (3 if compression == "jpeg" else 1e-9)
    with h5py.File(path) as root:
        dataset = root["observations/images/top"]
        if compression == "raw":
            assert dataset.chunks == (1, 24, 32, 3)
        else:
            lengths = root["compress_len"]
            assert (lengths.shape, lengths.dtype) == ((2, 7), np.float32)
            row = dataset[4]
            assert not row[int(lengths[0, 4]) :].any()
            assert row[: int(lengths[0, 4])][-2:].tobytes() == b"\xff\xd9"
    assert "compress" not in load_episode(path).attributes


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("compress", [None, "global", "per camera"])
def test_reads_the_originals_files(tmp_path, dtype, compress):
    path = tmp_path / "episode_0.hdf5"
    truth = write_original(path, dtype=dtype, compress=compress)
    episode = load_episode(path)
    for name in ("qpos", "qvel", "effort", "action"):
        np.testing.assert_allclose(getattr(episode, name), truth[name], rtol=1e-6)
        assert getattr(episode, name).dtype == np.float32
    assert (episode.fps, episode.sim) == (50.0, False)
    for camera, images in truth["images"].items():
        assert episode.images[camera].shape == images.shape
        difference = episode.images[camera].astype(int) - images
        assert np.abs(difference).mean() < (0.1 if compress is None else 6)


def test_reads_mobile_aloha_oddities(tmp_path):
    path = tmp_path / "episode_0.hdf5"
    truth = write_original(path, sim=None, effort=False, base=True, depth=True)
    episode = load_episode(path)
    assert episode.sim is False
    assert not episode.effort.any()
    assert episode.effort.shape == (5, 14)
    np.testing.assert_allclose(episode.base_action, truth["base"], rtol=1e-6)
    assert list(episode.images) == ["cam_high", "cam_left_wrist"]  # no depth


def put(root: h5py.File, key: str, value) -> None:
    del root[key]
    root[key] = value


def make_empty(root: h5py.File) -> None:
    for key in ("action", "observations/qpos", "observations/qvel"):
        put(root, key, np.zeros((0, 14)))
    del root["observations/effort"], root["observations/images"]


def cut_jpeg(root: h5py.File) -> None:
    images = root["observations/images/cam_high"]
    images[2, images.shape[1] // 2 :] = 0


IMAGES = "observations/images/cam_high"


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda r: r.pop("observations/qpos"), "dataset /observations/qpos is missing"),
        (
            lambda r: put(r, "action", np.zeros(5)),
            r"/action has shape \(5,\), expected \(frames, numbers\)",
        ),
        (
            lambda r: r["observations/qpos"].__setitem__((3, 1), np.nan),
            r"/observations/qpos has a NaN or infinite value at frame 3",
        ),
        (
            lambda r: put(
                r, "action", np.full((5, 14), 1e300)
            ),  # too large for float32
            r"/action has a NaN or infinite value at frame 0",
        ),
        (
            lambda r: put(r, "action", np.zeros((4, 14))),
            r"/observations/qpos has 5 frames, /action has 4",
        ),
        (
            lambda r: put(r, "action", np.array([b"left", b"right"])),
            r"/action holds \|S5, expected floating-point numbers",
        ),
        (
            lambda r: put(r, IMAGES, np.zeros((5, 4, 4, 3), np.float32)),
            r"images/cam_high holds float32 of shape \(5, 4, 4, 3\)",
        ),
        (
            lambda r: put(r, IMAGES, np.zeros((3, 4, 4, 3), np.uint8)),
            r"images/cam_high has 3 frames, /action has 5",
        ),
        (
            lambda r: put(r, "observations/images", np.zeros((5, 4, 4, 3), np.uint8)),
            r"/observations/images is a dataset, expec",
        ),
        (cut_jpeg, r"frame 2 of camera 'cam_high' is not a whole JPEG image"),
        (make_empty, r"no frames"),
        *(
            (lambda r, rate=rate: r.attrs.update(fps=rate), message)
            for rate, message in (
                (0.0, r"fps is 0\.0"),
                ("fast", "fps is 'fast', expected a positive"),
                (
                    np.array([30.0, 60.0]),
                    r"'fps' is array\(\[30., 60.\]\), expected a single",
                ),
                (h5py.Empty("f4"), "'fps' is Empty.*, expected a single"),
                (True, "fps is True"),
                (-3.0, "fps is -3.0"),
                ("nan", "fps is 'nan'"),
            )
        ),
    ],
)
def test_faults_are_named(tmp_path, harm, message):
    path = tmp_path / "episode_8.hdf5"
    write_original(path, compress="global" if harm is cut_jpeg else None)
    load_episode(path)  # whole before it is broken
    with h5py.File(path, "r+") as root:
        harm(root)
    with pytest.raises(EpisodeError, match=rf"episode_8\.hdf5: .*{message}") as caught:
        load_episode(path)
    assert "\n" not in str(caught.value)


def test_truncated_foreign_and_absent_files(tmp_path):
    path = tmp_path / "episode_8.hdf5"
    write_original(path)
    whole = path.read_bytes()
    for part in (0.99, 0.5, 0.1):
        path.write_bytes(whole[: int(len(whole) * part)])
        with pytest.raises(EpisodeError, match=r"episode_8\.hdf5: truncated file"):
            load_episode(path)
    for content in (b"", b"This is a text file.\n" * 50, bytes(5000)):
        path.write_bytes(content)
        with pytest.raises(EpisodeError, match=r"episode_8\.hdf5: not an HDF5 file"):
            load_episode(path)
    with pytest.raises(EpisodeError, match="no such file"):
        load_episode(tmp_path / "episode_9.hdf5")


def harm(path: Path, key: str) -> None:
    """Makes the object at `key` one that cannot be opened."""
    with h5py.File(path, "r") as root:
        address = h5py.h5o.get_info(root[key].id).addr
    content = bytearray(path.read_bytes())
    content[address : address + 4] = b"\xff" * 4  # its header's version and size
    path.write_bytes(content)


@pytest.mark.parametrize(
    "key",
    [
        *("observations/images", "observations/images/cam_high", "action"),
        *("observations/effort", "observations/qvel", "base_action", "observations"),
        "observations/env_state",
    ],
)
def test_what_is_damaged_is_not_taken_for_absent(tmp_path, key):
    path = tmp_path / "episode_3.hdf5"
    write_original(path, base=True)
    with h5py.File(path, "r+") as root:
        root["observations/env_state"] = np.zeros((5, 2))
    assert load_episode(path).env_state is not None
    harm(path, key)
    for read in (load_episode, shape_of):
        with pytest.raises(EpisodeError, match=rf"episode_3\.hdf5: /{key}.*is damaged"):
            read(path)


@pytest.mark.parametrize("sign", [b"TREE", b"HEAP", b"SNOD"])
def test_damage_of_a_list_of_cameras_is_named(tmp_path, sign):
    path = tmp_path / "episode_3.hdf5"
    with h5py.File(path, "w") as root:
        for key in ("action", "observations/qpos"):
            root[key] = np.zeros((2, 3))
        group = root.create_group("observations/images")
        group["top"] = np.zeros((2, 4, 4, 3), np.uint8)
    content = path.read_bytes()
    last = content.rfind(sign)  # the group that was made last
    path.write_bytes(content[:last] + b"none" + content[last + 4 :])
    for read in (load_episode, shape_of):
        with pytest.raises(EpisodeError, match="/observations/images is damaged"):
            read(path)


@pytest.mark.parametrize("key", ["observations/images/cam_high", "action"])
def test_content_that_cannot_be_read_is_named(tmp_path, key):
    path = tmp_path / "episode_3.hdf5"
    write_original(path)
    with h5py.File(path, "r+") as root:
        content = root[key][()]
        del root[key]
        root.create_dataset(
            key, data=content, chunks=(1, *content.shape[1:]), compression="gzip"
        )
        place = root[key].id.get_chunk_info(2).byte_offset
    damaged = bytearray(path.read_bytes())
    damaged[place : place + 8] = b"\xff" * 8
    path.write_bytes(damaged)
    with pytest.raises(EpisodeError, match=rf"episode_3\.hdf5: /{key} is damaged"):
        load_episode(path)


def test_velocities_and_efforts_are_optional(tmp_path):
    path = tmp_path / "e.hdf5"
    truth = write_original(path, effort=False)
    with h5py.File(path, "r+") as root:
        del root["observations/qvel"]
        root.attrs["fps"] = 20.0
    episode = load_episode(path)
    expected = np.gradient(truth["qpos"], axis=0) * 20
    np.testing.assert_allclose(episode.qvel, expected, rtol=1e-3, atol=1e-4)
    np.testing.assert_array_equal(episode.effort, np.zeros((5, 14)))


def test_irrelevant_attributes_are_no_error(tmp_path):
    path, again = tmp_path / "e.hdf5", tmp_path / "again.hdf5"
    truth = write_original(path)
    odd = np.zeros((), np.dtype([("a", "f4"), ("b", "S3")]))
    with h5py.File(path, "r+") as root:
        root.attrs["notes"] = "long " * 200_000
        root.attrs["nanoseconds"] = np.uint64(2**64 - 1)
        root.attrs["matrix"] = np.eye(4)
        root.attrs["nothing"] = h5py.Empty("f4")
        root.attrs["bytes"] = np.bytes_(b"a\xff\0b")
        root.attrs["compound"] = odd
        root.attrs["reference"] = root["action"].ref
        root.attrs["opaque"] = np.void(b"abc")
        root.attrs["one"] = np.array([7])
    episode = load_episode(path)
    np.testing.assert_allclose(episode.action, truth["action"], rtol=1e-6)
    expected = {"notes": "long " * 200_000, "nanoseconds": 2**64 - 1, "one": 7}
    expected |= {"opaque": "abc", "bytes": "a\ufffd\ufffdb"}
    assert episode.attributes == expected
    save_episode(again, episode)  # and nothing of that is lost
    assert load_episode(again).attributes == expected


@pytest.mark.parametrize(
    ("fps", "expected"),
    [("30", 30.0), (np.array([30.0]), 30.0), (np.bytes_(b"25.5"), 25.5), (60, 60.0)],
)
def test_a_rate_however_it_is_written(tmp_path, fps, expected):
    path = tmp_path / "e.hdf5"
    write_original(path)
    with h5py.File(path, "r+") as root:
        root.attrs["fps"] = fps
        root.attrs["sim"] = "False"
    episode = load_episode(path)
    assert (episode.fps, episode.sim) == (expected, False)


def test_flags_and_rates_as_writers_store_them():
    for value in (True, 1, np.True_, "True", "yes", "1"):
        assert is_true(value)
    for value in (False, 0, 0.0, np.False_, "False", " no ", "0", ""):
        assert not is_true(value)
    for value in (30, 30.0, "30", " 30.0 ", [30], np.array([[30.0]]), b"30"):
        assert rate_of(value) == 30.0
    for value in (None, True, "", [], [30, 30], {"fps": 30}, "30 Hz"):
        assert np.isnan(rate_of(value))


def test_the_order_of_colours_is_asked_for_where_nothing_says_it(tmp_path):
    path = tmp_path / "e.hdf5"
    truth = write_original(path, compress="per camera")  # red and blue exchanged
    images = truth["images"]["cam_high"].astype(int)

    def mean_error(found: np.ndarray) -> float:
        return float(np.abs(found.astype(int) - images).mean())

    assert mean_error(load_episode(path).images["cam_high"]) < 6
    with h5py.File(path, "r+") as root:
        del root.attrs["compress"]
    with pytest.raises(EpisodeError, match=r"'cam_high' .* --colours rgb .or bgr"):
        load_episode(path)
    load_episode(path, images=False)
    assert mean_error(load_episode(path, colours="bgr").images["cam_high"]) < 6
    swapped = load_episode(path, colours="rgb").images["cam_high"]
    assert mean_error(swapped[..., ::-1]) < 6
    assert mean_error(swapped) > 40
    write_original(path)
    raw = load_episode(path).images["cam_high"]
    for colours in ("auto", "rgb"):
        found = load_episode(path, colours=colours).images["cam_high"]
        np.testing.assert_array_equal(found, raw)
    found = load_episode(path, colours="bgr").images["cam_high"]
    np.testing.assert_array_equal(found, raw[..., ::-1])


def test_files_of_other_endings_are_named(tmp_path):
    with pytest.raises(UserError, match=r"has no \*\.hdf5 episodes"):
        find_episodes(tmp_path)
    with pytest.raises(UserError, match="nowhere is not a folder"):
        find_episodes(tmp_path / "nowhere")
    write_original(tmp_path / "episode_0.hdf5")
    assert find_episodes(tmp_path) == [tmp_path / "episode_0.hdf5"]
    for name in ("episode_1.HDF5", "episode_2.h5"):
        write_original(tmp_path / name)
    (tmp_path / ".hidden.h5").touch()
    assert [path.name for path in misnamed_files(tmp_path)] == [
        "episode_1.HDF5",
        "episode_2.h5",
    ]
    named = "has episode_1.HDF5, episode_2.h5, which would not be read"
    for call in (find_episodes, kind_of, Demonstrations.load, episodes_of):
        with pytest.raises(UserError, match=named):
            call(tmp_path)
    (tmp_path / "episode_0.hdf5").unlink()
    with pytest.raises(UserError, match=named):
        kind_of(tmp_path)


@pytest.mark.slow
@given(st.integers(0, 2**31))
@example(83)  # a ValueError in h5py
@settings(max_examples=60, deadline=None)
def test_damage_never_escapes_as_another_error(tmp_path_factory, seed):
    folder = tmp_path_factory.getbasetemp()
    source, path = folder / "whole.hdf5", folder / "damaged.hdf5"
    if not source.exists():
        write_original(source)
    rng = np.random.default_rng(seed)
    content = bytearray(source.read_bytes())
    for _ in range(20):  # in the first part are the headers
        content[rng.integers(0, 6000)] = rng.integers(0, 256)
    path.write_bytes(content)
    # Any other error, a warning or a crash fails here.
    with contextlib.suppress(EpisodeError):
        load_episode(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"qpos": np.full((7, 6), np.nan)}, "NaN"),
        ({"qvel": np.zeros((7, 5))}, r"qvel has shape \(7, 5\)"),
        ({"action": np.zeros((6, 6))}, "7 frames, /action has 6"),
        ({"images": {"top": np.zeros((7, 4, 4, 3))}}, "float64"),
        ({"images": {"a/b": np.zeros((7, 4, 4, 3), np.uint8)}}, "no name"),
        ({"images": {"top": np.zeros((7, 0, 4, 3), np.uint8)}}, "empty images"),
        ({"fps": float("nan")}, "fps"),
        ({"attributes": {"sim": True}}, "reserved"),
        ({"attributes": {"list": [1]}}, "is a list"),
        ({"attributes": {"seed": 2**64}}, "too large for 64 bits"),
        ({"attributes": {"task": "a\0b"}}, "character that HDF5 cannot hold"),
        ({"attributes": {"task": "a\ud800b"}}, "character that HDF5 cannot hold"),
    ],
)
def test_bad_content_is_not_written(tmp_path, change, message):
    episode = make_episode()
    for name, value in change.items():
        setattr(episode, name, value)
    with pytest.raises(EpisodeError, match=message):
        save_episode(tmp_path / "e.hdf5", episode)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"compression": "zip"}, "'zip' is unknown"),
        ({"compression": "jpeg", "quality": 101}, "quality is 101"),
    ],
)
def test_bad_options(tmp_path, options, message):
    with pytest.raises(EpisodeError, match=message):
        save_episode(tmp_path / "e.hdf5", make_episode(), **options)
    assert list(tmp_path.iterdir()) == []


CHILD = """
import sys, resource
import numpy as np
from act_minimal.episodes import Episode, EpisodeError
from act_minimal.episodes import save_episode, save_next_episode
path, mode = sys.argv[1:]
x = np.ones((200, 6), np.float32)
images = {"top": np.random.default_rng(0).integers(0, 255, (200, 96, 128, 3), np.uint8)}
episode = Episode(x, x, x, x, images)
if mode == "full":
    resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, 500_000))
if mode == "loop":
    save_next_episode(path, episode)
    print("ready", flush=True)
    while True:
        save_next_episode(path, episode)
try:
    save_episode(path, episode)
except EpisodeError as error:
    print(error)
    sys.exit(1)
"""


@pytest.mark.slow
def test_kill_at_any_moment_leaves_whole_files(tmp_path):
    for delay in (0.013, 0.031):
        kill("-c", CHILD, tmp_path, "loop", delay=delay)
        paths = list_episodes(tmp_path)
        assert paths
        assert all(len(load_episode(path)) == 200 for path in paths)


def test_an_episode_is_never_overwritten(tmp_path):
    path = episode_path(tmp_path, 0)
    save_episode(path, make_episode())
    before = path.read_bytes()
    words = r"episode_0\.hdf5 is there already, and is n"
    with pytest.raises(EpisodeError, match=words):
        save_episode(path, make_episode())
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_the_next_number_is_the_highest_and_one(tmp_path):
    assert next_episode(tmp_path / "nowhere") == 0
    for i in (0, 2, 11):
        save_episode(episode_path(tmp_path, i), make_episode())
    save_episode(tmp_path / "zebra_40.hdf5", make_episode())  # none of ours
    assert next_episode(tmp_path) == 12
    assert save_next_episode(tmp_path, make_episode()) == episode_path(tmp_path, 12)


def test_a_number_that_somebody_takes_meanwhile_is_passed_over(tmp_path, monkeypatch):
    real, taken = os.link, []

    def link(source, target):
        if not taken:  # at the last moment another recorder comes first
            taken.append(target)
            Path(target).write_text("theirs")
        real(source, target)

    monkeypatch.setattr(os, "link", link)
    path = save_next_episode(tmp_path, make_episode())
    assert path == episode_path(tmp_path, 1)
    assert len(load_episode(path)) == 7
    assert episode_path(tmp_path, 0).read_text() == "theirs"
    assert len(list(tmp_path.iterdir())) == 2


def test_nothing_is_overwritten_where_files_cannot_be_linked(tmp_path, monkeypatch):
    def link(source, target):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", link)
    save_episode(episode_path(tmp_path, 0), make_episode())
    with pytest.raises(EpisodeError, match="is there already"):
        save_episode(episode_path(tmp_path, 0), make_episode())
    assert [p.name for p in tmp_path.iterdir()] == ["episode_0.hdf5"]


@pytest.mark.slow
def test_full_disk_is_one_sentence_and_no_file(tmp_path):
    child = python("-c", CHILD, episode_path(tmp_path, 0), "full")
    assert child.returncode == 1, child.stderr
    assert child.stdout.count("\n") == 1
    words = "episode_0.hdf5 could not be written: no space left on the disk"
    assert words in child.stdout
    assert child.stderr == ""
    assert list(tmp_path.iterdir()) == []
