"""Every flag of every command, from the command line: a new one without a row fails."""

import functools
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from act_minimal.command import data as data_cli
from act_minimal.command import demo, doctor
from act_minimal.command import main as cli
from act_minimal.command.doctor import Check

from ..commands import act

ROOT = Path(__file__).parents[2]
STATE = ROOT / "data/checkpoints/so100_pick_place_state"
SIMULATED = [*cli.COMMANDS, *(f"data {verb}" for verb in data_cli.VERBS)]
ON_ARMS = [*cli.ARM_COMMANDS, "record --robot so100", "diagnose --robot so100"]
FINITE = {"--m"}  # any finite number can be meant
# What takes a module:Class alone.
CLASSES = {("replay", "--task"), ("eval", "--network"), ("deploy", "--network")}
CLASSES |= {("export-onnx", "--network"), ("diagnose", "--network")}
CLASSES |= {("diagnose --robot so100", "--network")}

# What has to be there before anything else is looked at.
NEEDED = {
    "record": "--out new",
    "inspect": "new",
    "replay": "new",
    "train": "--data new --out new",
    "train-residual": "--policy new --data new --out new",
    "eval": "--policy new",
    "diagnose": "--policy new --data new",
    "export-lerobot": "--policy new --out new",
    "import-lerobot": "new --out new",
    "export-onnx": "--policy new --out new.onnx",
    "data merge": "new new --out new",
    "data split": "new --into a=1 --out new",
    "data repair": "new",
    "data convert": "new new",
} | {
    name: "--port p" for name in ON_ARMS if name not in ("virtual", "ports", "cameras")
}


@functools.cache
def help_of(command: str) -> str:
    code, out, _ = act(f"{command} --help")
    assert code == 0
    return out


@functools.cache
def flags(command: str) -> dict[str, str]:
    """The flags that a command's help lists, and what each takes."""
    out = help_of(command)
    found = re.findall(r"^[│| ] (--[a-z][a-z0-9-]*)(?: (.+?))?(?:  |[│|]?$)", out, re.M)
    return {flag: takes.strip(" │|") for flag, takes in found if flag != "--json"}


def wrong_words(command: str, flag: str, takes: str) -> list[str]:
    """What a flag that takes this has to refuse."""
    if takes.startswith("[STR"):  # --model names settings of its own
        return []
    if "FLOAT" in takes:
        return ["nan", "inf", "many"] + ([] if flag in FINITE else ["-9999"])
    if "INT" in takes:
        several = len(re.findall(r"\bINT\b", takes))
        return [" ".join([one] * several) for one in ("many", "-9999", "1.5")]
    named = "{" in takes and takes not in ("{None}|PATH", "{None}|STR")
    return ["nonsense"] if named or (command, flag) in CLASSES else []


REFUSED = [
    (command, flag, word)
    for command in SIMULATED + ON_ARMS
    for flag, takes in flags(command).items()
    for word in wrong_words(command, flag, takes)
]


@pytest.mark.quick
@pytest.mark.parametrize(("command", "flag", "word"), REFUSED)
def test_what_a_flag_cannot_mean_is_refused(command, flag, word, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    line = f"{command} {NEEDED.get(command, '')} {flag} {word}"
    code, out, err = act(line)
    assert code == 2, err
    assert out == ""
    names = (flag.removeprefix("--"), flag.removeprefix("--").replace("-", "_"))
    assert any(name in err for name in names), err
    assert "Traceback" not in err
    assert not list(tmp_path.iterdir())
    if "--json" in help_of(command):
        code, out, _ = act(f"{line} --json")
        said = json.loads(out)
        assert (code, said["exit_code"]) == (2, 2)
        assert any(name in said["error"] for name in names)


# --- usage errors come before anything heavy ------------------------------------------

LIGHT = """
import sys, act_minimal.command.main as cli
heavy = {"torch", "mujoco", "h5py", "matplotlib", "gymnasium", "pyarrow", "cv2", "av"}
for line in sys.argv[1:]:
    try:
        cli.main(line.split())
    except SystemExit as end:
        assert end.code == 2, (line, end.code)
    assert not heavy & set(sys.modules), (line, heavy & set(sys.modules))
"""


def light(*lines, code=LIGHT, folder=None):
    command = [sys.executable, "-c", code, *lines]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", cwd=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.quick
def test_usage_errors_do_not_wait_for_heavy_libraries(tmp_path):
    light(
        "demo --task foo",
        "demo --seed -1",
        "train --policy foo",
        "train --data d --out o --chunk-size 0",
        "train --data d --out o --schedule linear",
        "train --data d --out o --action-target relative",
        "train --data d --out o --shift-px -1",
        "train --data d --out o --lr nan",
        "eval --policy p --task foo",
        "eval --policy p --n 0",
        "eval --policy p --mode ensemble --execute 3",
        "record --out o --n 0",
        "replay d --n 0",
        "course --lesson 10",
        "export-lerobot --policy p --out o --units feet",
        "data split d --into a --out o",
        "data merge",
        "fly",
        folder=tmp_path,
    )


def test_a_usage_error_is_answered_within_a_second():
    """Of processor time, which does not depend on who else is busy."""
    code = LIGHT + "import time; print(time.process_time())"
    assert float(light("demo --task foo", code=code).splitlines()[-1]) < 1.0


ARMS = """
import sys, act_minimal.command.main as cli
for line in sys.argv[1:]:
    try:
        cli.main(line.split())
    except SystemExit as end:
        assert end.code == 1, (line, end.code)  # there is no such port
    assert "hardware.robots" in sys.modules
    assert "torch" not in sys.modules, line
"""


@pytest.mark.quick
def test_an_arm_is_set_up_without_waiting_for_pytorch(tmp_path):
    light(
        "health --port nothing",
        "calibrate --port nothing",
        "teleop --port nothing",
        "health --robot openarm --port nothing,nothing",
        code=ARMS,
        folder=tmp_path,
    )


# --- commands that end by themselves: run, with every flag ----------------------------

TINY = "--steps 3 --batch-size 4 --chunk-size 4 --threads 1 --device cpu"
RUNS: list[tuple[str, int]] = [
    (
        "record --out {x}/demos --n 2 --task so100_pick_place --demonstrator scripted "
        "--cameras top --size 16 24 --compression raw --seed 3 --json",
        0,
    ),
    ("inspect {x}/demos --picture {x}/sheet.png --json", 0),
    ("replay {x}/demos --n 1 --film {x}/replay.mp4 --json", 0),
    (
        "train --data {x}/demos --out {x}/state --policy act --size medium "
        "--model width 16 heads 2 dropout 0.1 --action-target delta --limit 2 "
        "--pad zero --val-fraction 0.5 --state-noise 0.01 --lr 1e-3 --seed 1 "
        "--schedule constant --warmup-steps 1 --weight-decay 0.01 --grad-clip 1 "
        "--ema-decay 0.5 --bf16 --log-every 2 --val-every 2 --val-frames 8 "
        f"--save-every 2 --keep 1 --no-tensorboard --json {TINY}",
        0,
    ),
    (
        f"train --data {{x}}/demos --out {{x}}/absolute --no-tensorboard --json {TINY}",
        0,
    ),
    (
        "train --data {x}/demos --out {x}/vision --cameras top --use-env-state True "
        "--cache {x}/cache --resize 16 16 --resize-mode stretch "
        "--shift-px 2 --brightness 0.1 --contrast 0.1 "
        f"--saturation 0.1 --backbone-lr 1e-4 --no-tensorboard --json {TINY}",
        0,
    ),
    (
        "eval --policy {x}/state --task so100_pick_place --n 2 --seed 5 --device cpu "
        "--out {x}/rolled --film {x}/eval.mp4 --mode ensemble --m 0.1 "
        "--order newest_first --every 2 --json",
        0,
    ),
    ("eval --policy {x}/state --n 1 --fps 30 --mode receding --execute 2 --json", 0),
    (
        "train-residual --policy {x}/absolute --data {x}/demos --out {x}/corrected "
        "--oldest 2 --steps 3 --seed 1 --json",
        0,
    ),
    ("eval --policy {x}/corrected --n 1 --mode switch --delay 1 --json", 0),
    ("eval --policy {x}/state --n 1 --mode overlap --share 0.5 --delay 1 --json", 0),
    (
        "eval --policy {x}/state --n 1 --mode fade --fade 3 --delay 2 "
        "--delay-spread 2 --json",
        0,
    ),
    (
        "diagnose --policy {x}/absolute --data {x}/demos --task so100_pick_place --n 4 "
        "--seed 2 --html {x}/why.html --device cpu --mode ensemble --m 0.1 "
        "--order newest_first --every 2 --json",
        1,
    ),
    (
        "diagnose --policy {x}/absolute --data {x}/demos --trials {x}/demos "
        "--html {x}/why.html --mode receding --execute 2 --json",
        1,
    ),
    (
        "diagnose --policy {x}/absolute --data {x}/demos --trials {x}/demos "
        "--html {x}/why.html --mode fade --share 0.5 --fade 3 --json",
        1,
    ),
    ("demo --out {x}/d --task openarm_handover --vision --seed 4 --json", 0),
    ("doctor --json", 0),
    ("course --handout {x}/class.zip --json", 0),
    ("course --lesson 3 --browser False --port 9999 --json", 0),
    (
        f"export-lerobot --policy {STATE} --out {{x}}/there --drop-cvae "
        "--units so100 --mode receding --execute 3 --json",
        0,
    ),
    (
        f"export-lerobot --policy {STATE} --out {{x}}/no --drop-cvae --rename a=b "
        "--mode ensemble --m 0.1 --order newest_first --every 2 --json",
        2,
    ),
    (
        f"export-lerobot --policy {STATE} --out {{x}}/no --drop-cvae --mode overlap "
        "--share 0.5 --fade 3 --json",
        2,
    ),
    ("import-lerobot {x}/there --out {x}/back --units so100 --json", 0),
    ("import-lerobot {x}/there --out {x}/no --rename a=b --json", 2),
    (
        "import-lerobot {x}/w.safetensors --out {x}/no --statistics {x}/no.json "
        "--cameras top --size 480 640 --heads 8 --json",
        1,
    ),
    (f"export-onnx --policy {STATE} --out {{x}}/policy.onnx --json", 0),
    ("data merge {x}/demos {x}/more --out {x}/both --json", 0),
    (
        "data split {x}/both --into a=1 b=3 --out {x}/parts --seed 2 --in-order --json",
        0,
    ),
    ("data repair {x}/both --dry-run --json", 0),
    (
        "data convert {x}/demos {x}/theirs --to lerobot-v3.0 --robot so100 "
        "--units degrees --video h264 --lean --task reach --skip-broken --json",
        0,
    ),
    (
        "data convert {x}/theirs {x}/ours --to hdf5 --compression raw "
        "--colours rgb --json",
        0,
    ),
]
# Flags that no line above has, and where else a test gives them, or why none does.
ELSEWHERE = {
    ("train", "--compile"): "a minute of compiling; test_training.py",
    ("replay", "--task"): "test_bring_your_own.py",
    ("eval", "--network"): "test_bring_your_own.py",
    ("export-onnx", "--network"): "test_bring_your_own.py",
    ("diagnose", "--network"): "as eval's",
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """{line: (exit code, output, error)} of all the lines, run in their order."""
    folder = tmp_path_factory.mktemp("flags")
    results, given = {}, {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(doctor, "diagnose", lambda: [Check("python", "ok", "3")])

        def pretend(*words: Any, **settings: Any) -> dict:  # its own test does it all
            given["demo"] = (words, settings)
            return {"success": 1}

        patch.setattr(demo, "run_demo", pretend)
        for line, _ in RUNS:
            results[line] = act(line.format(x=folder))
            if line.startswith("record"):
                shutil.copytree(folder / "demos", folder / "more")
    return folder, results, given


@pytest.mark.parametrize(("line", "code"), RUNS, ids=lambda x: str(x)[:30])
def test_it_does_what_the_flags_say(made, line, code):
    _, results, _ = made
    got, out, err = results[line]
    assert got == code, err
    said = json.loads(out)
    found = "findings" in said  # of act diagnose, which ends with 1 if there are any
    assert ("error" in said) == (bool(code) and not found)
    if code and not found:
        assert said["exit_code"] == code


def test_the_flags_had_their_effect(made):
    folder, results, given = made
    config = json.loads((folder / "state/config.json").read_text(encoding="utf-8"))
    asked = {"action_target": "delta", "pad": "zero", "schedule": "constant"}
    asked |= {"keep": 1, "seed": 1, "limit": 2, "bf16": True, "val_fraction": 0.5}
    assert asked.items() <= config.items()
    kept = [path.name for path in (folder / "state/checkpoints").iterdir()]
    assert kept == ["3"]
    config = json.loads((folder / "vision/config.json").read_text(encoding="utf-8"))
    assert config["cache"] == str(folder / "cache")
    assert list((folder / "cache").rglob("top@16x16-stretch.npy"))
    assert given["demo"][0] == (folder / "d", "openarm_handover")
    assert given["demo"][1] == {"vision": True, "seed": 4, "progress": False}
    made_files = "sheet.png replay.mp4 eval.mp4 class.zip policy.onnx why.html"
    for name in made_files.split():
        assert (folder / name).stat().st_size > 1000, name
    lesson = next(line for line in results if line.startswith("course --lesson"))
    said = json.loads(results[lesson][1])
    assert Path(said["lesson"]).name.startswith("03_")
    assert {"--no-browser", "--port=9999"} <= set(said["command"])
    assert len(list((folder / "parts/a").glob("*.hdf5"))) == 1
    assert len(list((folder / "parts/b").glob("*.hdf5"))) == 3
    there = json.loads((folder / "there/config.json").read_text(encoding="utf-8"))
    assert there["n_action_steps"] == 3


@pytest.mark.quick
@pytest.mark.parametrize("command", SIMULATED)
def test_every_flag_is_run(command):
    lines = [line for line, _ in RUNS if line.startswith(f"{command} ")]
    words = {word for line in lines for word in line.split()}
    elsewhere = {flag for name, flag in ELSEWHERE if name == command}
    assert set(flags(command)) - words == elsewhere, "give it in a line of RUNS"


# --- commands that touch an arm: read from the words, and not run here ----------------

# For a flag of any command, or of one: the words, and what they mean.
ARM_FLAGS: dict[str, tuple[str, Any]] = {
    "--port": ("/dev/x", "/dev/x"),
    "virtual --port": ("x", Path("x")),
    "--robot": ("openarm", "openarm"),
    "--calibration": ("mine.json", Path("mine.json")),
    "--cameras": ("top=0 wrist=2", ("top=0", "wrist=2")),
    "--objects": ("virtual:x", "virtual:x"),
    "--apart": ("0.5", 0.5),
    "--fd": ("False", False),
    "--table": ("0.4", 0.4),
    "--gains": ("gentle", "gentle"),
    "--version": ("v1", "v1"),
    "--leader": ("/dev/y", "/dev/y"),
    "virtual --leader": ("", True),
    "--leader-calibration": ("its.json", Path("its.json")),
    "--gamepad": ("", True),
    "--task": ("openarm_handover", "openarm_handover"),
    "--fps": ("25", 25.0),
    "calibrate --leader": ("", True),
    "calibrate --robot": ("so101", "so101"),
    "--seconds": ("2.5", 2.5),
    "--size": ("48 64", (48, 64)),
    "--live": ("-1", -1),
    "--policy": ("runs/x", Path("runs/x")),
    "--network": ("mine:Net", "mine:Net"),
    "--trials": ("3", 3),
    "--data": ("demos", Path("demos")),
    "--html": ("runs/x.html", Path("runs/x.html")),
    "--dry-run": ("", True),
    "--out": ("runs/y", Path("runs/y")),
    "--scenes": ("4", 4),
    "--threads": ("2", 2),
    "--mode": ("ensemble", "ensemble"),
    "--execute": ("3", 3),
    "--m": ("0.5", 0.5),
    "--order": ("newest_first", "newest_first"),
    "--every": ("2", 2),
    "--share": ("0.4", 0.4),
    "--fade": ("3", 3),
    "--n": ("7", 7),
    "--thumbnails": ("pictures", Path("pictures")),
    "--restore": ("", True),
    "--scene": ("5", 5),
    "--fresh": ("", True),
    "--seed": ("6", 6),
}
ARM_ROWS = [(command, flag) for command in ON_ARMS for flag in flags(command)]


@pytest.mark.quick
@pytest.mark.parametrize(("command", "flag"), ARM_ROWS)
def test_every_flag_of_an_arms_command_arrives(command, flag):
    row = ARM_FLAGS.get(f"{command} {flag}") or ARM_FLAGS.get(flag)
    assert row, f"act {command} {flag} has no row in ARM_FLAGS"
    words = f"{NEEDED.get(command, '')} {flag} {row[0]}".split()
    if flag == "--port":
        words = f"{flag} {row[0]}".split()
    name, *first = command.split()
    found = cli._find(name, [*first, *words], False)
    assert isinstance(found, functools.partial)
    settings = dict(found.keywords)
    for value in [*found.args, *found.keywords.values()]:
        for part in (value, getattr(value, "execution", None)):
            settings |= getattr(part, "__dict__", {})
    assert settings[flag.removeprefix("--").replace("-", "_")] == row[1]
