"""The `act` command: what it does, what it prints, and how it refuses."""

import errno
import functools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

import act_minimal.command.main as cli
from act_minimal.episodes import Episode, load_episode, save_episode
from act_minimal.sim import make_task
from act_minimal.sim.recording import record

from ..commands import act

ACT = Path(sys.executable).with_name("act")
TINY = "--chunk-size 4 --steps 3 --batch-size 8 --threads 1 --device cpu "
TINY += "--no-tensorboard"


def said(text):
    """Text as one line, without the frame that tyro draws."""
    return re.sub(r"[\s│╭╮╰╯─]+|-{4,}", " ", text)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Datasets and runs, good and bad, made once."""
    home = tmp_path_factory.mktemp("home")
    task = make_task("so100_pick_place")
    record(task, home / "demos", 3, demonstrator="scripted", progress=False)
    episode = load_episode(home / "demos" / "episode_0.hdf5")
    for name in ("broken", "other_sizes"):
        for i in range(2):
            save_episode(home / name / f"episode_{i}.hdf5", episode)
    broken = home / "broken" / "episode_1.hdf5"
    broken.write_bytes(broken.read_bytes()[:3000])
    other = home / "other_sizes" / "episode_1.hdf5"
    other.unlink()
    save_episode(other, Episode(*[np.zeros((9, 3), np.float32)] * 4, fps=30))
    (home / "empty").mkdir()
    (home / "lerobot" / "meta").mkdir(parents=True)
    (home / "lerobot" / "meta" / "info.json").write_text("{}")
    rng = np.random.default_rng(0)
    for i in range(2):  # with the images of a camera that the task does not have
        episode.images = {
            "front": rng.integers(0, 255, (len(episode), 16, 16, 3), "u1")
        }
        save_episode(home / "seen" / f"episode_{i}.hdf5", episode)
    for name, line in (("state", "demos"), ("front", "seen --cameras front")):
        line = f"train --data {home}/{line} --out {home / name} {TINY}"
        assert act(line)[0] == 0
    return home


# --- help -----------------------------------------------------------------------------


@pytest.mark.quick
def test_help_names_every_command_and_is_light():
    program = (
        "import sys, act_minimal.command.main as cli\n"
        "try: cli.main(['--help'])\n"
        "except SystemExit as end: assert end.code == 0\n"
        "heavy = {'torch', 'mujoco', 'h5py', 'cv2', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    for name in cli.COMMANDS:
        assert re.search(rf"^  {name} ", run.stdout, re.MULTILINE), name


@pytest.mark.quick
@pytest.mark.parametrize(
    "name", [*cli.COMMANDS, *cli.ARM_COMMANDS, "record --robot so100"]
)
def test_help_teaches_with_examples(name):
    code, out, err = act(name, "--help")
    assert (code, err) == (0, "")
    assert f"usage: act {name.partition(' --')[0]} " in out
    assert f"$ act {name}" in out
    flags = re.split(r"\n[│ ] +--(?=[a-z])", out)[1:]
    # Each flag is explained: a default alone is no help.
    for words in flags:
        text = said(words).partition("(default")[0].partition("(required")[0]
        assert len(text.split()) >= 4, f"act {name} --{words[:60]}"
    exceptions = cli.OVERVIEW.partition("there, too.")[2].partition("instead")[0]
    short = name.removesuffix(" so100")
    without = re.search(rf"\b{short}\b(?! --)", exceptions)
    assert any(flag.startswith("json ") for flag in flags) != bool(without)


@pytest.mark.quick
def test_examples_in_the_help_have_flags_that_exist(monkeypatch):
    examples = re.findall(r"^  act (\w+)(.*)$", cli.OVERVIEW, re.MULTILINE)
    for name in cli.COMMANDS:
        text = re.sub(r"\\\n\s+", "", cli.find_command(name).__doc__ or "")
        examples += [(name, line) for line in re.findall(rf"\$ act {name}(.*)", text)]
    assert len(examples) > 12
    for name, line in examples:
        real = cli.find_command(name)

        @functools.wraps(real)  # its flags, but it does nothing
        def pretend(*_, **__):
            return 0

        monkeypatch.setattr(cli, "find_command", lambda _, made=pretend: made)
        assert act(name, line)[0] == 0, f"act {name}{line}"
        monkeypatch.undo()


# --- what is refused ------------------------------------------------------------------


LEROBOT = "is a LeRobot dataset.*: act data convert .*/lerobot .*/lerobot_hdf5 ?$"
SIZE = r"size is \(12, 96\), expected 2 values, each a whole number of at least 16"
SENTENCES = {
    2: [
        ("fly", "no command 'fly'; the commands are: demo, doctor, record"),
        ("train --dta x", "Unrecognized options: --dta"),
        ("record", "--out"),
        ("record --out {new} --n many", "invalid literal for int"),
        ("record --out {new} --n 0", r"n is 0, .* whole number in \[1, 33333\]"),
        ("record --out {new} --demonstrator robot", "one of .'scripted', 'human'"),
        ("record --out {new} --cameras front", "no camera 'front' .*: top, wrist"),
        ("record --out {new} --size 12 96", SIZE),
        ("record --robot so100 --port no --size 12 96", SIZE),
        ("train --data {seen} --out {new} --resize 12 96", rf"re{SIZE}"),
        ("train --data {demos} --out {new} --steps 0", "steps is 0, .* at least 1"),
        (
            "train --data {demos} --out {new} --model heads 5",
            "heads is 5, expected a divisor of width=64",
        ),
        (
            "train --data {demos} --out {new} --model headz 5",
            "no setting 'headz': known are",
        ),
        ("eval --policy {state} --mode magic", "one of .'open_loop', 'receding', 'ens"),
        ("eval --policy {state} --execute 9", "is 9, expected at most the chunk size"),
        ("eval --policy {state} --mode ensemble --m nan", "m is nan, .*finite number"),
        ("eval --policy {state} --n 0", r"n is 0, .* whole number in \[1, 10000\]"),
        ("replay {demos} --n 0", "n is 0, expected a whole number of at least 1"),
        ("record --out {new} --task nope", "is 'nope', .* of .*'so100_pick_place'"),
        ("eval --policy {state} --task nope", "is 'nope', .* of .*'so100_pick_place'"),
        (f"train --data {{demos}} --out {{file}} {TINY}", "out is .*file, which is no"),
    ],
    1: [
        (
            "record --out {demos} --n 9 --seed 3",
            r"demos/episode_\d.hdf5 was recorded with demonstrator scripted, but now",
        ),
        ("inspect {new}", "/new is not a folder; `act record` makes some"),
        ("inspect {empty}", r"/empty has no \*.hdf5 episodes"),
        ("replay {empty}", r"/empty has no \*.hdf5 episodes"),
        ("replay {broken}", "broken/episode_1.hdf5: "),
        ("inspect {lerobot}", LEROBOT),
        ("replay {lerobot}", LEROBOT),
        ("train --data {lerobot} --out {new}", LEROBOT),
        ("train --data {new} --out {new2}", "/new is not a folder"),
        ("train --data {empty} --out {new}", r"/empty has no \*.hdf5"),
        ("train --data {broken} --out {new}", "broken/episode_1.hdf5: "),
        (
            "train --data {other_sizes} --out {new}",
            r"other_sizes/episode_1.hdf5: \w+ is 3 numbers wide, 6 in episode_0",
        ),
        (
            "train --data {demos} --out {new} --cameras front",
            "demos/episode_0.hdf5.*front",
        ),
        ("train --data {demos} --out {new} --chunk-size 1000", "1000.*longe"),
        (
            f"train --data {{demos}} --out {{state}} {TINY} --lr 0.5",
            r"/state holds a run with lr=0.001, but now lr=0.5 is asked for",
        ),
        (
            f"train --data {{seen}} --out {{state}} {TINY} --cameras front",
            r"/state holds a run with cameras=\[\], but now cameras=\['front'\]",
        ),
        (
            "train --data {demos} --out {new} --device toaster",
            "device 'toaster' cannot be used here",
        ),
        ("eval --policy {new}", "no checkpoint folder .*/new; expected"),
        ("eval --policy {empty}", "/empty is neither a checkpoint .* nor a train"),
        (
            "eval --policy {front}",
            "camera 'front', but so100_pick_place has the cameras top, wrist",
        ),
    ],
}


@pytest.mark.parametrize(
    ("line", "expected", "code"),
    [(*case, code) for code, cases in SENTENCES.items() for case in cases],
)
def test_bad_input_is_one_sentence(home, tmp_path, line, expected, code):
    before = sorted((p, p.stat().st_mtime_ns) for p in home.rglob("*.hdf5"))
    places = {path.name: path for path in home.iterdir()}
    places |= {name: tmp_path / name for name in ("new", "new2", "file")}
    places["file"].write_text("not a folder")
    got, out, err = act(line.format(**places))
    assert got == code, err
    assert out == ""
    assert "Traceback" not in err
    assert re.search(expected, said(err)), err
    if code == 1:
        assert err.startswith("act: ") or "\nact: " in err
        assert len(err.strip().rpartition("act: ")[2].splitlines()) == 1
    assert sorted((p, p.stat().st_mtime_ns) for p in home.rglob("*.hdf5")) == before
    assert not (tmp_path / "new").exists(), "something was left"


@pytest.mark.quick
@pytest.mark.parametrize(
    ("line", "code", "expected"),
    [
        ("fly", 2, "no command 'fly'; the commands are: "),
        ("train", 2, "Missing from act train: --data"),
        ("train --nope", 2, "--nope"),
        ("train --data d --out {new} --lr inf", 2, "lr is"),
        ("record --out {new} --n 0", 2, "n is 0, expected"),
        ("inspect {new}", 1, "{new} is not a folder"),
        ("replay {new}", 1, "{new} is not a folder"),
        ("eval --policy {new}", 1, "no checkpoint folder"),
        ("data repair {new}", 1, "{new}"),
        ("data fly", 2, "no verb 'fly', expected one of: merge"),
        ("course --lesson 70", 2, "no lesson 70; the lessons are: 00"),
    ],
)
def test_errors_are_json_too(tmp_path, line, code, expected):
    new = str(tmp_path / "new")
    got, out, err = act(line.format(new=new), "--json")
    said = json.loads(out)
    assert (got, said["exit_code"]) == (code, code)
    assert expected.format(new=new) in said["error"]
    assert set(said) == {"error", "exit_code"}
    assert "\n" not in said["error"]
    assert err  # a person who looks on reads it, too


@pytest.mark.quick
def test_being_stopped_is_json_too(monkeypatch):
    def stop(json: bool = False) -> int:
        raise KeyboardInterrupt

    monkeypatch.setitem(cli.COMMANDS, "doctor", stop)
    code, out, _ = act("doctor", "--json")
    assert code == 130
    said = {"error": "stopped; the same command goes on", "exit_code": 130}
    assert json.loads(out) == said
    monkeypatch.setenv("RANK", "1")  # of torchrun's processes the first one speaks
    assert act("doctor", "--json")[:2] == (130, "")


def test_a_checkpoint_of_another_shape(home, tmp_path):
    policy = tmp_path / "policy"
    shutil.copytree(home / "state" / "checkpoints" / "3", policy)
    config = json.loads((policy / "config.json").read_text())
    config["model"]["width"] = 32
    (policy / "config.json").write_text(json.dumps(config))
    code, _, err = act("eval --policy", policy)
    assert code == 1
    assert re.search(r"in \S+model.safetensors has shape \(.*config.json asks", err)
    (policy / "model.safetensors").write_bytes(b"damaged")
    code, _, err = act("eval --policy", policy)
    assert (code, "model.safetensors is damaged" in err) == (1, True)


def test_no_opengl(tmp_path, monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "disabled")
    code, _, err = act(f"record --out {tmp_path}/new --n 1 --cameras top")
    assert code == 1
    assert "unset MUJOCO_GL" in err or "libegl1" in err
    assert not (tmp_path / "new").exists()


def test_a_loss_that_is_no_number(home, tmp_path):
    line = f"train --data {home}/demos --out {tmp_path}/run {TINY} --lr 1e30"
    code, _, err = act(line, "--warmup-steps 0 --steps 20")
    assert code == 1
    assert re.search(r"act: .*(nan|inf).*step", err, re.IGNORECASE)
    assert "Traceback" not in err


@pytest.mark.parametrize("line", [f"train --data {{}}/demos {TINY}", "record --n 1"])
def test_a_full_disk(home, tmp_path, monkeypatch, line):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    code, _, err = act(line.format(home), "--out", tmp_path / "out")
    assert code == 1
    assert re.search(r"act: \S+ could not be written: no space left on the disk", err)
    assert "Traceback" not in err


@pytest.mark.quick
def test_no_words_at_all_is_a_question():
    code, out, err = act()
    assert (code, out) == (2, "")
    assert "act record" in err


@pytest.mark.quick
def test_a_bug_is_not_hidden(monkeypatch):
    def bug(args):
        raise ValueError("a bug")

    monkeypatch.setitem(cli.COMMANDS, "doctor", lambda: bug(0))
    with pytest.raises(ValueError, match="a bug"):
        cli.main(["doctor"])


# --- what works -----------------------------------------------------------------------


def test_json_is_all_there_is_on_standard_output(home, tmp_path):
    def result(line):
        code, text, _ = act(line, "--json")
        assert code == 0
        return json.loads(text)

    out, picture = tmp_path / "demos", tmp_path / "sheet.png"
    made = result(f"record --out {out} --n 1 --demonstrator scripted")
    assert made == {"folder": str(out), "episodes": ["episode_0.hdf5"]}
    assert result(f"inspect {out} --picture {picture}")["episodes"] == 1
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert result(f"replay {out}")["successes"] == 1
    evaluated = result(f"eval --policy {home}/state --n 2")
    assert evaluated["checkpoint"].endswith("checkpoints/3")
    assert (evaluated["n"], len(evaluated["interval"])) == (2, 2)


def test_text_says_what_to_do_next(home, tmp_path):
    def text_of(line):
        code, out, err = act(line)
        assert code == 0, err
        return out, err

    d, run, film = (tmp_path / name for name in ("d", "run", "film.mp4"))
    text, err = text_of(f"record --out {d} --n 2 --cameras wrist --size 24 32")
    assert f"2 episodes in {d}; look at them with: act inspect" in text
    assert "recording" in err  # the bar
    assert "Cameras: wrist 24x32" in text_of(f"inspect {d}")[0]
    text, _ = text_of(f"replay {d} --n 1")
    assert "episode_0.hdf5: success" in text
    assert "1 of 1 succeed again" in text
    text, _ = text_of(f"train --data {home}/demos --out {run} {TINY}")
    assert f"act eval --policy {run}" in text
    line = f"eval --policy {run} --n 1 --out {tmp_path}/r --mode ensemble --film {film}"
    assert "success 0 % (0/1, 95 % interval 0-79 %)" in text_of(line)[0]
    assert film.stat().st_size > 1000
    assert list((tmp_path / "r").glob("rollouts_0_0.safetensors"))


def test_what_to_do_next_names_the_task_of_the_demonstrations():
    from act_minimal.evaluation import eval_command

    data = Path(__file__).parents[2] / "data/checkpoints"
    here, there = data / "so100_pick_place_state", data / "openarm_handover_state"
    assert eval_command(here) == f"act eval --policy {here}"
    assert eval_command(there, " --n 1") == (
        f"act eval --policy {there} --task openarm_handover --n 1"
    )


def test_a_broken_file_or_a_failed_replay_is_told_by_the_exit_code(home, tmp_path):
    code, text, _ = act("inspect", home / "broken")
    assert code == 1
    assert "BROKEN episode_1.hdf5" in said(text)
    path = tmp_path / "episode_0.hdf5"
    path.write_bytes((home / "demos" / "episode_0.hdf5").read_bytes())
    with h5py.File(path, "r+") as file:
        file.attrs["scene"] = 7
    code, text, _ = act("replay", tmp_path)
    assert (code, "0 of 1 succeed again" in text) == (1, True)


# --- as a program ---------------------------------------------------------------------


@pytest.mark.quick
def test_the_program_exits_as_promised():
    for words, says in (("fly", "act: no command 'fly'"), ("record --n", "")):
        run = subprocess.run([ACT, *words.split()], capture_output=True, text=True)
        assert (run.returncode, run.stdout) == (2, "")
        assert run.stderr.startswith(says)


@pytest.mark.quick
def test_ctrl_c_while_it_starts_is_quiet():
    start = """
import signal, sys

class CtrlC:  # while a module of ours is imported
    def find_spec(self, name, path, target=None):
        if name == "tyro":
            signal.raise_signal(signal.SIGINT)

sys.meta_path.insert(0, CtrlC())
signal.signal(signal.SIGINT, signal.default_int_handler)
import act_minimal.__main__
act_minimal.__main__.main()
"""
    command = [sys.executable, "-c", start]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout, run.stderr) == (130, "", "")


def test_ctrl_c_ends_with_130_and_the_same_command_goes_on(tmp_path):
    out = tmp_path / "demos"
    process = subprocess.Popen(
        [ACT, "record", "--out", out, "--n", "500"],
        stderr=subprocess.PIPE,
        text=True,
        # A shell starts what it puts into the background with Ctrl-C ignored, and
        # tests that run there would hand that on.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        until = time.monotonic() + 600
        while not (out / "episode_1.hdf5").exists() and time.monotonic() < until:
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=240)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130
    assert "act: stopped; the same command goes on" in err
    assert "Traceback" not in err
    recorded = len(list(out.glob("*.hdf5")))
    assert not list(out.glob(".*"))
    assert act("record", "--out", out, "--n", recorded + 1)[0] == 0
    assert len(list(out.glob("*.hdf5"))) == recorded + 1


def test_torchrun_trains_with_two_processes_and_one_voice(home, tmp_path):
    line = "-m torch.distributed.run --standalone --nproc-per-node 2 -m "
    line += f"act_minimal.command.main train --data {home}/demos --out {tmp_path}/run"
    words = [sys.executable, *line.split(), *TINY.split(), "--json"]
    run = subprocess.run(words, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    result = json.loads(run.stdout)
    assert result["steps"] == 3
    assert Path(result["checkpoint"], "model.safetensors").exists()
