"""What other packages and a user's own files offer this one.

The arms are a package of their own (`hardware`), which pyproject.toml announces in the
entry points `act_minimal.plugins`; nothing here imports it. Tasks, arms, networks and
executors of one's own are named on the command line as `module:Class`.
"""

import importlib
import sys
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from .errors import SettingError, UserError

GROUP = "act_minimal.plugins"


def plugin(name: str) -> Any:
    """What is announced under a name, imported now; UserError if it is not once."""
    found = entry_points(group=GROUP, name=name)
    if len(found) != 1:
        raise UserError(
            f"{len(found)} installed packages offer {name!r} in the entry points "
            f"{GROUP}, expected one; install the project again: uv sync"
        )
    [entry] = found
    return entry.load()


def load_class(path: str, needs: tuple[str, ...]) -> Any:
    """A class of a user's own, by its `module:Class`, with the attributes it `needs`.

    The module may be a file in the folder where the command runs.

    Raises:
        SettingError: there is no such module or class, or it lacks one of `needs`.
    """
    module, _, name = path.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found = importlib.import_module(module)
    except Exception as error:  # of whatever kind: it is somebody's own code
        missing = isinstance(error, ModuleNotFoundError) and error.name
        if missing not in (module, module.partition(".")[0]):
            raise SettingError(
                f"'{module}' of {path} cannot be imported ({type(error).__name__}: "
                f"{error})"
            ) from error
        raise SettingError(
            f"there is no module '{module}' for {path}; expected it installed, or as "
            f"{module.replace('.', '/')}.py in {here}"
        ) from None
    if not hasattr(found, name):
        known = [key for key, value in vars(found).items() if isinstance(value, type)]
        raise SettingError(
            f"{found.__file__} has no class '{name}'; its classes are: "
            f"{', '.join(known) or 'none'}"
        )
    if missing := [one for one in needs if not hasattr(getattr(found, name), one)]:
        raise SettingError(
            f"{path} lacks {', '.join(missing)}; see docs/bring_your_own.md"
        )
    return getattr(found, name)
