"""Files that are written wholly or not at all."""

import contextlib
import errno
import json
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from act_minimal.errors import UserError

_WRITING: set[Path] = set()  # temporaries of this process that are still in use


@contextlib.contextmanager
def atomic_file(
    path: str | Path, error_type: type[UserError] = UserError
) -> Iterator[Path]:
    """Gives a temporary name beside `path`, and renames it to `path` at a clean end.

    The content reaches the disk before the name changes, so that even a power cut
    leaves the whole new file or what was there before. After an exception nothing is
    left; after kill -9 a hidden temporary is, which the next call in the same folder
    removes.

    Raises:
        UserError: The disk is full, or the place cannot be written to; of the type
            `error_type`.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(path.parent)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        _WRITING.add(temporary)
        try:
            yield temporary
            with open(temporary, "rb+") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            _WRITING.discard(temporary)
            temporary.unlink(missing_ok=True)
    except OSError as error:
        text = str(error)  # HDF5 hides the number of the fault in its message
        hidden = re.search(r"errno = (\d+)", text)
        number = int(hidden[1]) if hidden else error.errno
        if number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            why = "no space left on the disk; free some, or choose another place"
        else:
            why = os.strerror(number) if number else text
        raise error_type(f"{path} could not be written: {why}") from error


def reserve(path: Path, size: int) -> None:
    """Makes an existing file at least `size` bytes long, backed by room on the disk.

    Raises:
        OSError: There is no such room.
    """
    with open(path, "rb+") as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
        else:  # macOS, Windows: fill it
            file.seek(0, os.SEEK_END)
            for start in range(file.tell(), size, 2**20):
                file.write(bytes(min(2**20, size - start)))


def write_json(path: str | Path, content: Any) -> None:
    """Writes JSON that a person can read, wholly or not at all; NaN is refused."""
    text = json.dumps(content, indent=2, allow_nan=False) + "\n"
    with atomic_file(path) as temporary:
        temporary.write_text(text)


def _remove_abandoned(folder: Path) -> None:
    """Removes temporaries whose process is gone."""
    for path in folder.glob(".*.tmp"):
        match = re.fullmatch(r"\..+\.(\d+)\.tmp", path.name)
        if match is None or path in _WRITING:
            continue
        pid = int(match[1])
        with contextlib.suppress(FileNotFoundError):
            if pid == os.getpid():  # ours by number, but not being written
                alive = False
            elif os.name == "posix":
                try:
                    os.kill(pid, 0)  # signal 0 asks, and does nothing
                    alive = True
                except ProcessLookupError:
                    alive = False
                except PermissionError:
                    alive = True
            else:  # elsewhere that call would end the process: go by age
                alive = time.time() - path.stat().st_mtime < 3600
            if not alive:
                path.unlink(missing_ok=True)
