"""What goes to the terminal: any text, whatever it can show, and colours if wanted."""

import ast
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from act_minimal.command import doctor
from act_minimal.command import main as cli
from act_minimal.command.doctor import Check
from act_minimal.episodes import Episode, save_episode
from act_minimal.support import console
from act_minimal.support.console import make_console, plain, prepare_output

pytestmark = pytest.mark.mostly_quick

ENCODINGS = ("cp1252", "latin-1", "ascii")
NAME = "Würfel greifen, 把红色方块"  # as a task or a folder may be called


class Terminal(io.TextIOWrapper):
    """Standard output as a terminal of some encoding, that remembers."""

    def __init__(self, encoding: str, terminal: bool = False):
        super().__init__(io.BytesIO(), encoding=encoding, errors="strict")
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal

    def said(self) -> str:
        self.flush()
        raw = self.buffer
        assert isinstance(raw, io.BytesIO)
        return raw.getvalue().decode(self.encoding)


@pytest.fixture
def act(monkeypatch):
    """Runs `act` with outputs of an encoding: (exit code, output, error output)."""

    def run(encoding, *words, terminal=False):
        out, err = Terminal(encoding, terminal), Terminal(encoding, terminal)
        monkeypatch.setattr(sys, "stdout", out)
        monkeypatch.setattr(sys, "stderr", err)
        with pytest.raises(SystemExit) as end:
            cli.main([str(word) for word in words])
        return end.value.code, out.said(), err.said()

    return run


@pytest.fixture
def episodes(tmp_path):
    """A folder of episodes, with a name and a task that are not ASCII."""
    folder = tmp_path / NAME
    numbers = np.zeros((5, 6), np.float32)
    for i in range(2):
        episode = Episode(*[numbers] * 4, fps=30.0, attributes={"task": NAME})
        save_episode(folder / f"episode_{i}.hdf5", episode)
    return folder


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "plain"),
        ("96 × 128 → 3 rad/s³", "96 x 128 -> 3 rad/s3"),
        ("21 °C, Würfel, 50 µs", "21 degC, Wurfel, 50 us"),
        ("╭─┬╮│x│", "+-++|x|"),
        ("━━━ 把 \udcff", "--- ? ?"),
    ],
)
def test_characters_have_a_likeness(text, expected):
    assert plain(text) == expected


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_only_what_an_output_lacks_is_replaced(monkeypatch, encoding):
    stream = Terminal(encoding)
    monkeypatch.setattr(sys, "stdout", stream)
    prepare_output()
    print("ü×→把\udcff")
    spoken = {"cp1252": "ü×->??\n", "latin-1": "ü×->??\n", "ascii": "ux->??\n"}
    assert stream.said().replace("\r\n", "\n") == spoken[encoding]


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("name", [*cli.COMMANDS, *cli.ARM_COMMANDS])
def test_help_and_usage_errors_print_everywhere(act, name, encoding):
    code, out, _ = act(encoding, name, "--help")
    assert code == 0
    assert f"usage: act {name}" in out
    code, _, err = act(encoding, name, f"--{NAME}")
    assert code == 2
    assert "For full helptext" in err


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_tables_print_everywhere(act, episodes, monkeypatch, tmp_path, encoding):
    code, out, _ = act(encoding, "inspect", episodes)
    assert code == 0
    assert "2 readable, 0 broken" in out
    assert "rfel greifen" in out
    checks = [
        Check("Würfel", "ok", "drawn by …Mesa™ in 3 × 4 °C"),
        Check("b", "ok", ""),
    ]
    monkeypatch.setattr(doctor, "diagnose", lambda: checks)
    code, out, _ = act(encoding, "doctor")
    assert code == 0
    assert "3 x 4" in out or "3 × 4" in out
    one = {"rate": 0.5, "interval": [0.1, 0.9], "n": 4, "seconds_to_success": None}
    one |= {"train_seconds": 1.0}
    made = tmp_path / f"demo {NAME}"
    made.mkdir()
    content = json.dumps({"act": one, "single_step": one})
    (made / "result.json").write_text(content, encoding="utf-8")
    settings = {"task": "so100_pick_place", "vision": False, "seed": 0}
    stages = json.dumps({"settings": settings})
    (made / "stages.json").write_text(stages, encoding="utf-8")
    code, out, _ = act(encoding, "demo", "--out", made)
    assert code == 0
    assert "All of it was in" in out
    code, out, _ = act(encoding, "inspect", episodes / "nowhere")
    assert code == 1


def test_a_bar_prints_everywhere(act, tmp_path):
    words = ["record", "--out", tmp_path / NAME, "--n", "1"]
    code, out, err = act("ascii", *words, "--demonstrator", "scripted")
    assert code == 0
    assert "1 episodes in" in out
    assert "recording" in err


@pytest.mark.parametrize(
    ("value", "coloured"), [(None, True), ("", True), ("1", False)]
)
def test_no_color_is_obeyed(act, monkeypatch, value, coloured):
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    if value is not None:
        monkeypatch.setenv("NO_COLOR", value)
    monkeypatch.setenv("TERM", "xterm-256color")
    checks = [Check("python", "missing", "none", "install it")]
    monkeypatch.setattr(doctor, "diagnose", lambda: checks)
    _, out, _ = act("utf-8", "doctor", terminal=True)
    assert ("\x1b[" in out) == coloured
    _, out, _ = act("utf-8", "record", "--help", terminal=True)
    assert ("\x1b[" in out) == coloured
    _, _, err = act("utf-8", "record", "--nope", terminal=True)
    assert ("\x1b[" in err) == coloured


def consoles(code):
    """Lines that make a console of rich's, or use the one that it makes by itself."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom) and node.module == "rich":
            if {one.name for one in node.names} & {"print", "get_console", "inspect"}:
                yield node.lineno
        elif isinstance(node, ast.Call):
            owner, _, name = ast.unparse(node.func).rpartition(".")
            given = {word.arg for word in node.keywords}
            alone = name in ("Live", "Progress") and "console" not in given
            if alone or name in ("Console", "get_console") or owner == "rich":
                yield node.lineno


def test_every_console_is_made_in_one_place():
    """Rich's own would keep bold where NO_COLOR is set."""
    root, seen = Path(console.__file__).parents[2], set()
    for package in ("act_minimal", "hardware", "course", "benchmarks"):
        for path in sorted((root / package).rglob("*.py")):
            seen.add(path.relative_to(root).as_posix())
            lines = list(consoles(path.read_text(encoding="utf-8")))
            assert path == Path(console.__file__) or not lines, f"{path}: {lines}"
    assert {"act_minimal/command/doctor.py", "hardware/command/display.py"} <= seen
    assert make_console(width=33).width == 33


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("Console(width=80)", True),
        ("rich.console.Console()", True),
        ("Live(auto_refresh=False)", True),
        ("Live(console=make_console())", False),
        ("rich.print('a')", True),
        ("from rich import print", True),
        ("from rich.table import Table", False),
        ("console = make_console()", False),
    ],
)
def test_another_console_would_be_found(code, found):
    assert bool(list(consoles(code))) == found


@pytest.mark.slow
def test_a_program_in_latin_1_prints_its_tables(episodes):
    """As a program, where Python itself chose the output's encoding."""
    command = [sys.executable, "-m", "act_minimal", "inspect", str(episodes)]
    latin = os.environ | {"PYTHONIOENCODING": "latin-1"}
    run = subprocess.run(command, capture_output=True, env=latin)
    assert run.returncode == 0, run.stderr
    assert b"W\xfcrfel greifen, ???" in run.stdout
