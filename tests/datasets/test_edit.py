"""Folders of episodes merged, split and repaired; and the `act data` commands."""

import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import tyro
from hypothesis import given, settings
from hypothesis import strategies as st

from act_minimal.command import data as data_cli
from act_minimal.dataset import Demonstrations
from act_minimal.datasets.edit import merge, part_counts, repair, split
from act_minimal.datasets.folders import check_alike, kind_of, unrecorded_in
from act_minimal.episodes import (
    Episode,
    episode_path,
    list_episodes,
    load_episode,
    save_episode,
)
from act_minimal.exchange.convert import convert
from act_minimal.support.errors import SettingError, UserError
from act_minimal.support.hdf5_files import EpisodeError

from ..programs import kill

pytestmark = pytest.mark.mostly_quick

SEVEN = np.ones((4, 7), np.float32)
PICTURES, WIDE = (np.zeros((4, 8, width, 3), np.uint8) for width in (12, 16))


def make(path: Path, number: int, *, frames: int = 4, jpeg: bool = False, **changes):
    """An episode that can be told from all others by its numbers."""
    rows = np.full((frames, 6), number, np.float32)
    images = {"top": np.full((frames, 8, 12, 3), number % 250, np.uint8)}
    episode = Episode(
        rows, 0 * rows, 0 * rows, rows, images, fps=30.0, attributes={"seed": number}
    )
    for name, value in changes.items():
        setattr(episode, name, value)
    save_episode(path, episode, compression="jpeg" if jpeg else "raw")


def make_folder(folder: Path, numbers: list[int], **changes) -> Path:
    for i, number in enumerate(numbers):
        make(episode_path(folder, i), number, **changes)
    return folder


def numbers_in(folder: Path) -> list[int]:
    """Which episodes a folder holds; its files are numbered from 0 without a gap."""
    paths = list_episodes(folder)
    assert paths == [episode_path(folder, i) for i in range(len(paths))]
    return [int(load_episode(path).attributes["seed"]) for path in paths]


@given(st.lists(st.integers(1, 4), min_size=2, max_size=4))
@settings(max_examples=10, deadline=None)
def test_merge_keeps_every_episode_in_order(tmp_path_factory, sizes):
    folder, start = tmp_path_factory.mktemp("merge"), 0
    for i, size in enumerate(sizes):
        make_folder(folder / f"{i}", list(range(start, start + size)))
        start += size
    sources = [folder / f"{i}" for i in range(len(sizes))]
    before = {path: path.read_bytes() for s in sources for path in list_episodes(s)}
    paths = merge(sources, folder / "out")
    assert numbers_in(folder / "out") == list(range(start))
    assert [path.read_bytes() for path in paths] == list(before.values())
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.parametrize("jpeg", [False, True])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fps": 25.0}, "frames a second: 25, but 30"),
        ({"action": SEVEN}, "numbers of action: 7, but 6"),
        ({"env_state": SEVEN}, "numbers of env_state: 7, but none"),
        ({"images": {}}, "cameras: none, but top 8x12"),
        ({"images": {"side": PICTURES}}, "cameras: side 8x12, but top 8x12"),
        ({"images": {"top": WIDE}}, "cameras: top 8x16, but top 8x12"),
    ],
)
def test_merge_refuses_what_is_not_alike_and_names_both(
    tmp_path, change, message, jpeg
):
    make_folder(tmp_path / "a", [0, 1])
    make(tmp_path / "b/episode_0.hdf5", 2)
    make(tmp_path / "b/episode_1.hdf5", 3, jpeg=jpeg, **change)
    with pytest.raises(EpisodeError, match=message) as caught:
        merge([tmp_path / "a", tmp_path / "b"], tmp_path / "out")
    assert str(tmp_path / "b/episode_1.hdf5") in str(caught.value)
    assert str(tmp_path / "a/episode_0.hdf5") in str(caught.value)
    assert "\n" not in str(caught.value)
    assert {path.name for path in tmp_path.iterdir()} == {"a", "b"}


def test_merge_refuses_odd_folders(tmp_path):
    a, out = make_folder(tmp_path / "a", [0]), tmp_path / "out"
    with pytest.raises(SettingError, match="1 folders to merge, expected at least 2"):
        merge([a], out)
    with pytest.raises(SettingError, match="a is to be merged 2 times"):
        merge([a, tmp_path / "a/../a"], out)
    with pytest.raises(UserError, match=r"no \*\.hdf5 episodes|is not a folder"):
        merge([a, tmp_path / "none"], out)
    (tmp_path / "b").mkdir()
    (tmp_path / "b/episode_0.hdf5").write_bytes(b"text")
    with pytest.raises(EpisodeError, match=r"b/episode_0\.hdf5: not an HDF5"):
        merge([a, tmp_path / "b"], out)
    (tmp_path / "set/meta").mkdir(parents=True)
    (tmp_path / "set/meta/info.json").write_text("{}")
    with pytest.raises(UserError, match="LeRobot dataset; make episodes of it first"):
        merge([a, tmp_path / "set"], out)
    make(tmp_path / "set/episode_0.hdf5", 0)
    with pytest.raises(UserError, match="expected one kind"):
        kind_of(tmp_path / "set")
    assert not out.exists()
    check_alike(list_episodes(a))


@given(st.integers(1, 200), st.lists(st.floats(0.01, 1.0), min_size=1, max_size=4))
@settings(max_examples=200, deadline=None)
def test_shares_are_as_near_as_whole_episodes_allow(total, weights):
    shares = [weight / max(1.0, sum(weights)) for weight in weights]
    parts = {f"part{i}": share for i, share in enumerate(shares)}
    try:
        counts = part_counts(parts, total, "demos")
    except SettingError:  # some part would be empty, or rounding asks for too much
        assert min(shares) * total < 1
        return
    assert sum(counts.values()) == round(sum(shares) * total) <= total
    for name, share in parts.items():
        assert abs(counts[name] - share * total) <= 1
        assert counts[name] >= 1


def test_split_draws_whole_episodes_once_each(tmp_path):
    source = make_folder(tmp_path / "a", list(range(10)))
    shares = {"train": 0.7, "val": 0.3}
    done = split(source, shares, tmp_path / "out", seed=1)
    train, val = (numbers_in(tmp_path / "out" / part) for part in ("train", "val"))
    assert (len(train), len(val)) == (7, 3)
    assert sorted(train + val) == list(range(10))
    assert (train, val) == (sorted(train), sorted(val))  # they keep their order
    assert {name: len(paths) for name, paths in done.items()} == {"train": 7, "val": 3}
    for seed in (1, 2):
        split(source, shares, tmp_path / f"{seed}", seed=seed)
        assert (numbers_in(tmp_path / f"{seed}/val") == val) == (seed == 1)
    split(source, {"first": 4, "then": 5}, tmp_path / "order", in_order=True)
    assert numbers_in(tmp_path / "order/first") == [0, 1, 2, 3]
    assert numbers_in(tmp_path / "order/then") == [4, 5, 6, 7, 8]
    assert numbers_in(source) == list(range(10))


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({}, "expected all shares"),
        ({"a": 0.5, "b": 2}, "expected all shares"),
        ({"a": 0.9, "b": 0.3}, "together at most 1"),
        ({"a": -0.5}, "expected each above 0"),
        ({"a": 3, "b": 2}, "demos has 4 episodes, the parts ask for a 3, b 2"),
        ({"a": 0.95, "b": 0.05}, "b 0; expected at least 1 each"),
        ({"a": 0}, "expected at least 1 each"),
        ({"../a": 2}, "no name for a folder"),
        ({"": 2}, "no name for a folder"),
    ],
)
def test_parts_that_cannot_be(parts, message):
    with pytest.raises(SettingError, match=message):
        part_counts(parts, 4, "demos")


def damage(folder: Path) -> None:
    """Six episodes, of which 1 is cut, 3 has a NaN and 4 another rate; 0 is missing."""
    make_folder(folder, [0, 1, 2, 3, 4, 5, 6])
    episode_path(folder, 0).unlink()
    whole = episode_path(folder, 1).read_bytes()
    episode_path(folder, 1).write_bytes(whole[: len(whole) // 2])
    with h5py.File(episode_path(folder, 3), "r+") as root:
        root["action"][2, 1] = np.nan
    episode_path(folder, 4).unlink()
    make(episode_path(folder, 4), 4, fps=10.0)


def test_repair_keeps_what_is_whole_and_moves_the_rest_aside(tmp_path):
    damage(tmp_path)
    before = {path.name: path.read_bytes() for path in list_episodes(tmp_path)}
    planned = repair(tmp_path, dry_run=True)
    assert {p.name: p.read_bytes() for p in list_episodes(tmp_path)} == before
    done = repair(tmp_path)
    assert done == planned
    assert numbers_in(tmp_path) == [2, 5, 6]
    assert done.kept == 3
    assert done.renamed == {
        "episode_2.hdf5": "episode_0.hdf5",
        "episode_5.hdf5": "episode_1.hdf5",
        "episode_6.hdf5": "episode_2.hdf5",
    }
    reasons = json.loads((tmp_path / "broken/reasons.json").read_text())
    assert reasons == done.dropped
    for name, words in {
        "episode_1.hdf5": "truncated file",
        "episode_3.hdf5": "/action has a NaN or infinite value at frame 2",
        "episode_4.hdf5": "frames a second: 10, but 30 in",
    }.items():
        assert words in reasons[name]
        assert (tmp_path / "broken" / name).read_bytes() == before[name]
    assert repair(tmp_path).dropped == {}
    assert len(Demonstrations.load(tmp_path)) == 3
    # A second repair does not overwrite what the first one moved aside.
    (tmp_path / "episode_1.hdf5").write_bytes(b"text")
    repair(tmp_path)
    assert numbers_in(tmp_path) == [2, 6]
    assert (tmp_path / "broken/episode_1-1.hdf5").read_bytes() == b"text"
    assert (tmp_path / "broken/episode_1.hdf5").read_bytes() == before["episode_1.hdf5"]
    reasons = json.loads((tmp_path / "broken/reasons.json").read_text())
    assert "not an HDF5" in reasons["episode_1-1.hdf5"]


def test_repair_renumbers_names_of_any_kind(tmp_path):
    names = ["b_7", "episode_0", "episode_1", "episode_20", "a_3", "episode_3"]
    for i, name in enumerate(names):
        make(tmp_path / f"{name}.hdf5", i)
    order = [names.index(path.stem) for path in list_episodes(tmp_path)]
    repair(tmp_path)
    assert numbers_in(tmp_path) == order
    assert not (tmp_path / "broken").exists()


def test_a_folder_of_broken_files_alone(tmp_path):
    for i in range(2):
        (tmp_path / f"episode_{i}.hdf5").write_bytes(b"text")
    assert repair(tmp_path).kept == 0
    assert len(list((tmp_path / "broken").glob("*.hdf5"))) == 2
    with pytest.raises(UserError, match=r"has no \*\.hdf5 episodes"):
        repair(tmp_path)


CHILD = """
import sys
from pathlib import Path
from act_minimal.datasets.edit import repair
real, moves = Path.rename, int(sys.argv[2])
def rename(self, target):
    global moves
    if moves == 0:
        print("ready", flush=True)
        sys.stdin.read()
    moves -= 1
    return real(self, target)
Path.rename = rename
repair(sys.argv[1])
"""


@pytest.mark.slow
@pytest.mark.parametrize("moves", [0, 2, 4])
def test_kill_in_the_middle_of_a_repair_loses_nothing(tmp_path, moves):
    folder = tmp_path / "demos"
    damage(folder)
    contents = {path.read_bytes() for path in list_episodes(folder)}
    kill("-c", CHILD, folder, moves)
    assert {path.read_bytes() for path in folder.rglob("*.hdf5")} == contents
    repair(folder)
    assert {path.read_bytes() for path in folder.rglob("*.hdf5")} == contents
    assert numbers_in(folder) == [2, 5, 6]
    assert len(list((folder / "broken").glob("*.hdf5"))) == 3


def act_data(*words: object) -> int:
    """As `act data` runs a verb."""
    texts = [str(word) for word in words]
    config = (tyro.conf.FlagCreatePairsOff,)
    done = tyro.cli(data_cli.find_verb(texts), args=texts[1:], config=config)
    return done.show("--json" in texts)


def test_the_commands_do_what_they_say(tmp_path, capsys):
    a = make_folder(tmp_path / "a", [0, 1, 2], frames=8)
    b = make_folder(tmp_path / "b", [3, 4], frames=8)
    both, parts, theirs, back = (tmp_path / n for n in ("c", "parts", "set", "back"))
    assert act_data("merge", a, b, "--out", both) == 0
    assert "5 episodes of 2 folders" in capsys.readouterr().out
    words = ("--into", "train=0.8", "val=0.2", "--out", parts)
    assert act_data("split", both, *words) == 0
    assert "4 episodes" in capsys.readouterr().out
    assert act_data("repair", parts / "train", "--dry-run") == 0
    assert "4 episodes are whole, 0 would be moved" in capsys.readouterr().out
    assert act_data("convert", both, theirs, "--to", "lerobot-v3.0") == 0
    assert "5 episodes, 40 frames of robot other" in capsys.readouterr().out
    assert act_data("convert", theirs, back) == 0
    assert "from v3.0 to hdf5" in capsys.readouterr().out
    assert numbers_in(back) == [0, 1, 2, 3, 4]


def test_convert_says_which_joints_are_beyond_their_reach(tmp_path, capsys):
    attributes = {"robot": "so100"}
    qpos = np.tile(np.float32([0, 1.7, 1, 0, 0, 0.5]), (4, 1))
    make(tmp_path / "a/episode_0.hdf5", 1, qpos=qpos, attributes=attributes)
    assert act_data("convert", tmp_path / "a", tmp_path / "b", "--units", "same") == 0
    said = capsys.readouterr().out
    assert "NOTICE qpos[1] (shoulder_lift) goes from 1.70 to 1.70, a so100" in said
    assert act_data("convert", tmp_path / "a", tmp_path / "c", "--json") == 0
    [notice] = json.loads(capsys.readouterr().out)["notices"]
    assert notice.startswith("qpos[1] (shoulder_lift)")


def forget(path: Path, name: str) -> None:
    with h5py.File(path, "r+") as root:
        del root[f"observations/{name}"]


def test_what_nobody_recorded_is_not_made_up_for_lerobot(tmp_path):
    source = make_folder(tmp_path / "a", [0, 1])
    for name in ("qvel", "effort"):
        assert unrecorded_in(list_episodes(source)) == []
        for path in list_episodes(source):
            forget(path, name)
        assert unrecorded_in(list_episodes(source)) == [name]
        shutil.rmtree(source)
        make_folder(source, [0, 1])
    forget(episode_path(source, 0), "effort")
    (source / "episode_2.hdf5").write_bytes(b"text")
    assert unrecorded_in(list_episodes(source)) == []  # one of them has it
    (source / "episode_2.hdf5").unlink()
    forget(episode_path(source, 1), "effort")
    convert(source, tmp_path / "set", "lerobot-v3.0")
    info = json.loads((tmp_path / "set/meta/info.json").read_text())
    assert "observation.velocity" in info["features"]
    assert "observation.effort" not in info["features"]


def test_json_is_all_that_is_printed(tmp_path, capsys):
    a = make_folder(tmp_path / "a", [0, 1, 2], frames=8)
    b = make_folder(tmp_path / "b", [3, 4], frames=8)
    out = {name: tmp_path / name for name in ("c", "parts", "set")}
    for words, expected in (
        (("merge", a, b, "--out", out["c"]), {"episodes": 5}),
        (
            ("split", a, "--into", "x=1", "y=2", "--out", out["parts"]),
            {"episodes": {"x": 1, "y": 2}},
        ),
        (("repair", a), {"kept": 3, "dropped": {}, "dry_run": False}),
        (
            ("convert", a, out["set"], "--to", "lerobot-v2.1"),
            {"episodes": 3, "frames": 24, "source": "hdf5", "units": "same"},
        ),
    ):
        assert act_data(*words, "--json") == 0
        said = capsys.readouterr()
        found = json.loads(said.out)
        assert {key: found[key] for key in expected} == expected
        assert said.err == ""


def test_words_that_cannot_be_meant():
    for words, message in (
        ((), "a verb is missing, expected one of: merge, split, repair, convert"),
        (("burn",), "no verb 'burn'"),
    ):
        with pytest.raises(SettingError, match=message):
            data_cli.find_verb(words)
    assert data_cli.read_parts(("a=0.5", "b=0.25")) == {"a": 0.5, "b": 0.25}
    assert data_cli.read_parts(("a=3",)) == {"a": 3}
    for word in ("a", "a=", "a=x", "a=1e", "=0.5.5"):
        with pytest.raises(SettingError, match=r"expected NAME=SHARE \(train=0.8\)"):
            data_cli.read_parts((word,))
    with pytest.raises(SettingError, match="'a' twice"):
        data_cli.read_parts(("a=1", "a=2"))


@pytest.mark.parametrize("verb", data_cli.VERBS)
def test_every_verb_teaches(verb):
    about = data_cli.VERBS[verb].__doc__ or ""
    assert f"$ act data {verb} " in about
    assert f"  {verb} " in data_cli.OVERVIEW
