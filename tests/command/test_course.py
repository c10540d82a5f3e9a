"""`act course`: what it opens, where, and what a hand-out holds."""

import json
import os
import posixpath
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import zipfile
from pathlib import Path

import nbformat
import pytest

from act_minimal.command import course as classroom
from act_minimal.support.errors import SettingError, UserError

ACT = Path(sys.executable).with_name("act")


@pytest.mark.quick
def test_lessons_are_found_by_number():
    assert classroom.find_lesson("4").name == "04_temporal_ensembling.ipynb"
    assert classroom.find_lesson("04") == classroom.find_lesson("4")
    assert classroom.find_lesson("f1").name == "F1_real_time.ipynb"
    with pytest.raises(SettingError, match=r"no lesson 77; the lessons are: 0\d_"):
        classroom.find_lesson("77")


@pytest.mark.quick
def test_a_folder_without_notebooks_is_explained(tmp_path):
    with pytest.raises(UserError, match="come with the repository"):
        classroom.notebooks(tmp_path)


@pytest.mark.quick
def test_without_a_display_no_browser_is_opened(monkeypatch):
    monkeypatch.setattr(sys, "platform", "linux")
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    assert not classroom.has_display()
    monkeypatch.setenv("WAYLAND_DISPLAY", "wayland-0")
    assert classroom.has_display()
    lesson = classroom.find_lesson("4")
    assert "--no-browser" in classroom.lab_command(lesson, browser=False)
    command = classroom.lab_command(lesson, browser=True, port=8123)
    assert "--no-browser" not in command
    assert "--port=8123" in command


@pytest.mark.quick
def test_the_course_s_settings_come_before_one_s_own_paths(monkeypatch):
    ours = str(classroom.ROOT / "course" / "jupyterlab")
    monkeypatch.delenv("JUPYTER_CONFIG_PATH", raising=False)
    assert classroom.lab_environment()["JUPYTER_CONFIG_PATH"] == ours
    monkeypatch.setenv("JUPYTER_CONFIG_PATH", "mine")
    both = f"{ours}{os.pathsep}mine"
    assert classroom.lab_environment()["JUPYTER_CONFIG_PATH"] == both


@pytest.mark.quick
def test_jupyterlab_is_started_with_the_course_s_settings(monkeypatch):
    started = {}

    def start(*words, env=None):
        started.update(env or words[-1])
        return subprocess.CompletedProcess(words, 0)

    monkeypatch.setattr(os, "execve", start)  # where it takes this process's place
    monkeypatch.setattr(subprocess, "run", start)
    assert classroom.open_lab(classroom.find_lesson("4"), browser=False) == 0
    assert started["JUPYTER_CONFIG_PATH"].startswith(str(classroom.ROOT))


@pytest.mark.quick
def test_a_port_in_use_is_refused_before_jupyterlab_starts():
    with socket.socket() as other:
        other.bind(("localhost", 0))
        other.listen()
        port = other.getsockname()[1]
        words = [ACT, "course", "--port", str(port), "--browser", "False"]
        found = subprocess.run(words, capture_output=True, text=True, timeout=600)
    assert found.returncode == SettingError.exit_code
    assert f"port {port} cannot be opened (Address already in use)" in found.stderr
    assert "display" not in found.stdout
    classroom.check_port(port)
    # If somebody takes it meanwhile, JupyterLab ends instead of moving on.
    command = classroom.lab_command(classroom.find_lesson("4"), browser=True, port=port)
    assert "--ServerApp.port_retries=0" in command


@pytest.mark.quick
def test_a_hand_out_holds_no_solutions(tmp_path):
    names = classroom.hand_out(tmp_path / "class.zip")
    lessons = classroom.ROOT / "notebooks"
    places = [path.relative_to(lessons).as_posix() for path in classroom.notebooks()]
    assert names == places
    assert "further/F1_real_time.ipynb" in names
    with zipfile.ZipFile(tmp_path / "class.zip") as archive:
        for name in names:
            text = archive.read(f"notebooks/{name}").decode()
            handed = nbformat.reads(text, as_version=4)
            whole = nbformat.read(classroom.ROOT / "notebooks" / name, as_version=4)
            kept = [c for c in whole.cells if not c.id.endswith("-solution")]
            assert [c.source for c in handed.cells] == [c.source for c in kept]
            assert "The solution, one click away" not in text
            for link in re.findall(r"\]\((\.\./[^)#]+)", text):
                place = os.path.normpath(Path("notebooks", name).parent / link)
                assert Path(place).as_posix() in archive.namelist()
        page = archive.read("docs/glossary.md").decode()
        for link in re.findall(r"\]\(([^)#:]+)\)", page):
            assert f"docs/{link}" in archive.namelist()
    first = (tmp_path / "class.zip").read_bytes()
    classroom.hand_out(tmp_path / "class.zip")
    assert (tmp_path / "class.zip").read_bytes() == first


def test_jupyterlab_opens_at_the_lesson_and_prints_its_address():
    """The real JupyterLab, as `act course` starts it on a machine without a display."""
    words = ["course", "--browser", "False"]
    with subprocess.Popen(
        [ACT, *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            assert process.stdout is not None
            said = ""
            while "token=" not in said:
                line = process.stdout.readline()
                assert line, f"JupyterLab ended: {said}"
                said += line
            assert "no display here: open the address below" in said
            assert "FutureWarning" not in said
            assert "[I " not in said
            [address] = re.findall(r"http://localhost\S+", said)
            assert "/lab/tree/notebooks/00_start_here.ipynb?" in address
            base, token = re.findall(r"(http://localhost:\d+).*token=(\w+)", said)[0]
            contents = f"{base}/api/contents"
            lesson = "notebooks/00_start_here.ipynb"
            answer = fetch(f"{contents}/{lesson}?token={token}")
            assert answer["type"] == "notebook"
            for link in relative_links(answer["content"]):
                path = posixpath.normpath(f"notebooks/{link}")
                assert fetch(f"{contents}/{path}?token={token}&content=0")["name"]
            # "Would you like to get notified about official Jupyter news?"
            plugin = "@jupyterlab/apputils-extension:notification"
            settings = fetch(f"{base}/lab/api/settings/{plugin}?token={token}")
            asked = settings["schema"]["properties"]
            assert asked["fetchNews"]["default"] == "false"
            assert asked["checkForUpdates"]["default"] is False
            plugin = "@jupyterlab/docmanager-extension:plugin"
            settings = fetch(f"{base}/lab/api/settings/{plugin}?token={token}")
            viewers = settings["schema"]["properties"]["defaultViewers"]
            assert viewers["default"] == {"markdown": "Markdown Preview"}
        finally:
            process.terminate()
            process.communicate(timeout=600)


def relative_links(notebook):
    """Links of a notebook's prose that name a file, without a place in it."""
    prose = [c["source"] for c in notebook["cells"] if c["cell_type"] == "markdown"]
    links = re.findall(r"\]\(([^)\s]+)\)", "\n".join(prose))
    files = [link.partition("#")[0] for link in links]
    return [link for link in files if link and not re.match(r"[a-z]+:", link)]


@pytest.mark.quick
def test_links_of_the_lessons_lead_to_what_is_served():
    found = 0
    for lesson in classroom.notebooks():
        words = classroom.lab_command(lesson, browser=False)
        [served] = [w.split("=")[1] for w in words if w.startswith("--notebook-dir=")]
        [opened] = [w.split("tree/")[1] for w in words if "default_url" in w]
        assert Path(served, opened).samefile(lesson)
        for edition in (lesson, lesson.parent / "solutions" / lesson.name):
            for link in relative_links(nbformat.read(edition, as_version=4)):
                target = (edition.parent / link).resolve()
                assert target.is_relative_to(Path(served).resolve()), (
                    f"{edition}: {link}"
                )
                assert target.exists(), f"{edition}: {link}"
                found += 1
    assert found > 20


def fetch(url, seconds=120):
    """The JSON at an address; a server that is just starting is asked again."""
    end = time.monotonic() + seconds
    while True:
        try:
            with urllib.request.urlopen(url, timeout=seconds) as answer:
                return json.load(answer)
        except urllib.error.URLError:
            if time.monotonic() > end:
                raise
            time.sleep(0.5)
