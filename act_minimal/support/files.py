"""Files and folders that are written wholly or not at all, and never over others'.

Whatever stops a write (an error, Ctrl-C, kill -9, a power cut): under the name is what
was there before, or the whole of what is new. The new content is made under a hidden
temporary name in the same folder, reaches the disk, and is renamed.

A folder is replaced only if its marker says that the same writer made all of it.
"""

import contextlib
import ctypes
import errno
import functools
import hashlib
import itertools
import json
import os
import re
import shutil
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from .errors import SettingError, UserError

MARKER = "act_minimal.json"  # in a folder that may be replaced: who made it, and what
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
ABANDONED_AFTER = 24 * 3600.0  # s since the last write of a process that we cannot ask
# What a folder can be, and the files that tell.
KINDS = {
    "episodes": ("*.hdf5", "*.h5", "*.HDF5"),
    "a LeRobot dataset": ("meta/info.json",),
    "a checkpoint": ("model.safetensors",),
    "a training run": ("log.jsonl", "checkpoints"),
    "rollouts": ("rollouts_*.safetensors",),
    "a tally of trials": ("tally.json",),
    "a demo": ("stages.json",),
}
# Those that are replaced or removed as wholes, and all the files that tell.
WHOLES = {
    "a checkpoint": ("config.json", "model.safetensors"),
    "a LeRobot dataset": ("meta/info.json",),
}

_WRITING: set[Path] = set()  # temporaries of this process that are still in use
_NUMBERS = itertools.count()
# .<name>.<machine>-<process>-<number>.tmp (being written) or .old (being replaced)
_TEMPORARY = re.compile(r"\.(.+)\.([0-9a-f]{8})-(\d+)-\d+\.(tmp|old)")


# --- what may be written where --------------------------------------------------------


def check_output_file(path: str | Path, flag: str, suffix: str = "") -> None:
    """Refuses a name for a file before hours of work go into the file.

    Args:
        path: where it is to be written; a file of the same kind is replaced.
        flag: the setting that names it, for messages.
        suffix: that the name must have, such as ".mp4"; "" takes any.

    Raises:
        SettingError: another suffix, a folder or a device of that name, or a place
            that cannot be written to.
    """
    path = Path(path)
    if suffix and path.suffix.lower() != suffix:
        raise SettingError(f"{flag} is {path}, expected a name that ends in {suffix}")
    _check_parent(path, flag)
    if fault := _not_a_file(path):
        raise SettingError(f"{flag} is {path}, {fault}")
    if suffix and path.is_symlink() and path.resolve().suffix.lower() != suffix:
        raise SettingError(
            f"{flag} is {path}, a link to {path.resolve()}, expected one to a name "
            f"that ends in {suffix}"
        )
    whole, parent = _whole_around(Path(os.path.realpath(path)))
    if whole == "a LeRobot dataset":
        raise SettingError(
            f"{flag} is {path}, inside {whole} ({parent}); expected another folder"
        )


def check_output_folder(
    path: str | Path, kind: str = "", *, apart_from: Path | None = None
) -> None:
    """Refuses a folder that nobody can mean as a place for one command's output.

    Args:
        kind: what it is to hold, a key of `KINDS`; "" for a folder that is made anew.
        apart_from: a folder that it must neither be nor lie in.

    Raises:
        SettingError: the current folder or one that it is in, a home folder or one
            that it is in, or a name below something that is no folder.
        UserError: it holds something of another kind already, or lies in a checkpoint
            or a dataset, which are replaced and removed as wholes.
    """
    path = Path(path)
    _check_parent(path, "out")
    real = Path(os.path.realpath(path))
    for taken, what in ((Path.cwd(), "the current folder"), (_home(), "a home folder")):
        if taken == real or real in taken.parents:
            inside = "" if taken == real else "what holds "
            raise SettingError(
                f"out is {path}, {inside}{what}; expected a folder of its own, such "
                f"as {path / 'new'}"
            )
    if path.exists() and not path.is_dir():
        raise SettingError(f"out is {path}, which is no folder")
    if apart_from and Path(os.path.realpath(apart_from)) in (real, *real.parents):
        raise SettingError(
            f"out is {path}, inside what is read ({apart_from}); expected another "
            "folder"
        )
    for other in KINDS if kind else ():
        if other != kind and (found := _holds(real, other)):
            raise UserError(
                f"{path} holds {other} ({found}), expected {kind} or an empty folder; "
                "choose another one"
            )
    whole, parent = _whole_around(real)
    if whole:
        raise UserError(f"{path} is inside {whole} ({parent}); choose another folder")


def _whole_around(path: Path) -> tuple[str, Path]:
    """What kind of whole a path lies in, and that folder; "" if in none."""
    for parent in path.parents:
        for kind, names in WHOLES.items():
            if all((parent / name).is_file() for name in names):
                return kind, parent
    return "", path


def _holds(folder: Path, kind: str) -> str:
    """The name of what shows that a folder holds something of a kind, or ""."""
    for pattern in KINDS[kind]:
        for path in folder.glob(pattern):
            return path.relative_to(folder).as_posix()
    return ""


def _home() -> Path:
    try:
        return Path(os.path.realpath(Path.home()))
    except RuntimeError:  # no home is known
        return Path.cwd()


def _check_parent(path: Path, flag: str) -> None:
    """The nearest folder above that exists must be one, and let us write."""
    if path.parts[:1] == ("~",):  # --out=~/x, or in quotes; a later rm -r would hurt
        raise SettingError(
            f"{flag} is {path}, whose ~ the shell left as it is; expected the whole "
            f"name, such as {path.expanduser()}"
        )
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        pass
    except (OSError, ValueError) as error:  # too long, or not ours to look at
        why = reason(error) if isinstance(error, OSError) else error
        raise SettingError(
            f"{flag} is {str(path)!r}, which is no name: {why}"
        ) from error
    above = [p for p in Path(os.path.abspath(path)).parents if p.exists()]
    if not above:  # "/" itself
        return
    there = above[0]
    if not there.is_dir():
        raise SettingError(f"{flag} is {path}, but {there} is no folder")
    if not os.access(there, os.W_OK):
        raise SettingError(f"{flag} is {path}, but {there} cannot be written to")


def _not_a_file(path: Path) -> str:
    if path.is_dir():
        return "which is a folder; expected the name of a file"
    if path.exists() and not path.is_file():
        return "which is a device or a socket; expected the name of a file"
    return ""


def check_new_folder(
    path: str | Path, made_by: str = "", error_type: type[UserError] = UserError
) -> None:
    """`atomic_folder`'s refusals, before the work; an empty folder may be filled."""
    path = Path(path)
    check_output_folder(path)
    tidy(Path(os.path.realpath(path)).parent)
    if fault := _not_made_by(made_by, path):
        raise error_type(f"{path} {fault}")


def _not_made_by(writer: str, folder: Path) -> str:
    """What forbids to replace a folder; "" if the writer made all that is in it."""
    if not folder.exists() or not any(folder.iterdir()):
        return ""
    if not writer:
        return "is there already and not empty; choose another place"
    try:
        marker = read_json(folder / MARKER)
        made_by, files = marker["made_by"], set(marker["files"])
    except (UserError, KeyError, TypeError):
        made_by, files = None, set()
    if made_by != writer:
        return (
            f"is there already, and not made by {writer}; choose another folder, or "
            "remove that one yourself"
        )
    for found in sorted(_names_in(folder) - files - {MARKER}):
        return (
            f"holds {found}, which {writer} did not write; choose another folder, or "
            "move that file elsewhere"
        )
    return ""


def _names_in(folder: Path) -> set[str]:
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*")}


# --- writing --------------------------------------------------------------------------


@contextlib.contextmanager
def atomic_file(
    path: str | Path, error_type: type[UserError] = UserError, *, replace: bool = True
) -> Iterator[Path]:
    """Gives a temporary name beside `path`, and renames it to `path` at a clean end.

    After an exception nothing is left; after kill -9 a hidden temporary is, which a
    later call in the same folder removes. A symbolic link stays one: what it leads to
    is replaced.

    Args:
        replace: False refuses a file that is there already, also one that another
            process puts there meanwhile.

    Raises:
        UserError: The disk is full, the place cannot be written to, or something that
            must not be replaced is there.
    """
    path = Path(path)
    if fault := _not_a_file(path):
        raise error_type(f"{path} could not be written: {fault}")
    if not replace and os.path.lexists(path):
        raise error_type(f"{path} is there already, and is never overwritten")
    target = Path(os.path.realpath(path))
    if not _WRITING.isdisjoint(target.parents):
        # In a folder that is being written: it is whole or absent as one, and its
        # name is what an error has to say.
        target.parent.mkdir(parents=True, exist_ok=True)
        yield target
        return
    temporary = _temporary(target)
    with explained(path, error_type, temporary), _used(temporary):
        target.parent.mkdir(parents=True, exist_ok=True)
        tidy(target.parent)
        yield temporary
        _sync(temporary)
        if replace:
            os.replace(temporary, target)
        else:
            _name_once(temporary, target)


@contextlib.contextmanager
def atomic_folder(
    path: str | Path, error_type: type[UserError] = UserError, *, made_by: str = ""
) -> Iterator[Path]:
    """Gives a temporary folder, which becomes `path` at a clean end.

    `made_by` is who writes it. The folder then gets a marker, by which the same writer
    may replace it later; without, it has to be new or empty.

    Raises:
        SettingError: `path` is the current folder, a home folder, or above one.
        UserError: The disk is full, the place cannot be written to, or `path` holds
            something else; that is left as it was.
    """
    path = Path(path)
    check_new_folder(path, made_by, error_type)
    target = Path(os.path.realpath(path))
    temporary = _temporary(target)
    with explained(path, error_type, temporary), _used(temporary):
        temporary.mkdir(parents=True)
        yield temporary
        if made_by:
            names = sorted(_names_in(temporary))
            write_json(temporary / MARKER, {"made_by": made_by, "files": names})
        for file in temporary.rglob("*"):
            if file.is_file():
                _sync(file)
        check_new_folder(path, made_by, error_type)  # time has passed
        _put_folder(temporary, target)


@contextlib.contextmanager
def sole_writer(folder: Path) -> Iterator[None]:
    """Refuses a second process that would write to a folder at the same time.

    The folder is made; it goes again if nothing was written. The claim ends with the
    block or the process, also by kill -9. Windows and some network file systems have
    no such claims; there two processes are not kept apart.

    Raises:
        UserError: another process has the folder, or it cannot be made.
    """
    new = not folder.exists()
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        if os.name != "nt":
            import fcntl

            descriptor = os.open(folder, os.O_RDONLY)
            stack.callback(os.close, descriptor)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UserError(
                    f"{folder} is being written by another process; wait until that "
                    "has ended, or choose another folder"
                ) from None
            except OSError:
                pass  # a file system without claims
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                if new:
                    folder.rmdir()  # if it is empty


def remove_folder(path: Path, made_by: str) -> None:
    """Removes a folder, wholly or not at all, if `made_by` made all that is in it.

    One with anything else in it stays, and so does one that the system keeps.
    """
    if not _not_made_by(made_by, path):
        discard(path)


def discard(path: Path) -> None:
    """Removes a folder and all in it, wholly or not at all; whose it is, is not asked.

    One that cannot be removed stays; a missing one is no error.
    """
    if path.is_dir():
        temporary = _temporary(Path(os.path.realpath(path)))
        with contextlib.suppress(OSError), _used(temporary):
            os.replace(path, temporary)


def write_bytes(path: str | Path, content: bytes) -> None:
    """Writes a file, wholly or not at all."""
    with atomic_file(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: str | Path, text: str) -> None:
    """Writes a UTF-8 text, wholly or not at all, with lines that end in LF."""
    write_bytes(path, text.encode())


def write_json(path: str | Path, content: Any) -> None:
    """Writes JSON that a person can read, wholly or not at all; NaN is refused."""
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def reserve(path: Path, size: int) -> None:
    """Makes a file at least `size` bytes long, backed by room on the disk."""
    with open(path, "rb+") as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
        else:  # macOS, Windows: fill it
            file.seek(0, os.SEEK_END)
            for start in range(file.tell(), size, 2**20):
                file.write(bytes(min(2**20, size - start)))


# --- reading --------------------------------------------------------------------------


def read_json(path: str | Path, error_type: type[UserError] = UserError) -> Any:
    """Any JSON value, from UTF-8 text; an error of this type if there is none."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise error_type(f"{path}: no such file") from None
    except (OSError, ValueError, RecursionError) as error:
        why = reason(error) if isinstance(error, OSError) else error
        raise error_type(f"{path} cannot be read as JSON: {why}") from error


def read_object(
    path: str | Path, error_type: type[UserError] = UserError
) -> dict[str, Any]:
    """The same of a JSON object."""
    content = read_json(path, error_type)
    if not isinstance(content, dict):
        raise error_type(f"{path} holds a {type(content).__name__}, expected an object")
    return content


# --- faults ---------------------------------------------------------------------------


def reason(error: OSError) -> str:
    """Why the system refused, in words."""
    text = str(error)  # HDF5 hides the number of the fault in its message
    hidden = re.search(r"errno = (\d+)", text)
    number = int(hidden[1]) if hidden else error.errno
    if number in FULL:
        return "no space left on the disk; free some, or choose another place"
    return os.strerror(number) if number else text


@contextlib.contextmanager
def explained(
    path: Path, error_type: type[UserError] = UserError, temporary: Path | None = None
) -> Iterator[None]:
    """Turns the system's refusal to write into one sentence that names the file.

    `temporary` is what it is called meanwhile.
    """
    temporary = temporary or path
    try:
        yield
    except OSError as error:
        named = error.filename
        if isinstance(named, str):
            other = Path(named)
            ours = {path, Path(os.path.abspath(path)), temporary}
            ours |= {parent for one in ours for parent in one.parents}
            if other not in ours and temporary not in other.parents:
                # What was being read, or something else that the content needs.
                raise error_type(f"{named}: {reason(error)}") from error
        raise error_type(f"{path} could not be written: {reason(error)}") from error


# --- temporaries ----------------------------------------------------------------------


def tidy(folder: Path) -> None:
    """Removes what writers that are gone left half-written in a folder.

    A folder that was moved aside to be replaced gets its name back, if nothing has
    taken its place.
    """
    folder = Path(os.path.realpath(folder))
    with contextlib.suppress(OSError):  # no folder, or none that may be read
        for name in os.listdir(folder):
            if (match := _TEMPORARY.fullmatch(name)) is None:
                continue
            path, before = folder / name, folder / match[1]
            with contextlib.suppress(OSError):  # another process tidies too
                if not _is_abandoned(path):
                    continue
                if match[4] == "old" and not os.path.lexists(before):
                    os.replace(path, before)
                else:
                    _remove(path)


def _temporary(target: Path, kind: str = "tmp") -> Path:
    owner = f"{_machine()}-{os.getpid()}-{next(_NUMBERS)}"
    return target.with_name(f".{target.name}.{owner}.{kind}")


@functools.cache
def _machine() -> str:
    """Where a process's number means something: a host since its start, or a container.

    Processes that share a folder over a network, or from several containers, cannot
    ask whether one of the others is alive: there the numbers mean other processes.
    """
    said = [socket.gethostname()]
    with contextlib.suppress(OSError):
        said.append(Path("/proc/sys/kernel/random/boot_id").read_text("ascii"))
        said.append(str(os.stat("/proc/self/ns/pid").st_ino))
    return hashlib.sha256("\n".join(said).encode()).hexdigest()[:8]


def _is_abandoned(temporary: Path) -> bool:
    match = _TEMPORARY.fullmatch(temporary.name)
    if match is None or temporary in _WRITING:
        return False
    machine, process = match[2], int(match[3])
    if machine == _machine():
        # What has our own number, and is not being written, is an older process's.
        return process == os.getpid() or not psutil.pid_exists(process)
    # Nobody can ask a process elsewhere: go by age.
    times = [p.lstat().st_mtime for p in (temporary, *temporary.rglob("*"))]
    return time.time() - max(times) > ABANDONED_AFTER


@contextlib.contextmanager
def _used(temporary: Path) -> Iterator[None]:
    """Nobody tidies it meanwhile; whatever bears the name at the end is removed."""
    _WRITING.add(temporary)
    try:
        yield
    finally:
        try:
            _remove(temporary)
        finally:
            _WRITING.discard(temporary)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


# --- names ----------------------------------------------------------------------------


def _name_once(temporary: Path, target: Path) -> None:
    try:
        os.link(temporary, target)
    except FileExistsError:
        raise
    except (OSError, AttributeError):  # a file system without links
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, "", str(target)) from None
        os.rename(temporary, target)


def _put_folder(temporary: Path, target: Path) -> None:
    """Gives a folder its name; what bears the name ends up as `temporary`, or goes."""
    if not target.exists() or not any(target.iterdir()):
        if os.name == "nt" and target.exists():
            target.rmdir()  # elsewhere an empty folder gives way by itself
        os.replace(temporary, target)
    elif not _exchange(temporary, target):
        _replace_in_two_steps(temporary, target)


def _exchange(one: Path, other: Path) -> bool:
    names = os.fsencode(one), os.fsencode(other)
    try:
        system = ctypes.CDLL(None, use_errno=True)
        if sys.platform == "darwin":
            return system.renamex_np(*names, 2) == 0  # RENAME_SWAP
        here = -100  # AT_FDCWD; the names are absolute
        return system.renameat2(here, names[0], here, names[1], 2) == 0  # EXCHANGE
    except (OSError, AttributeError, TypeError):
        return False


def _replace_in_two_steps(temporary: Path, target: Path) -> None:
    """Moves the old folder aside first; after kill -9 between, `tidy` moves it back."""
    aside = _temporary(target, "old")
    _WRITING.add(aside)
    try:
        try:
            os.replace(target, aside)
            os.replace(temporary, target)
        except BaseException:
            if aside.exists() and not target.exists():
                os.replace(aside, target)
            raise
        _remove(aside)
    finally:
        _WRITING.discard(aside)
