"""Files and folders: stopped at every step, and kept off what is not theirs."""

import errno
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from act_minimal.support import files
from act_minimal.support.errors import SettingError, UserError
from act_minimal.support.files import (
    MARKER,
    atomic_file,
    atomic_folder,
    check_output_file,
    check_output_folder,
    read_json,
    remove_folder,
    sole_writer,
    tidy,
    write_json,
    write_text,
)

from ..programs import python

pytestmark = pytest.mark.mostly_quick

CALLS = ("fsync", "link", "listdir", "mkdir", "rename", "replace", "rmdir", "unlink")


WAITING = """
import sys
from pathlib import Path
from act_minimal.support.files import sole_writer
with sole_writer(Path(sys.argv[1])):
    print("mine", flush=True)
    sys.stdin.read()
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such claims")
def test_a_folder_has_one_writer_until_that_ends_also_by_kill_9(tmp_path):
    folder = tmp_path / "new" / "run"
    for kill in (False, True):
        command = [sys.executable, "-c", WAITING, str(folder)]
        pipe = subprocess.PIPE
        with subprocess.Popen(command, stdin=pipe, stdout=pipe) as other:
            assert other.stdout is not None
            assert other.stdout.readline() == b"mine\n"
            with (
                pytest.raises(UserError, match="run is being written by another"),
                sole_writer(folder),
            ):
                pass
            if kill:
                other.kill()
        with sole_writer(folder):
            assert os.listdir(folder) == []  # nothing of it stays


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such claims")
def test_two_recordings_or_trainings_in_one_folder_are_refused(tmp_path):
    from act_minimal.settings import TrainConfig
    from act_minimal.sim import make_task
    from act_minimal.sim.recording import record
    from act_minimal.training import train

    demos, run = tmp_path / "demos", tmp_path / "run"
    record(make_task("so100_pick_place"), demos, 2, progress=False)
    for folder, write in (
        (demos, lambda: record(make_task("so100_pick_place"), demos, 3)),
        (run, lambda: train(TrainConfig(data=demos, out=run, steps=1))),
    ):
        with (
            sole_writer(folder),
            pytest.raises(UserError, match=f"{folder} is being written by another"),
        ):
            write()
    assert len(os.listdir(demos)) == 2
    assert not run.exists()


class Stopper:
    """Does something at the n-th call of `os`, right before or right after it."""

    def __init__(self, n, after, stop):
        self.n, self.after, self.stop, self.count = n, after, stop, 0

    def wrap(self, real):
        def call(*args, **kwargs):
            mine, self.count = self.count == self.n, self.count + 1
            if mine and not self.after:
                self.stop()
            try:
                return real(*args, **kwargs)
            finally:
                if mine and self.after:
                    self.stop()

        return call

    def install(self, put):
        for name in CALLS:
            put(name, self.wrap(getattr(os, name)))


def ctrl_c(write, number, after):
    """Ctrl-C at the n-th call of `os`; whether it came that far."""

    def stop():
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        stopper = Stopper(number, after, stop)
        stopper.install(lambda name, call: patch.setattr(os, name, call))
        try:
            write()
        except KeyboardInterrupt:
            return True
    return False


def write_file(target, content):
    write_text(target, content)


def write_once(target, content):
    with atomic_file(target, replace=False) as temporary:
        temporary.write_text(content)


def write_folder(target, content):
    with atomic_folder(target, made_by="test") as temporary:
        (temporary / "one.txt").write_text(content)
        write_json(temporary / "deep" / "two.json", {"content": content})


def write_folder_in_two_steps(target, content):
    before, files._exchange = files._exchange, lambda one, other: False
    try:
        write_folder(target, content)
    finally:
        files._exchange = before


def content_of(target):
    """What is under the name: None, or a whole content; anything else fails."""
    if not target.exists():
        return None
    if target.is_file():
        return target.read_text()
    content = (target / "one.txt").read_text()
    assert json.loads((target / "deep" / "two.json").read_text()) == {
        "content": content
    }
    names = {p.relative_to(target).as_posix() for p in target.rglob("*")}
    assert names == {"one.txt", "deep", "deep/two.json", MARKER}
    return content


SCENES = {
    "new file": (write_file, None),
    "older file": (write_file, "old"),
    "file never overwritten": (write_once, None),
    "new folder": (write_folder, None),
    "older folder": (write_folder, "old"),
    "older folder in two steps": (write_folder_in_two_steps, "old"),
}


def check_stopped(write, old, folder, number):
    """Whole, the old or the new, and the next writer is not in its way."""
    target = folder / "target"
    content = content_of(target)
    assert content in (old, "new"), f"at call {number}"
    if not (write is write_once and content):
        write(target, "next")
        assert content_of(target) == "next"
    tidy(folder)
    assert [p.name for p in folder.iterdir()] == ["target"], f"at call {number}"
    return content


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("scene", SCENES)
def test_ctrl_c_at_every_step_leaves_the_old_or_the_new(tmp_path, scene, after):
    write, old = SCENES[scene]
    seen = []
    while True:
        folder = tmp_path / str(len(seen))
        folder.mkdir()
        target = folder / "target"
        if old:
            write(target, old)
        if not ctrl_c(lambda: write(target, "new"), len(seen), after):  # noqa: B023
            break
        seen.append(check_stopped(write, old, folder, len(seen)))
    assert len(seen) >= 3
    assert content_of(target) == "new"
    assert old in seen


DRIVER = """
import os, signal, sys
from pathlib import Path
from tests.support.test_files import SCENES, Stopper
folder, scene, after = Path(sys.argv[1]), sys.argv[2], sys.argv[3] == "True"
write, old = SCENES[scene]
number, killed = 0, True
while killed:
    (folder / str(number)).mkdir()
    target = folder / str(number) / "target"
    if old:
        write(target, old)
    child = os.fork()
    if child == 0:
        stop = lambda: os.kill(os.getpid(), signal.SIGKILL)
        Stopper(number, after, stop).install(lambda n, call: setattr(os, n, call))
        write(target, "new")
        os._exit(0)
    killed = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    number += 1
print(number - 1)
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="needs kill -9")
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("scene", SCENES)
def test_kill_9_at_every_step_leaves_the_old_or_the_new(tmp_path, scene, after):
    write, old = SCENES[scene]
    done = python("-c", DRIVER, tmp_path, scene, after)
    assert done.returncode == 0, done.stderr
    stopped = int(done.stdout)
    assert stopped >= 3
    for number in range(stopped):
        folder = tmp_path / str(number)
        if write is write_folder_in_two_steps:
            tidy(folder)  # as whoever looks for a checkpoint does
        check_stopped(write, old, folder, number)
    assert content_of(tmp_path / str(stopped) / "target") == "new"


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_ctrl_c_at_every_step_of_a_removal_leaves_all_or_nothing(tmp_path, after):
    number, seen = 0, set()
    while True:
        target = tmp_path / str(number) / "target"
        write_folder(target, "old")
        if not ctrl_c(lambda: remove_folder(target, "test"), number, after):  # noqa: B023
            break
        seen.add(content_of(target))
        tidy(target.parent)
        names = [p.name for p in target.parent.iterdir()]
        assert names == (["target"] if target.exists() else [])
        number += 1
    assert seen >= {None}
    assert not any(target.parent.iterdir())


def test_a_folder_with_more_in_it_is_not_removed(tmp_path):
    write_folder(tmp_path / "f", "old")
    remove_folder(tmp_path / "f", "somebody else")
    assert content_of(tmp_path / "f") == "old"
    (tmp_path / "f" / "notes.txt").write_text("mine")
    remove_folder(tmp_path / "f", "test")
    assert (tmp_path / "f" / "notes.txt").read_text() == "mine"
    remove_folder(tmp_path / "nowhere", "test")


def test_a_folder_is_replaced_in_a_single_step_here(tmp_path):
    if sys.platform not in ("linux", "darwin"):
        pytest.skip("only Linux and macOS can")
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    assert files._exchange(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "a" / "b").exists()
    assert (tmp_path / "b" / "a").exists()
    assert not files._exchange(tmp_path / "a", tmp_path / "nowhere")


def test_a_failing_write_leaves_what_was_there(tmp_path, monkeypatch):
    write_folder(tmp_path / "f", "old")
    write_text(tmp_path / "t", "old")

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    for write, name in ((write_folder, "f"), (write_file, "t")):
        target = tmp_path / name
        with pytest.raises(UserError) as caught:
            write(target, "new")
        assert str(caught.value) == (
            f"{target} could not be written: no space left on the disk; free some, or "
            "choose another place"
        )
        assert content_of(target) == "old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["f", "t"]


def leftover(folder, name, machine, process, kind="tmp"):
    path = folder / f".{name}.{machine}-{process}-0.{kind}"
    path.write_text("half")
    return path


def test_temporaries_of_the_living_and_of_other_machines_stay(tmp_path):
    here, elsewhere = files._machine(), "0123abcd"
    dead = leftover(tmp_path, "dead", here, 999999999)
    living = leftover(tmp_path, "living", here, os.getppid())
    container = leftover(tmp_path, "film.mp4", elsewhere, 999999999)
    folder = tmp_path / f".folder.{elsewhere}-1-0.tmp"
    folder.mkdir()
    (folder / "part").touch()
    others = [tmp_path / ".notes.tmp", tmp_path / ".film.mp4.4190001.tmp"]
    for path in others:
        path.write_text("not ours to remove")
    long_ago = time.time() - 2 * files.ABANDONED_AFTER
    gone = leftover(tmp_path, "gone", elsewhere, 1)
    os.utime(gone, (long_ago, long_ago))
    os.utime(folder, (long_ago, long_ago))  # but what is in it is being written
    os.utime(others[0], (long_ago, long_ago))
    with atomic_file(tmp_path / "a") as outer:
        outer.write_text("a")
        write_text(tmp_path / "b", "b")
        assert outer.exists()
    left = {p.name for p in tmp_path.iterdir()}
    kept = {living.name, container.name, folder.name, *(p.name for p in others)}
    assert left == {"a", "b"} | kept
    assert not dead.exists()


def test_another_container_is_another_machine(monkeypatch):
    here = files._machine()
    files._machine.cache_clear()
    real = os.stat

    def stat(path, *args, **kwargs):
        if path == "/proc/self/ns/pid":
            return real("/proc/self/ns/uts")
        return real(path, *args, **kwargs)

    try:
        if sys.platform == "linux":
            with monkeypatch.context() as patch:
                patch.setattr(os, "stat", stat)
                assert files._machine() != here
            files._machine.cache_clear()
        monkeypatch.setattr(socket, "gethostname", lambda: "elsewhere")
        assert files._machine() != here
    finally:
        files._machine.cache_clear()


def test_a_folder_that_was_moved_aside_comes_back(tmp_path):
    write_folder(tmp_path / "f", "old")
    here = files._machine()
    aside = tmp_path / f".f.{here}-999999999-3.old"
    (tmp_path / "f").rename(aside)
    tidy(tmp_path)
    assert content_of(tmp_path / "f") == "old"
    shutil.copytree(tmp_path / "f", aside)  # replaced by a new one: no longer needed
    tidy(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["f"]


def fill(folder):
    folder.mkdir(parents=True)
    (folder / "thesis.tex").write_text("three years")
    return folder


@pytest.mark.parametrize("made_by", ["", "act export-lerobot"])
def test_a_folder_that_was_not_made_here_is_left_alone(tmp_path, made_by):
    folder = fill(tmp_path / "mine")
    with (
        pytest.raises(UserError, match=r"mine is there already,? and not"),
        atomic_folder(folder, made_by=made_by),
    ):
        pytest.fail("it must be refused before anything is made")
    assert [p.name for p in folder.rglob("*")] == ["thesis.tex"]


def test_a_folder_of_another_writer_or_with_more_in_it_is_left_alone(tmp_path):
    write_folder(tmp_path / "f", "old")
    with (
        pytest.raises(UserError, match="f is there already, and not made by act demo"),
        atomic_folder(tmp_path / "f", made_by="act demo"),
    ):
        pass
    (tmp_path / "f" / "deep" / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match=r"f holds deep/notes\.txt, which test did not"):
        write_folder(tmp_path / "f", "new")
    (tmp_path / "f" / "deep" / "notes.txt").unlink()
    assert content_of(tmp_path / "f") == "old"
    for marker in ("", "[]", "{}", '{"made_by": "test", "files": 3}'):
        (tmp_path / "f" / MARKER).write_text(marker)
        with pytest.raises(UserError, match="not made by test"):
            write_folder(tmp_path / "f", "new")


def test_what_comes_meanwhile_is_left_alone_too(tmp_path):
    def write():
        with atomic_folder(tmp_path / "f") as temporary:
            (temporary / "x").touch()
            fill(tmp_path / "f")

    with pytest.raises(UserError, match="and not empty"):
        write()
    assert [p.name for p in (tmp_path / "f").iterdir()] == ["thesis.tex"]
    assert [p.name for p in tmp_path.iterdir()] == ["f"]


def test_an_empty_folder_is_filled(tmp_path):
    (tmp_path / "f").mkdir()
    write_folder(tmp_path / "f", "new")
    assert content_of(tmp_path / "f") == "new"


def test_a_file_is_no_folder_and_a_folder_no_file(tmp_path):
    (tmp_path / "x").write_text("x")
    with pytest.raises(SettingError, match=r"out is .*x, which is no folder"):
        write_folder(tmp_path / "x", "new")
    fill(tmp_path / "f")
    with pytest.raises(UserError, match="f could not be written: which is a folder"):
        write_text(tmp_path / "f", "new")
    with pytest.raises(UserError, match=r"could not be written: which is a device"):
        write_text(os.devnull, "new")
    assert not Path(os.devnull).is_file()


PLACES = ("here", ".", "..", "../..", "/", "home", "link", "above_home", "here/../here")


@pytest.mark.parametrize("name", PLACES)
def test_no_command_takes_the_current_folder_or_a_home(tmp_path, monkeypatch, name):
    here, home = tmp_path / "a" / "b", tmp_path / "homes" / "me"
    here.mkdir(parents=True)
    home.mkdir(parents=True)
    for variable in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(variable, str(home))
    monkeypatch.chdir(here)
    (here / "link").symlink_to("..")
    places = {
        "here": here,
        "home": home,
        "above_home": home.parent,
        "here/../here": here / ".." / "b",
    }
    path = places.get(name, Path(name))
    with pytest.raises(SettingError, match=r"(current folder|home folder); expected"):
        check_output_folder(path)
    with (
        pytest.raises(SettingError, match="folder of its own"),
        atomic_folder(path, made_by="test"),
    ):
        pytest.fail("it must be refused before anything is made")
    check_output_folder(here / "new")
    check_output_folder("new/deeper")
    check_output_folder(tmp_path / "homes" / "you")


KIND_FILES = {
    "episodes": "episode_0.hdf5",
    "a LeRobot dataset": "meta/info.json",
    "a checkpoint": "model.safetensors",
    "a training run": "log.jsonl",
    "rollouts": "rollouts_0_9.safetensors",
    "a tally of trials": "tally.json",
    "a demo": "stages.json",
}


@pytest.mark.parametrize("there", KIND_FILES)
def test_a_folder_holds_one_kind_of_thing(tmp_path, there):
    assert KIND_FILES.keys() == files.KINDS.keys()
    folder = tmp_path / "folder"
    write_text(folder / KIND_FILES[there], "x")
    if there == "a checkpoint":
        write_text(folder / "config.json", "x")
    for kind in KIND_FILES:
        if kind == there and kind not in ("a checkpoint", "a LeRobot dataset"):
            check_output_folder(folder, kind)
        elif kind != there:
            with pytest.raises(UserError, match=f"folder holds {there} .*{kind}"):
                check_output_folder(folder, kind)
    inside = folder / "deep" / "er"
    if there in ("a checkpoint", "a LeRobot dataset"):
        for write in (check_output_folder, write_folder):
            with pytest.raises(UserError, match=f"is inside {there}"):
                write(inside, "rollouts")
    else:
        check_output_folder(inside, "rollouts")
    with pytest.raises(SettingError, match="er, inside what is read"):
        check_output_folder(inside, apart_from=folder)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("film.avi", r"film is .*film\.avi, expected a name that ends in \.mp4"),
        ("film", r"expected a name that ends in \.mp4"),
        ("folder.mp4", "which is a folder"),
        ("socket.mp4", "which is a device or a socket"),
        ("file/film.mp4", "file is no folder"),
        ("x" * 300 + ".mp4", "which is no name: File name too long"),
        ("x\0.mp4", "which is no name: .*null"),
    ],
)
def test_names_for_files_are_refused_at_once(tmp_path, monkeypatch, name, words):
    monkeypatch.chdir(tmp_path)  # names of sockets are short
    (tmp_path / "folder.mp4").mkdir()
    (tmp_path / "file").touch()
    with socket.socket(socket.AF_UNIX) as one:
        one.bind("socket.mp4")
        with pytest.raises(SettingError, match=words):
            check_output_file(tmp_path / name, "film", ".mp4")
    write_json(tmp_path / "dataset" / "meta" / "info.json", {})
    inside = tmp_path / "dataset" / "videos" / "file-000.mp4"
    with pytest.raises(SettingError, match="inside a LeRobot dataset"):
        check_output_file(inside, "film", ".mp4")
    for good in ("film.mp4", "Film.MP4", "new/folder/film.mp4"):
        check_output_file(tmp_path / good, "film", ".mp4")
    (tmp_path / "film.mp4").write_text("an older film")
    check_output_file(tmp_path / "film.mp4", "film", ".mp4")


@pytest.mark.skipif(os.name != "posix", reason="needs symbolic links")
def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "f").symlink_to("real")
    for content in ("old", "new"):
        write_folder(tmp_path / "f", content)
    assert (tmp_path / "f").is_symlink()
    assert content_of(tmp_path / "real") == "new"
    (tmp_path / "t").symlink_to(tmp_path / "real.txt")
    write_text(tmp_path / "t", "new")
    assert (tmp_path / "t").is_symlink()
    assert (tmp_path / "real.txt").read_text() == "new"


def test_faults_of_what_is_read_are_not_said_of_what_is_written(tmp_path):
    missing = tmp_path / "no" / "input"
    for write in (atomic_file, atomic_folder):
        with pytest.raises(UserError) as caught, write(tmp_path / "out"):
            missing.read_text()
        assert str(caught.value) == f"{missing}: {os.strerror(errno.ENOENT)}"
    assert list(tmp_path.iterdir()) == []


def test_text_is_utf_8_whatever_the_locale(tmp_path):
    code = (
        "import sys; from pathlib import Path; from act_minimal.support import files\n"
        "path = Path(sys.argv[1])\n"
        "files.write_text(path / 't', 'Tür, 机器人')\n"
        "files.write_json(path / 'j', {'a': 'é'})\n"
        "assert files.read_json(path / 'u') == {'task': '机器人'}\n"
    )
    (tmp_path / "u").write_text('{"task": "机器人"}', encoding="utf-8-sig")
    (tmp_path / "run.py").write_text(code, encoding="utf-8")
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = python(tmp_path / "run.py", tmp_path, **ascii_only)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "t").read_bytes() == "Tür, 机器人".encode()
    assert read_json(tmp_path / "j") == {"a": "é"}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "no such file"),
        (b"{", "cannot be read as JSON"),
        (b"\xff\xfe", "cannot be read as JSON: 'utf-8"),
        (b"[" * 200_000, "cannot be read as JSON"),
    ],
)
def test_what_is_no_json_is_named(tmp_path, content, words):
    path = tmp_path / "x.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=rf"x\.json.* {words}|x\.json: {words}"):
        read_json(path)


def test_nan_is_no_json(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "x.json", {"a": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_a_link_to_another_kind_is_not_written_through(tmp_path):
    episode = tmp_path / "episode_0.hdf5"
    episode.write_bytes(b"mine")
    link = tmp_path / "sheet.png"
    link.symlink_to(episode)
    with pytest.raises(SettingError, match=r"picture is .*, a link to .*episode_0"):
        files.check_output_file(link, "picture", ".png")
    link.unlink()
    link.symlink_to(tmp_path / "other.png")
    files.check_output_file(link, "picture", ".png")
