"""Libraries that not everybody needs, and the line that installs them from here.

The policy side (datasets, training, policies, execution, control) needs none of them,
so that it can stand beside another simulator, which may want another MuJoCo.
"""

import importlib.util
import shlex
import sys
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Literal

from packaging.requirements import Requirement

from .errors import UserError

NAME = "act-minimal"
ROOT = Path(__file__).parents[2]

Extra = Literal["sim", "arms", "course", "gamepad", "onnx"]
# What each is imported as. Names and versions to install are in pyproject.toml.
MODULES: dict[Extra, tuple[str, ...]] = {
    "sim": ("mujoco", "gymnasium", "mink", "openarm_mujoco", "daqp"),
    "arms": ("serial", "can"),
    "course": ("jupyterlab", "ipywidgets", "filelock"),
    "gamepad": ("pygame",),
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
}


class MissingExtra(UserError, ImportError):
    """A library is not installed, or too old; holds the line that installs it."""


def require(extra: Extra, *modules: str) -> None:
    """MissingExtra, which says how to install it, if an extra's library is not here."""
    for module in modules or MODULES[extra]:
        if not is_here(module):
            raise MissingExtra(
                f"{module} is not installed; install it with: {install_line(extra)}"
            )
    for wanted in requirements(extra):
        try:
            found = metadata.version(wanted.name)
        except metadata.PackageNotFoundError:
            continue  # it can be imported, whoever brought it
        if not wanted.specifier.contains(found, prereleases=True):
            raise MissingExtra(
                f"{wanted.name} {found} is installed, {wanted.specifier} is needed; "
                f"install it with: {install_line(extra)}"
            )


def is_here(module: str) -> bool:
    """Whether a module can be imported; it is not imported for that."""
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def requirements(extra: Extra | None = None) -> Iterator[Requirement]:
    """What an extra asks for, or what the package always does, as it is installed."""
    try:
        texts = metadata.requires(NAME) or []
    except metadata.PackageNotFoundError:  # its folder is on the path, no more
        texts = []
    for text in texts:
        wanted = Requirement(text)
        if wanted.name == NAME:
            continue  # an extra made of others
        if wanted.marker is None:
            needed = extra is None
        else:
            plain = wanted.marker.evaluate({"extra": ""})
            needed = wanted.marker.evaluate({"extra": extra or ""})
            needed = needed if extra is None else needed and not plain
        if needed:
            yield wanted


def install_line(extra: Extra | None = None) -> str:
    """The line to type for an extra, or for the package's own libraries.

    It is on no index: a clone installs itself, and elsewhere the libraries are named.
    """
    if _is_uvs():
        return f"uv sync{_project()}" + (f" --extra {extra}" if extra else "")
    if _is_clone(ROOT):
        where = "." if Path.cwd() == ROOT else str(ROOT)
        what = shlex.quote(where + (f"[{extra}]" if extra else ""))
        return f"{_pip()} -e {what}"
    return f"{_pip()} {' '.join(map(_quoted, requirements(extra)))}"


def upgrade_line(wanted: Requirement) -> str:
    """The line to type for a library whose version is out of range."""
    if _is_uvs():
        return f"uv sync{_project()} --upgrade-package {wanted.name}"
    return f"{_pip()} {_quoted(wanted)}"


def _is_uvs() -> bool:
    return _is_clone(ROOT) and Path(sys.prefix) == ROOT / ".venv"


def _project() -> str:
    return "" if Path.cwd() == ROOT else f" --project {shlex.quote(str(ROOT))}"


def _quoted(wanted: Requirement) -> str:
    parts = f"[{','.join(sorted(wanted.extras))}]" if wanted.extras else ""
    return shlex.quote(f"{wanted.name}{parts}{wanted.specifier}")


def _pip() -> str:
    python = shlex.quote(sys.executable)
    if is_here("pip"):
        return f"{python} -m pip install"
    return f"uv pip install --python {python}"


def _is_clone(root: Path) -> bool:
    try:
        content = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return content.get("project", {}).get("name") == NAME
