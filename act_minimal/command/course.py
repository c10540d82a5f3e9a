"""The notebooks as a class uses them: opened in JupyterLab, or handed out as a zip."""

import os
import socket
import subprocess
import sys
import zipfile
from pathlib import Path

from ..support.errors import SettingError, UserError
from ..support.files import atomic_file, check_output_file, reason

ROOT = Path(__file__).parents[2]


def notebooks(folder: Path | None = None) -> list[Path]:
    """The learner's notebooks, in order; UserError without the repository."""
    folder = folder or ROOT / "notebooks"
    found = sorted(folder.glob("[0-9][0-9]_*.ipynb"))
    found += sorted(folder.glob("further/F[0-9]_*.ipynb"))
    if not found:
        raise UserError(
            f"{folder} holds no notebooks; they come with the repository, not with the "
            "package: clone it, and run this command there"
        )
    return found


def find_lesson(name: str) -> Path:
    """The notebook of a lesson, "4" or "F1"; SettingError if there is no such."""
    known = {path.name[:2].removeprefix("0"): path for path in notebooks()}
    wanted = name.upper().removeprefix("0") or "0"
    if wanted not in known:
        raise SettingError(
            f"there is no lesson {name}; the lessons are: "
            f"{', '.join(path.stem for path in known.values())}"
        )
    return known[wanted]


def has_display() -> bool:
    """Whether a browser has a screen to open on."""
    if sys.platform in ("win32", "darwin"):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def lab_command(lesson: Path, *, browser: bool, port: int | None = None) -> list[str]:
    """The command that opens JupyterLab at a lesson, or prints its address.

    It serves the folder around that of the lessons, as they link to `docs`.
    """
    command = [sys.executable, "-m", "jupyterlab"]
    folder = lesson.parent
    served = folder.parents[1 if folder.name == "further" else 0]
    # Not as a file to open: the address that is printed would not lead to it.
    place = lesson.relative_to(served).as_posix()
    command.append(f"--LabApp.default_url=/lab/tree/{place}")
    # The list of files begins at the lessons.
    command.append(f"--notebook-dir={served}")
    inside = folder.relative_to(served).as_posix()
    command.append(f"--FileContentsManager.preferred_dir={inside}")
    # The chatter of the server and of the lab left out, the address remains.
    command += ["--log-level=WARN", "--LabApp.log_level=WARN"]
    if not browser:
        command.append("--no-browser")
    if port is not None:
        command += [f"--port={port}", "--ServerApp.port_retries=0"]  # no other one
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        command.append("--allow-root")  # containers and class machines
    return command


def lab_environment() -> dict[str, str]:
    """The environment of JupyterLab, with the course's settings as its defaults.

    Without them it begins by asking whether one wants Jupyter's news.
    """
    found = os.environ.get("JUPYTER_CONFIG_PATH")
    paths = [str(ROOT / "course" / "jupyterlab"), *([found] if found else [])]
    return os.environ | {"JUPYTER_CONFIG_PATH": os.pathsep.join(paths)}


def check_port(port: int) -> None:
    """Refuses a port that JupyterLab cannot have; SettingError says why."""
    with socket.socket() as probe:
        if os.name == "posix":  # what another server has just left is free
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("localhost", port))
        except OSError as error:
            raise SettingError(
                f"port {port} cannot be opened ({reason(error)}); choose another one, "
                "or leave --port out to get a free one"
            ) from error


def open_lab(lesson: Path, *, browser: bool, port: int | None = None) -> int:
    """Run JupyterLab until it is stopped; returns its exit code."""
    command = lab_command(lesson, browser=browser, port=port)
    if os.name == "posix":  # in this process's place, so that it gets the signals
        os.execve(command[0], command, lab_environment())
    return subprocess.run(command, env=lab_environment()).returncode


def hand_out(path: Path) -> list[str]:
    """Zip what a class needs to begin, without solutions, outputs or teacher's notes.

    The learner's notebooks hold each solution behind a click; here those cells are
    taken out, so that it can be given as homework. Returns the notebooks' names.

    Raises:
        SettingError: the name does not end in .zip, or cannot be written to.
    """
    import nbformat

    check_output_file(path, "handout", ".zip")
    names = []
    with (
        atomic_file(path) as temporary,
        zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive,
    ):
        for lesson in notebooks():
            notebook = nbformat.read(lesson, as_version=4)
            notebook.cells = [
                cell for cell in notebook.cells if not cell.id.endswith("-solution")
            ]
            # A fixed date: the same notebooks give the same file.
            place = lesson.relative_to(ROOT / "notebooks").as_posix()
            entry = zipfile.ZipInfo(f"notebooks/{place}")
            archive.writestr(entry, nbformat.writes(notebook) + "\n")
            names.append(place)
        entry = zipfile.ZipInfo("docs/glossary.md")  # the lessons link to it
        archive.writestr(entry, (ROOT / entry.filename).read_text(encoding="utf-8"))
    return names
