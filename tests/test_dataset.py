"""Windows against a plain loop; the image cache; statistics; augmentation."""

import itertools
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from act_minimal import images as image_cache
from act_minimal.dataset import (
    Demonstrations,
    Statistics,
    Windows,
    indices_for_step,
)
from act_minimal.episodes import Episode, episode_path, save_episode
from act_minimal.images import (
    Resizing,
    augment,
    augment_draws,
    recolour_images,
    resize,
    shift_images,
)
from act_minimal.settings import Augmentation
from act_minimal.support.errors import UserError
from act_minimal.support.hdf5_files import EpisodeError

from .made_up import random_episode

pytestmark = pytest.mark.mostly_quick

LENGTHS = (9, 5, 7, 12)
CAMERAS = ("top", "wrist")


def make_episode(frames: int, seed: int, **changes) -> Episode:
    return random_episode(
        frames, seed, cameras=dict.fromkeys(CAMERAS, (6, 8)), **changes
    )


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("demos")
    for i, frames in enumerate(LENGTHS):
        save_episode(episode_path(folder, i), make_episode(frames, i))
    return folder


@pytest.fixture
def folder(source, tmp_path) -> Path:
    """A copy to spoil."""
    copy = tmp_path / "demos"
    shutil.copytree(source, copy, ignore=shutil.ignore_patterns(".cache"))
    return copy


def expected_windows(ids, k: int, pad: str) -> list[dict[str, np.ndarray]]:
    """One sample after the other, from the episodes themselves."""
    samples = []
    for i in ids:
        e = make_episode(LENGTHS[i], int(i))
        for t in range(len(e)):
            rest = e.action[t : t + k]
            filling = e.action[-1] if pad == "last" else np.zeros(6, np.float32)
            missing = k - len(rest)
            sample = {
                "qpos": e.qpos[t],
                "env_state": e.env_state[t],
                "action": np.concatenate([rest, np.tile(filling, (missing, 1))]),
                "is_pad": np.arange(k) >= len(rest),
            }
            for camera in CAMERAS:
                sample[f"images/{camera}"] = e.images[camera][t]
            samples.append(sample)
    return samples


@pytest.mark.parametrize("pad", ["last", "zero"])
@pytest.mark.parametrize("k", [1, 4, 12])
def test_windows_equal_a_plain_loop(source, k, pad):
    demos = Demonstrations.load(source, cameras=CAMERAS)
    ids = [3, 0, 2]
    windows = Windows(demos, ids, k, pad)
    expected = expected_windows(ids, k, pad)
    assert len(windows) == len(expected) == 12 + 9 + 7
    indices = np.random.default_rng(0).permutation(len(windows))
    batch = windows.batch(indices)
    assert set(batch) == set(expected[0])
    assert all(isinstance(value, torch.Tensor) for value in batch.values())
    for key, value in batch.items():
        truth = np.stack([expected[i][key] for i in indices])
        np.testing.assert_array_equal(value.numpy(), truth)
        assert value.numpy().dtype == truth.dtype


def test_a_batch_is_a_copy(source):
    demos = Demonstrations.load(source, cameras=CAMERAS)
    windows = Windows(demos, [0], 4)
    for value in windows.batch([0, 1]).values():
        value.zero_()
    assert windows.batch([0])["qpos"].any()
    assert windows.batch([0])["images/top"].any()


def test_optional_parts(source):
    demos = Demonstrations.load(source, use_env_state=False, limit=2)
    assert (len(demos), demos.cameras, demos.fps) == (2, (), 30.0)
    assert set(Windows(demos, [1], 2).batch([0])) == {"qpos", "action", "is_pad"}
    assert not (source / ".cache" / "nothing").exists()
    order = Demonstrations.load(source, cameras=["wrist", "top"]).cameras
    assert order == ("wrist", "top")


def test_bad_windows(source):
    demos = Demonstrations.load(source)
    with pytest.raises(UserError, match="chunk size is 13, expected 1 to 12"):
        Windows(demos, range(4), 13)
    # Held-out episodes may be shorter than the chunk, as long as some episode is not.
    short = Windows(demos, [1, 2], 8)
    assert short.batch([0])["is_pad"][0].tolist()[-1]
    with pytest.raises(UserError, match="chunk size is 0"):
        Windows(demos, [1, 2], 0)
    with pytest.raises(UserError, match="no episodes"):
        Windows(demos, [], 1)
    with pytest.raises(UserError, match="'edge' is unknown"):
        Windows(demos, [1], 1, pad="edge")


def test_split_by_episode(source):
    demos = Demonstrations.load(source)
    for seed in range(5):
        train, val = demos.split(0.25, seed)
        assert len(val) == 1
        assert sorted([*train, *val]) == [0, 1, 2, 3]
    assert [len(x) for x in demos.split(0, 0)] == [4, 0]
    assert [len(x) for x in demos.split(0.01, 0)] == [3, 1]
    assert [len(x) for x in demos.split(0.99, 0)] == [1, 3]
    np.testing.assert_array_equal(demos.split(0.5, 1)[0], demos.split(0.5, 1)[0])
    assert len({tuple(demos.split(0.5, s)[0]) for s in range(20)}) > 1
    with pytest.raises(UserError, match="fraction is 1"):
        demos.split(1, 0)
    with pytest.raises(UserError, match="has one episode"):
        Demonstrations.load(source, limit=1).split(0.1, 0)


def test_statistics_of_the_training_episodes_alone(source):
    demos = Demonstrations.load(source)
    windows = Windows(demos, [0, 2], 4)
    statistics = windows.statistics(delta=True)
    episodes = [make_episode(LENGTHS[i], i) for i in (0, 2)]
    for key in ("qpos", "action", "env_state"):
        rows = np.concatenate([getattr(e, key) for e in episodes])
        np.testing.assert_allclose(statistics.mean[key], rows.mean(0), atol=1e-6)
        np.testing.assert_allclose(statistics.std[key], rows.std(0), rtol=1e-5)
    rows = []
    for e in episodes:
        times = itertools.product(range(len(e)), range(4))
        rows += [e.action[t + i] - e.qpos[t] for t, i in times if t + i < len(e)]
    mean, std = (x["action_delta"] for x in (statistics.mean, statistics.std))
    np.testing.assert_allclose(mean, np.mean(rows, 0), atol=1e-6)
    np.testing.assert_allclose(std, np.std(rows, 0), 1e-5)
    assert "action_delta" not in windows.statistics().mean


def test_floor_of_the_deviation_and_large_means():
    rows = np.zeros((1000, 3), np.float32)
    rows[:, 1] = 5.0 + 1e-4 * np.random.default_rng(0).normal(size=1000)
    rows[:, 2] = 1000 + np.arange(1000) / 1000  # float32 sums would lose the digits
    statistics = Statistics.compute({"qpos": rows})
    np.testing.assert_array_equal(statistics.std["qpos"][:2], np.float32(1e-2))
    np.testing.assert_allclose(statistics.std["qpos"][2], 1 / 12**0.5, rtol=1e-3)
    assert Statistics.compute({"qpos": rows}, std_floor=2).std["qpos"].min() == 2


def test_statistics_survive_safetensors():
    from safetensors.numpy import load, save

    statistics = Statistics.compute({"qpos": np.eye(3), "action": np.ones((2, 4))})
    arrays = {f"{k}.mean": mean for k, mean in statistics.mean.items()}
    arrays |= {f"{k}.std": std for k, std in statistics.std.items()}
    back = Statistics.from_arrays(load(save(arrays)))
    for key in ("qpos", "action"):
        np.testing.assert_array_equal(back.mean[key], statistics.mean[key])
        np.testing.assert_array_equal(back.std[key], statistics.std[key])
    with pytest.raises(UserError, match="qpos lack"):
        Statistics.from_arrays({"qpos.mean": np.zeros(3)})


@pytest.mark.slow
@given(st.integers(1, 50), st.integers(1, 120), st.integers(0, 1000), st.integers(0, 9))
@settings(max_examples=60, deadline=None)
def test_every_window_once_an_epoch(n, batch, first, seed):
    steps = range(first, first + 2 * n // batch + 3)
    stream = np.concatenate([indices_for_step(n, batch, s, seed) for s in steps])
    skip = -first * batch % n  # to the next beginning of an epoch
    for start in range(skip, len(stream) - n + 1, n):
        assert sorted(stream[start : start + n]) == list(range(n))


def test_the_order_depends_on_seed_and_epoch():
    a = indices_for_step(100, 100, 0, 0)
    assert a.tolist() == indices_for_step(100, 100, 0, 0).tolist()
    assert a.tolist() != indices_for_step(100, 100, 1, 0).tolist()
    assert a.tolist() != indices_for_step(100, 100, 0, 1).tolist()
    small = np.concatenate([indices_for_step(100, 10, s, 0) for s in range(10)])
    assert small.tolist() == a.tolist()  # the batch size only cuts the stream
    a[:] = 0  # and the caller owns what it got
    assert indices_for_step(100, 100, 0, 0).any()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fps": 50.0}, r"episode_2\.hdf5: 50 frames a second, 30 in episode_0"),
        ({"action": np.zeros((7, 5), np.float32)}, r"episode_2\.hdf5: action is 5 num"),
        ({"env_state": None}, r"episode_2\.hdf5: env_state is 0 numbers wide, 7 in"),
        (
            {"images": {c: np.zeros((7, 6, 9, 3), np.uint8) for c in CAMERAS}},
            r"episode_2\.hdf5: images of camera 'top' have shape \(6, 9, 3\)",
        ),
        (
            {"images": {"wrist": np.zeros((7, 6, 8, 3), np.uint8)}},
            r"episode_2\.hdf5: camera 'top' is missing; the file has: wrist",
        ),
    ],
)
def test_a_file_that_differs_is_named(folder, changes, message):
    episode_path(folder, 2).unlink()
    save_episode(episode_path(folder, 2), make_episode(7, 2, **changes))
    with pytest.raises(EpisodeError, match=message):
        Demonstrations.load(folder, cameras=CAMERAS)
    assert not list((folder / ".cache").glob("*/top.npy"))


def test_missing_and_broken_folders(folder, tmp_path):
    with pytest.raises(UserError, match="nowhere is not a folder"):
        Demonstrations.load(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"empty has no \*.hdf5 episodes"):
        Demonstrations.load(tmp_path / "empty")
    with pytest.raises(UserError, match=r"9 demonstrations wanted, .* has 4"):
        Demonstrations.load(folder, limit=9)
    path = episode_path(folder, 1)
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(EpisodeError, match=r"episode_1\.hdf5: truncated"):
        Demonstrations.load(folder)


def cache_files(folder: Path) -> list[str]:
    return sorted(p.name for p in (folder / ".cache").glob("*/*"))


def test_the_cache_is_made_once_and_is_memory_mapped(folder, monkeypatch):
    first = Demonstrations.load(folder, cameras=CAMERAS)
    assert cache_files(folder) == ["files.json", "top.npy", "wrist.npy"]
    monkeypatch.setattr(image_cache, "load_episode", None)  # must not be called again
    second = Demonstrations.load(folder, cameras=CAMERAS)
    for camera in CAMERAS:
        np.testing.assert_array_equal(first.images[camera], second.images[camera])
        assert isinstance(second.images[camera].base, np.memmap)
        assert not second.images[camera].flags.writeable
    fewer = Demonstrations.load(folder, cameras=["wrist"], limit=2)
    assert fewer.images["wrist"].shape == (14, 6, 8, 3)
    np.testing.assert_array_equal(fewer.images["wrist"], first.images["wrist"][:14])


@pytest.mark.parametrize("mode", ["pad", "stretch"])
def test_images_of_any_size_are_brought_to_one(folder, mode):
    """Another size in each episode: each is resized by itself, once."""
    random = np.random.default_rng(3)
    wanted = {camera: [] for camera in CAMERAS}
    for i, frames in enumerate(LENGTHS):
        images = {}
        for camera in CAMERAS:
            shape = (frames, 20 + i, 33 if camera == "top" else 24, 3)
            images[camera] = random.integers(0, 256, shape).astype(np.uint8)
            wanted[camera] += [resize(x, (16, 24), mode) for x in images[camera]]
        episode_path(folder, i).unlink(missing_ok=True)
        save_episode(episode_path(folder, i), make_episode(frames, i, images=images))
    words = r"resize brings all to one size, as in: --resize 96 128"
    with pytest.raises(EpisodeError, match=words):
        Demonstrations.load(folder, cameras=CAMERAS)
    wish = Resizing((16, 24), mode)
    demos = Demonstrations.load(folder, cameras=CAMERAS, resizing=wish)
    for camera in CAMERAS:
        np.testing.assert_array_equal(demos.images[camera], np.stack(wanted[camera]))
    recorded = {"top": (20, 33), "wrist": (20, 24)}
    assert demos.resizing == replace(wish, recorded=recorded)
    square = Resizing((32, 32), mode)
    other = Demonstrations.load(folder, cameras=CAMERAS, resizing=square)
    assert other.images["top"].shape[1:] == (32, 32, 3)  # not the other's cache
    again = Demonstrations.load(folder, cameras=CAMERAS, resizing=wish)
    np.testing.assert_array_equal(again.images["top"], demos.images["top"])


def test_the_cache_follows_the_files(folder):
    before = Demonstrations.load(folder, cameras=CAMERAS)
    episode_path(folder, 1).unlink()
    save_episode(episode_path(folder, 1), make_episode(5, 77))
    after = Demonstrations.load(folder, cameras=CAMERAS)
    expected = make_episode(5, 77).images["top"]
    np.testing.assert_array_equal(after.images["top"][9:14], expected)
    assert len(list((folder / ".cache").glob("images-*"))) == 1  # the stale one went
    # What was loaded before stays what it was.
    old = make_episode(5, 1).images["top"]
    np.testing.assert_array_equal(before.images["top"][9:14], old)
    save_episode(episode_path(folder, 4), make_episode(3, 4))
    assert len(Demonstrations.load(folder, cameras=CAMERAS).images["top"]) == 36


def test_the_cache_can_live_elsewhere(folder, tmp_path):
    demos = Demonstrations.load(folder, cameras=["top"], cache=tmp_path / "fast")
    assert demos.images["top"].shape == (33, 6, 8, 3)
    assert not (folder / ".cache").exists()
    assert list((tmp_path / "fast").glob("demos-*/images-*/top.npy"))
    other = tmp_path / "other" / "demos"  # of the same name: neither disturbs the other
    save_episode(episode_path(other, 0), make_episode(4, 9))
    Demonstrations.load(other, cameras=["top"], cache=tmp_path / "fast")
    assert len(list((tmp_path / "fast").glob("demos-*/images-*/top.npy"))) == 2


def test_a_damaged_listing_only_costs_time(folder):
    Demonstrations.load(folder, cameras=["top"])
    (listing,) = (folder / ".cache").glob("*/files.json")
    listing.write_text("[[")
    demos = Demonstrations.load(folder, cameras=["top"])
    expected = make_episode(9, 0).images["top"]
    np.testing.assert_array_equal(demos.images["top"][:9], expected)


def test_no_room_for_the_cache(folder, monkeypatch):
    usage = shutil.disk_usage(folder)._replace(free=1000)
    monkeypatch.setattr(image_cache.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(UserError, match=r"cache of 'top' needs .* GB .* GB left"):
        Demonstrations.load(folder, cameras=["top"])
    assert cache_files(folder) == ["files.json"]


CHILD = """
import sys, hashlib
from pathlib import Path
import numpy as np
from act_minimal.episodes import list_episodes
from act_minimal.images import cached_images  # without PyTorch: starts fast
folder = Path(sys.argv[1])
images = cached_images(
    list_episodes(folder), ("top", "wrist"), np.array([9, 5, 7, 12]), folder / ".cache"
)
print(hashlib.sha256(b"".join(i.tobytes() for i in images.values())).hexdigest())
"""


@pytest.mark.slow
def test_two_processes_make_the_cache_at_once(folder):
    command = [sys.executable, "-c", CHILD, str(folder)]
    pipe = {"stdout": subprocess.PIPE, "text": True}
    children = [subprocess.Popen(command, **pipe) for _ in range(2)]
    outputs = [child.communicate(timeout=600)[0] for child in children]
    assert all(child.returncode == 0 for child in children)
    assert outputs[0] == outputs[1] != ""
    assert cache_files(folder) == ["files.json", "top.npy", "wrist.npy"]


def random_images(b: int = 5, h: int = 11, w: int = 14) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (b, h, w, 3), generator=generator).to(torch.uint8)


def shifted_by_hand(image: np.ndarray, down: int, right: int) -> np.ndarray:
    h, w, _ = image.shape
    out = np.empty_like(image)
    for y in range(h):
        for x in range(w):
            row, column = min(max(y - down, 0), h - 1), min(max(x - right, 0), w - 1)
            out[y, x] = image[row, column]
    return out


def recoloured_by_hand(image: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """Brightness, then contrast, then saturation, one after the other."""
    grey = np.array([0.299, 0.587, 0.114])
    x = image.astype(np.float64) * factors[0]
    x = (x @ grey).mean() + (x - (x @ grey).mean()) * factors[1]
    luma = (x @ grey)[..., None]
    return np.clip(luma + (x - luma) * factors[2], 0, 255)


def test_shift_repeats_the_edge():
    images = random_images()
    shift = torch.tensor([[0, 0], [3, -2], [-3, 2], [1, 13], [-10, 0]])
    moved = shift_images(images, shift)
    for image, result, (down, right) in zip(
        images.numpy(), moved.numpy(), shift.tolist(), strict=True
    ):
        np.testing.assert_array_equal(result, shifted_by_hand(image, down, right))


def test_colours_follow_their_formula():
    images = random_images()
    generator = torch.Generator().manual_seed(1)
    factors = 0.5 + torch.rand(5, 3, generator=generator)
    results = recolour_images(images, factors).numpy().astype(float)
    for image, result, f in zip(images.numpy(), results, factors.numpy(), strict=True):
        assert np.abs(result - recoloured_by_hand(image, f)).max() < 0.51


@pytest.mark.parametrize(
    "strength",
    [Augmentation(4), Augmentation(0, 0.3, 0.2, 0.5), Augmentation(3, 0.9, 0.9, 0.9)],
)
def test_the_cpu_form_equals_the_device_form(strength):
    batch = {"qpos": torch.zeros(5, 6), "images/top": random_images()}
    batch["images/wrist"] = random_images().flip(2)  # not contiguous
    draws = augment_draws(5, 2, torch.Generator().manual_seed(2))
    result = augment(batch, draws, strength)
    assert result["qpos"] is batch["qpos"]
    for n, key in enumerate(("images/top", "images/wrist")):
        # What the documentation of the draws says, in floating point.
        unit = draws["shift"][:, n]
        shift = torch.floor(unit * (2 * strength.shift_px + 1)) - strength.shift_px
        amounts = [strength.brightness, strength.contrast, strength.saturation]
        factors = 1 + draws["colour"][:, n] * torch.tensor(amounts)
        expected = recolour_images(shift_images(batch[key], shift.long()), factors)
        difference = result[key].int() - expected.int()
        assert difference.abs().max() <= 1
        assert result[key].dtype == torch.uint8
        assert not torch.equal(result[key], batch[key])


def test_rows_of_the_global_batch_can_be_sliced():
    batch = {"images/top": random_images(6), "images/wrist": random_images(6)}
    draws = augment_draws(6, 2, torch.Generator().manual_seed(3))
    strength = Augmentation(2, 0.2, 0.2, 0.2)
    whole = augment(batch, draws, strength)
    assert not torch.equal(whole["images/top"], whole["images/wrist"])  # own draws
    for rows in (slice(0, 3), slice(3, 6)):
        parts = [{k: v[rows] for k, v in x.items()} for x in (batch, draws)]
        part = augment(*parts, strength)
        for key in batch:
            assert torch.equal(part[key], whole[key][rows])


def test_draws_cover_their_range_and_come_from_the_generator():
    draws = augment_draws(4000, 1, torch.Generator().manual_seed(4))
    again = augment_draws(4000, 1, torch.Generator().manual_seed(4))
    assert all(torch.equal(draws[k], again[k]) for k in draws)
    shifts = (draws["shift"] * 9).long() - 4
    counts = torch.bincount(shifts.flatten() + 4)
    assert len(counts) == 9
    assert counts.min() > 0.8 * 8000 / 9
    assert draws["colour"].min() < -0.99
    assert draws["colour"].max() > 0.99


def test_augmentation_that_is_off_or_absurd():
    batch = {"images/top": random_images()}
    draws = augment_draws(5, 1, torch.Generator().manual_seed(5))
    assert augment(batch, draws, Augmentation())["images/top"] is batch["images/top"]
    assert not Augmentation().enabled
    with pytest.raises(UserError, match="contrast is 2"):
        Augmentation(contrast=2)
    with pytest.raises(UserError, match="shift_px is -1"):
        Augmentation(shift_px=-1)


@pytest.mark.slow
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_augmentation_on_a_gpu():
    batch = {"images/top": random_images()}
    draws = augment_draws(5, 1, torch.Generator().manual_seed(6))
    strength = Augmentation(3, 0.3, 0.3, 0.3)
    there = augment({k: v.cuda() for k, v in batch.items()}, draws, strength)
    here = augment(batch, draws, strength)
    difference = there["images/top"].cpu().int() - here["images/top"].int()
    assert difference.abs().max() <= 1


def test_a_folder_that_is_no_cache_is_not_removed(folder):
    cache = folder / ".cache"
    stale = '[["episode_9.hdf5", 1, 1]]'
    kept = {
        "images-of-our-holidays": {"files.json": stale, "beach.npy": "x"},
        "images-0123456789abcdef": {"files.json": stale, "notes.txt": "mine"},
    }
    gone = cache / "images-fedcba9876543210"
    for name, content in (*kept.items(), (gone.name, {"files.json": stale})):
        (cache / name).mkdir(parents=True)
        for file, text in content.items():
            (cache / name / file).write_text(text)
    Demonstrations.load(folder, cameras=["top"])
    for name, content in kept.items():
        found = {p.name: p.read_text() for p in (cache / name).iterdir()}
        assert found == content
    assert not gone.exists()


def test_a_stale_cache_goes_wholly_or_not_at_all(folder, monkeypatch):
    """Half of it under its name would be taken for a cache, or stay for good."""
    cache = folder / ".cache"
    stale = cache / "images-fedcba9876543210"
    stale.mkdir(parents=True)
    (stale / "files.json").write_text('[["episode_9.hdf5", 1, 1]]')
    (stale / "top.npy").write_text("x")

    def ctrl_c(path, **_):
        (path / "files.json").unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", ctrl_c)
        with pytest.raises(KeyboardInterrupt):
            Demonstrations.load(folder, cameras=["top"])
    assert not stale.exists()
    Demonstrations.load(folder, cameras=["top"])
    assert [path.name[:7] for path in cache.iterdir()] == ["images-"]
