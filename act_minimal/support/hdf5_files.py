"""HDF5 files of other writers: contents as plain values, damage as one sentence."""

import contextlib
from collections.abc import Collection
from pathlib import Path

import h5py
import numpy as np

from .errors import UserError

ENDINGS = (".hdf5", ".h5", ".hdf", ".he5")  # of HDF5 files; episodes have the first

Attribute = str | int | float | bool


class EpisodeError(UserError):
    """An episode file, or the content meant for one, is not usable; names both."""


def misnamed_files(folder: str | Path) -> list[Path]:
    """HDF5 files of a folder that `list_episodes` leaves out for their ending."""
    folder = Path(folder)
    found = sorted(folder.iterdir()) if folder.is_dir() else []
    return [
        path
        for path in found
        if path.suffix.lower() in ENDINGS
        and path.suffix != ENDINGS[0]
        and not path.name.startswith(".")
        and path.is_file()
    ]


def fault_of(error: Exception) -> str:
    """HDF5's message in words."""
    text = str(error)
    if "truncated file" in text:
        return "truncated file (the recording or the copy of it was cut short)"
    if "signature not found" in text:
        return "not an HDF5 file"
    if isinstance(error, PermissionError):
        return "no permission to read it"
    return f"damaged HDF5 file ({' '.join(text.split()) or type(error).__name__})"


def member(root: h5py.File, key: str, path: Path) -> object:
    """What a file has at `key`; None where it has nothing."""
    try:
        if key not in root:  # not root.get(), which takes damage for absence
            return None
        return root[key]
    except Exception as error:  # there, and not to be opened
        raise EpisodeError(f"{path}: /{key} is damaged: {fault_of(error)}") from error


def dataset_of(root: h5py.File, key: str, path: Path) -> h5py.Dataset:
    """The dataset at `key`, which must be there."""
    item = member(root, key, path)
    if item is None:
        raise EpisodeError(f"{path}: the dataset /{key} is missing")
    if not isinstance(item, h5py.Dataset):
        raise EpisodeError(f"{path}: /{key} is a group, expected a dataset")
    return item


def content_of(dataset: h5py.Dataset, key: str, path: Path) -> np.ndarray:
    """All of a dataset."""
    try:
        return dataset[()]
    except Exception as error:
        raise EpisodeError(f"{path}: /{key} is damaged: {fault_of(error)}") from error


def read_optional(root: h5py.File, key: str, path: Path) -> np.ndarray | None:
    """`read_numbers`, or None where the file has nothing."""
    return None if member(root, key, path) is None else read_numbers(root, key, path)


def read_numbers(root: h5py.File, key: str, path: Path) -> np.ndarray:
    """A numeric array as float32."""
    dataset = dataset_of(root, key, path)
    if dataset.dtype.kind not in "fiu":
        raise EpisodeError(
            f"{path}: /{key} holds {dataset.dtype}, expected floating-point numbers"
        )
    with np.errstate(over="ignore"):  # a number too large becomes inf, found later
        return content_of(dataset, key, path).astype(np.float32)


def attributes_of(
    root: h5py.File, path: Path, needed: Collection[str]
) -> dict[str, Attribute]:
    """What a file's attributes say; odd ones are an error if they are needed."""
    found: dict[str, Attribute] = {}
    for name in root.attrs:
        try:
            value = _scalar(root.attrs[name])
        except Exception as error:  # a kind of which h5py knows no value
            if name in needed:
                raise EpisodeError(f"{path}: {name}: {fault_of(error)}") from error
            continue
        if value is not None:
            found[name] = value
        elif name in needed:
            raise EpisodeError(
                f"{path}: attribute {name!r} is {root.attrs[name]!r}, expected a "
                "single value"
            )
    return found


def _scalar(value: object) -> Attribute | None:
    """An HDF5 attribute as a Python value; None for what is not a single value."""
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.ravel()[0]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, str):  # h5py hides bytes that are no UTF-8 in a str
        value = value.encode("utf-8", "surrogateescape")
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace").replace("\0", "\ufffd")
    return value if isinstance(value, str | int | float | bool) else None


def rate_of(value: object) -> float:
    """Frames a second as a number, from a number, a text or a list of one; else NaN."""
    value = _scalar(np.array(value) if isinstance(value, list) else value)
    if value is not None and not isinstance(value, bool):
        with contextlib.suppress(ValueError):
            return float(value)
    return float("nan")


def is_true(value: object) -> bool:
    """A flag as writers store it: a bool, a number, or a text such as "False"."""
    return str(value).strip().lower() not in ("", "0", "0.0", "false", "no", "none")
