"""Files of a checkpoint: whole or absent, and read with errors that name the fault.

A checkpoint is a folder of JSON and safetensors. Nothing is pickled, so reading a
stranger's checkpoint cannot run a stranger's code.
"""

import errno
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from act_minimal.card import expect_card
from act_minimal.errors import UserError


class CheckpointError(UserError):
    """A checkpoint folder that cannot be read or written."""


def write_file(path: Path, content: bytes | str) -> None:
    """Writes a file and waits until the disk has it."""
    data = content.encode() if isinstance(content, str) else content
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def write_json(path: Path, content: Any) -> None:
    """Writes JSON that a person can read; NaN is refused."""
    write_file(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Writes tensors as safetensors, from whatever device they are on."""
    # A copy each: safetensors refuses views that share memory.
    plain = {key: t.detach().cpu().contiguous().clone() for key, t in tensors.items()}
    write_file(path, save(plain))


@contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder that becomes `folder` when the block ends well.

    A reader, or whoever looks after a crash, finds the whole new folder or none of it.
    An older `folder` is moved aside first and removed after.

    Raises:
        CheckpointError: the disk is full, or the place cannot be written to; nothing
            is left behind.
    """
    temporary = folder.with_name(f".{folder.name}.writing-{os.getpid()}")
    older = folder.with_name(f".{folder.name}.older-{os.getpid()}")
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        yield temporary
        if folder.exists():
            os.replace(folder, older)
        os.replace(temporary, folder)
    except OSError as error:
        if older.exists() and not folder.exists():
            os.replace(older, folder)
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        why = "no space left on the disk" if full else error.strerror
        raise CheckpointError(
            f"{folder} could not be written: {why}; what was saved before is kept"
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(older, ignore_errors=True)


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON object.

    Raises:
        CheckpointError: the file is missing, cut short or not an object.
    """
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError:
        raise CheckpointError(
            f"{path} is missing: {path.parent} is not a whole checkpoint folder"
        ) from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} is not readable JSON ({error})") from error
    if not isinstance(content, dict):
        raise CheckpointError(
            f"{path} holds a {type(content).__name__}, expected an object"
        )
    return content


def read_card(folder: Path) -> dict[str, Any]:
    """What is known of a checkpoint, as `save_policy` was told; {} without a card.

    Raises:
        UserError: the card is damaged, or says of its arm what cannot be meant.
    """
    path = folder / "card.json"
    if not path.exists():
        return {}
    card = read_json(path)
    expect_card(card, path)
    return card


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Reads a safetensors file.

    Raises:
        CheckpointError: the file is missing, cut short or another format.
    """
    try:
        return load(path.read_bytes())
    except FileNotFoundError:
        raise CheckpointError(
            f"{path} is missing: {path.parent} is not a whole checkpoint folder"
        ) from None
    except (OSError, SafetensorError, ValueError, KeyError) as error:
        raise CheckpointError(
            f"{path} is damaged or not a safetensors file ({error})"
        ) from error


def check_tensors(
    found: Mapping[str, Tensor], expected: Mapping[str, Tensor], path: Path
) -> None:
    """Compares names and shapes of what a file held with what a module needs.

    Raises:
        CheckpointError: names the file and the first key that disagrees.
    """
    for key, tensor in expected.items():
        if key not in found:
            raise CheckpointError(f"{path} lacks '{key}', which its config.json needs")
        if found[key].shape != tensor.shape:
            raise CheckpointError(
                f"'{key}' in {path} has shape {tuple(found[key].shape)}, "
                f"but its config.json asks for {tuple(tensor.shape)}"
            )
    for key in found:
        if key not in expected:
            raise CheckpointError(
                f"{path} holds '{key}', which its config.json does not know"
            )


def card_text(title: str, about: str, card: Mapping[str, Any]) -> str:
    """A checkpoint's card as a page of Markdown, for people."""
    lines = [f"# {title}", "", about, "", "| | |", "|---|---|"]
    for key, value in card.items():
        text = value if isinstance(value, str) else json.dumps(value)
        text = text.replace("|", "\\|").replace("\n", " ")
        lines.append(f"| {key} | {text} |")
    lines += [
        "",
        "`act_minimal.policy.load_policy(folder)` reads this folder: `config.json` "
        "(shape), `model.safetensors` (weights), `stats.safetensors` (normalisation) "
        "and `card.json` (the table above).",
        "",
    ]
    return "\n".join(lines)


def newest_checkpoint(run: Path) -> Path | None:
    """The newest checkpoint of a training run's folder, if there is one."""
    found = [p for p in (run / "checkpoints").glob("*") if p.name.isdecimal()]
    return max(found, key=lambda path: int(path.name), default=None)


def find_checkpoint(path: Path) -> Path:
    """The checkpoint that a person means: the folder itself, or a run's newest.

    Raises:
        CheckpointError: neither; names the folder, and what was expected in it.
    """
    if not path.is_dir():
        raise CheckpointError(
            f"there is no checkpoint folder {path}; expected a folder with config.json "
            f"and model.safetensors, or that of a training run"
        )
    newest = newest_checkpoint(path)
    if newest is not None:
        return newest
    if (path / "checkpoints").is_dir():
        raise CheckpointError(f"{path} is a run that has saved no checkpoint yet")
    if not (path / "config.json").exists():
        raise CheckpointError(
            f"{path} is neither a checkpoint (config.json is missing) nor a training "
            f"run (checkpoints/ is missing)"
        )
    return path
