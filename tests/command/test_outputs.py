"""No command replaces, empties or fills what it did not make, whatever it is told."""

import functools
import os
from dataclasses import is_dataclass
from inspect import signature
from pathlib import Path
from typing import get_args, get_type_hints

import numpy as np
import pytest

from act_minimal.checkpoint import load_policy
from act_minimal.command import main as cli
from act_minimal.episodes import Episode, episode_path, save_episode
from act_minimal.exchange.lerobot_policy import export_policy, import_policy
from act_minimal.support.files import MARKER
from hardware.so100.calibration import load_calibration

from .. import commands
from .test_flags import NEEDED, ON_ARMS, SIMULATED

TESTS = Path(__file__).parents[1]
STATE = TESTS.parent / "data" / "checkpoints" / "so100_pick_place_state"
TINY = "--chunk-size 4 --steps 2 --batch-size 4 --no-tensorboard --threads 1"


def save(folder, number):
    q = np.linspace(0, 1, 60, dtype=np.float32).reshape(10, 6) + number
    save_episode(episode_path(folder, number), Episode(q, q * 0, q * 0, q))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """What the commands read."""
    home = tmp_path_factory.mktemp("made")
    for folder in ("demos", "more"):
        for number in range(2):
            save(home / folder, number)
    export_policy(STATE, home / "there", drop_cvae=True)
    return home


@pytest.fixture
def act(monkeypatch, tmp_path):
    """Runs `act` in an own current folder: (exit code, the error's text)."""
    monkeypatch.chdir(tmp_path)

    def run(*words):
        code, _, err = commands.act(*words)
        return code, " ".join(err.split())

    return run


def tree(folder):
    """Every file and folder, with content."""
    return {
        p.relative_to(folder): p.read_bytes() if p.is_file() else None
        for p in sorted(folder.rglob("*"))
    }


FOLDERS = {
    "import-lerobot": "import-lerobot {there} --out OUT",
    "export-lerobot": f"export-lerobot --policy {STATE} --drop-cvae --out OUT",
    "merge": "data merge {demos} {more} --out OUT",
    "split": "data split {demos} --into a=1 b=1 --out OUT",
    "convert": "data convert {demos} OUT --to lerobot-v2.1",
    "train": f"train --data {{demos}} --out OUT {TINY}",
    "train-residual": f"train-residual --policy {STATE} --data {{demos}} --out OUT",
    "record": "record --out OUT --n 1",
    "record on an arm": "record --robot so100 --port nowhere --scenes 0 "
    "--leader nowhere --out OUT",
    "eval": f"eval --policy {STATE} --n 1 --out OUT",
    "demo": "demo --out OUT",
    "deploy": f"deploy --policy {STATE} --port nowhere --out OUT",
}


def line_of(command, made, out):
    places = {path.name: path for path in made.iterdir()}
    return FOLDERS[command].format(**places).replace("OUT", str(out))


@pytest.mark.parametrize("command", FOLDERS)
def test_nobodys_own_folder_is_an_output(act, made, tmp_path, command, monkeypatch):
    home = tmp_path / "homes" / "me"
    here = tmp_path / "work" / "here"
    for folder in (home, here):
        folder.mkdir(parents=True)
        (folder / "thesis.tex").write_text("three years")
    (tmp_path / "link").symlink_to(home)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(here)
    before = tree(tmp_path)
    for out in (".", "..", "/", home, tmp_path / "link", here, "../../homes"):
        code, err = act(line_of(command, made, out))
        assert (code, "Traceback" in err) == (2, False), (out, err)
        assert "current folder" in err or "home folder" in err
    for out in ("~", "~/new"):
        code, err = act(line_of(command, made, out))
        assert (code, f"such as {home}" in err) == (2, True), err
    assert tree(tmp_path) == before


# What may be there already, and which commands may go on beside it.
THERE = {
    "own": (
        ["thesis.tex", "deep/data.csv"],
        {"train", "record", "record on an arm", "eval", "deploy"},
    ),
    "episodes": (["episode_0.hdf5", "episode_1.hdf5"], {"record", "record on an arm"}),
    "checkpoint": (["config.json", "model.safetensors", "train_config.json"], set()),
    "lerobot": (["meta/info.json", "data/chunk-000/file-000.parquet"], set()),
    "run": (["config.json", "log.jsonl", "checkpoints/9/card.json"], set()),
}


@pytest.mark.parametrize(
    ("command", "there"),
    [(c, t) for t, (_, beside) in THERE.items() for c in FOLDERS if c not in beside],
)
def test_a_folder_with_other_things_stays_as_it_is(act, made, tmp_path, command, there):
    out = tmp_path / "out"
    for name in THERE[there][0]:
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text("{}")
    before = tree(out)
    code, err = act(line_of(command, made, out))
    assert (code, err.startswith("act: ")) == (1, True), err
    assert "out" in err
    assert tree(out) == before
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("command", FOLDERS)
def test_a_file_is_no_folder(act, made, tmp_path, command):
    (tmp_path / "file").write_text("mine")
    for out in (tmp_path / "file", tmp_path / "file" / "deeper"):
        code, err = act(line_of(command, made, out))
        assert (code, "is no folder" in err) == (2, True), err
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("command", ["import-lerobot", "export-lerobot"])
def test_what_a_command_made_it_may_replace(act, made, tmp_path, command):
    line = line_of(command, made, tmp_path / "out")
    assert act(line)[0] == 0
    first = tree(tmp_path / "out")
    assert act(line)[0] == 0
    assert tree(tmp_path / "out").keys() == first.keys()
    (tmp_path / "out" / "notes.txt").write_text("mine")
    code, err = act(line)
    assert code == 1
    assert f"holds notes.txt, which act {command} did not write" in err
    (tmp_path / "out" / "notes.txt").unlink()
    (tmp_path / "out" / MARKER).unlink()
    code, err = act(line)
    assert (code, f"not made by act {command}" in err) == (1, True), err
    assert load_policy(STATE).chunk_size == 50


def test_one_command_does_not_replace_what_another_made(made, tmp_path):
    export_policy(STATE, tmp_path / "out", drop_cvae=True)
    before = tree(tmp_path)
    with pytest.raises(Exception, match="not made by act import-lerobot"):
        import_policy(made / "there", tmp_path / "out")
    assert tree(tmp_path) == before


FILES = {
    "inspect": ("inspect {demos} --picture FILE", ".png"),
    "replay": ("replay {demos} --film FILE", ".mp4"),
    "eval": (f"eval --policy {STATE} --n 1 --film FILE", ".mp4"),
    "course": ("course --handout FILE", ".zip"),
    "export-onnx": (f"export-onnx --policy {STATE} --out FILE", ".onnx"),
    "diagnose": (f"diagnose --policy {STATE} --data {{demos}} --html FILE", ".html"),
    "diagnose on an arm": (
        f"diagnose --robot so100 --port nowhere --policy {STATE} --data {{demos}} "
        "--html FILE",
        ".html",
    ),
}


@pytest.mark.parametrize("command", FILES)
def test_another_suffix_is_refused_and_not_renamed(act, made, tmp_path, command):
    line, suffix = FILES[command]
    places = {path.name: path for path in made.iterdir()}
    (tmp_path / f"folder{suffix}").mkdir()
    (tmp_path / "file").write_text("mine")
    before = tree(tmp_path)
    for name, fault in (
        ("film.avi", f"expected a name that ends in {suffix}"),
        ("film", f"expected a name that ends in {suffix}"),
        (f"folder{suffix}", "which is a folder"),
        (f"file/film{suffix}", "file is no folder"),
        (os.devnull, f"expected a name that ends in {suffix}"),
        (f"~/film{suffix}", "whose ~ the shell left"),
    ):
        path = name if name[0] == "~" else tmp_path / name
        code, err = act(line.format(**places).replace("FILE", str(path)))
        assert (code, fault in err) == (2, True), err
    assert tree(tmp_path) == before


# Settings that are paths and in neither list: what is read, by any command or by some,
# and what a test of its own writes.
READ = {"checkpoint", "data", "policy", "folder", "folders", "source", "statistics"}
READ |= {"leader_calibration", ("teleop", "calibration"), ("deploy", "calibration")}
READ |= {("record_arm", "calibration"), ("diagnose_arm", "calibration")}
READ |= {("diagnose", "trials")}
ELSEWHERE = {
    ("train", "cache"): "test_a_folder_that_is_no_cache_is_not_removed",
    ("virtual", "port"): "test_a_virtual_arm_takes_no_name_that_is_taken",
    ("virtual", "calibration"): "test_a_calibration_is_not_written_over_another_file",
    ("calibrate", "calibration"): "test_a_calibration_is_not_written_over_another_file",
    ("cameras", "thumbnails"): "test_thumbnails_go_into_a_folder",
}


def found(line):
    """The function that a line of words calls, and all settings that it gets."""
    name, *words = line.split()
    command = cli._find(name, words, False)
    assert isinstance(command, functools.partial)
    given = signature(command.func).bind(*command.args, **command.keywords).arguments
    for value in list(given.values()):
        given |= getattr(value, "__dict__", {})
    return command.func, given


def paths_in(declared):
    """Names of the settings that a function or a dataclass declares as paths."""
    for name, kind in get_type_hints(declared).items():
        kinds = [kind, *get_args(kind)]
        if Path in kinds:
            yield name
        for one in filter(is_dataclass, kinds):
            yield from paths_in(one)


def test_every_path_that_a_command_writes_to_is_tried():
    """Of a new option for an output, a line in FOLDERS or FILES is wanted."""
    lines = [*FOLDERS.values(), *(line for line, _ in FILES.values())]
    tried = set()
    for line in lines:
        words = line.replace("FILE", "OUT").format(demos="d", more="m", there="t")
        function, given = found(words)
        tried |= {(function.__name__, k) for k, x in given.items() if x == Path("OUT")}
    declared = set()
    for command in SIMULATED + ON_ARMS:
        function, _ = found(f"{command} {NEEDED.get(command, '')}")
        declared |= {(function.__name__, name) for name in paths_in(function)}
    written = {one for one in declared if not {one, one[1]} & READ}
    assert written == tried | set(ELSEWHERE)
    tests = [p.read_text(encoding="utf-8") for p in TESTS.rglob("test_*.py")]
    for name in ELSEWHERE.values():
        assert any(f"\ndef {name}(" in text for text in tests), name


def test_a_calibration_is_not_written_over_another_file(act, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "hardware.so100.emulator.service.serve", lambda config: config.port.exists()
    )
    virtual = f"virtual --port {tmp_path}/arm --calibration {tmp_path}/"
    (tmp_path / "package.json").write_text('{"name": "mine"}')
    for line in (virtual, f"calibrate --port nowhere --calibration {tmp_path}/"):
        code, err = act(f"{line}package.json")
        assert code == 1
        assert "package.json is there already and is never replaced" in err
        code, err = act(line)
        assert (code, "which is a folder" in err) == (2, True)
    assert (tmp_path / "package.json").read_text() == '{"name": "mine"}'
    for _ in range(2):  # the same arm again: the same file
        assert not act(f"{virtual}arm.json")[0]
    before = load_calibration(tmp_path / "arm.json")
    code, err = act(f"{virtual}arm.json --seed 7")
    assert (code, "arm.json is there already and is never replaced" in err) == (1, True)
    assert load_calibration(tmp_path / "arm.json") == before


def test_thumbnails_go_into_a_folder(act, tmp_path):
    (tmp_path / "file").write_text("mine")
    code, err = act("cameras", "--thumbnails", tmp_path / "file")
    assert (code, "file is no folder" in err) == (2, True)


@pytest.mark.skipif(os.name != "posix", reason="needs pseudo-terminals")
def test_a_virtual_arm_takes_no_name_that_is_taken(tmp_path, monkeypatch):
    from act_minimal.support.errors import UserError
    from hardware.so100.emulator.service import VirtualArmConfig, VirtualArmService
    from hardware.virtual.server import socket_path

    monkeypatch.chdir(tmp_path)
    link, unmounted = tmp_path / "link", tmp_path / "disk" / "thesis.tex"
    link.symlink_to(unmounted)
    board = tmp_path / "board"
    board.symlink_to(made := tmp_path / "made")
    made.touch()
    for name in (link, board):
        with pytest.raises(UserError, match=f"{name.name} is there already"):
            VirtualArmService(VirtualArmConfig(name))
        assert name.is_symlink()
    taken = socket_path(tmp_path / "arm")
    taken.write_text("mine")
    with pytest.raises(UserError, match="is there already, and no virtual arm made it"):
        VirtualArmService(VirtualArmConfig(tmp_path / "arm"))
    assert taken.read_text() == "mine"
    taken.unlink()
    (tmp_path / "arm").unlink(missing_ok=True)
    stale = tmp_path / "stale"  # of one that was killed
    stale.symlink_to("/dev/pts/999999")
    service = VirtualArmService(VirtualArmConfig(stale))
    stale.unlink()
    stale.write_text("somebody else's by now")
    service.close()
    assert stale.read_text() == "somebody else's by now"
