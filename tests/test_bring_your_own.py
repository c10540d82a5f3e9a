"""docs/bring_your_own.md: its files and commands, run in an empty folder."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "bring_your_own.md").read_text(encoding="utf-8")
STATE = ROOT / "data/checkpoints/so100_pick_place_state"
BLOCK = re.compile(r"^```(python|bash) ?(\S*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def sections() -> dict[str, str]:
    """Title -> text of each part of the page that has something to run."""
    parts = re.split(r"^## (.+)\n", PAGE, flags=re.MULTILINE)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


def run(line: str, folder: Path) -> subprocess.CompletedProcess:
    program, *words = shlex.split(line)
    command = {"act": ["-m", "act_minimal"], "python": []}[program]
    return subprocess.run(
        [sys.executable, *command, *words],
        cwd=folder,
        capture_output=True,
        encoding="utf-8",
        env=os.environ | {"PYTHONPATH": os.environ.get("PYTHONPATH", "")},
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An empty folder outside of the repository, with the page's files in it."""
    folder = tmp_path_factory.mktemp("bring_your_own")
    for kind, name, text in BLOCK.findall(PAGE):
        if kind == "python":
            (folder / name).write_text(text, encoding="utf-8")
    (folder / "broken.py").write_text("class Task(:", encoding="utf-8")
    return folder


def test_the_page_runs_as_it_stands(folder):
    said = {}
    for kind, _, text in BLOCK.findall(PAGE):
        for line in text.splitlines() if kind == "bash" else ():
            done = run(line, folder)
            assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
            said[line] = done.stdout
    [reached] = [out for line, out in said.items() if line.endswith("Reach --n 20")]
    assert int(re.search(r"success (\d+)", reached)[1]) > 50  # %
    assert "(1, 10, 2)" in said["python use_reach.py"]
    assert "100 ticks" in said["python pendulum.py"]
    assert int(re.match(r"(\d+) of 20", said["python halfway.py"])[1]) > 10


@pytest.mark.quick
def test_every_section_has_something_to_run():
    for title, text in sections().items():
        kinds = {kind for kind, _, _ in BLOCK.findall(text)}
        assert kinds == {"python", "bash"}, title


def test_files_get_no_code_imported(folder):
    """Who opens a checkpoint or an episode has to name the class that is in it."""
    if not (folder / "runs" / "linear").exists():
        pytest.skip("the page has not run")
    done = run("act eval --policy runs/linear --task reach:Reach --n 1", folder)
    assert done.returncode == 1
    assert "'linear:Linear'" in done.stderr
    assert "--network" in done.stderr
    done = run("act replay reach_demos", folder)
    assert done.returncode == 1
    assert "recorded in the task 'reach'" in done.stderr
    assert "--task" in done.stderr


@pytest.mark.quick
@pytest.mark.parametrize(
    ("line", "says"),
    [
        (f"act eval --policy {STATE} --task no:Here", "no module 'no' for no:Here"),
        ("act record --out o --task reach:Nobody", "has no class 'Nobody'"),
        ("act record --out o --task newest:Newest", "newest:Newest lacks name, robot"),
        ("act train --data d --out o --policy newest:Newest", "lacks Config, forward"),
        ("act record --out o --task reach.Reach", "expected one of"),
        ("act record --out o --task broken:Task", "cannot be imported (SyntaxError"),
        (
            f"act export-lerobot --policy {STATE} --out o --drop-cvae "
            "--mode newest:Newest",
            "which LeRobot does not have",
        ),
    ],
)
def test_what_is_not_there_is_one_sentence(folder, line, says):
    done = run(line, folder)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert says in " ".join(done.stderr.replace("│", " ").split())  # it may be framed
