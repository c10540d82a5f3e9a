"""Files of a checkpoint: whole or absent, and read with errors that name the fault.

A checkpoint is a folder of JSON and safetensors. Nothing is pickled, so reading a
stranger's checkpoint cannot run a stranger's code.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from act_minimal.card import expect_card
from act_minimal.errors import UserError
from act_minimal.files import read_json as read_any_json
from act_minimal.files import tidy, write_bytes


class CheckpointError(UserError):
    """A checkpoint folder that cannot be read or written."""


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Writes tensors as safetensors, from whatever device they are on."""
    # A copy each: safetensors refuses views that share memory.
    plain = {key: t.detach().cpu().contiguous().clone() for key, t in tensors.items()}
    write_bytes(path, save(plain))


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON object.

    Raises:
        CheckpointError: the file is missing, cut short or not an object.
    """
    if not path.exists():
        raise CheckpointError(
            f"{path} is missing: {path.parent} is not a whole checkpoint folder"
        )
    content = read_any_json(path, CheckpointError)
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
        tidy(path.parent)  # a writer may have been killed while it replaced the folder
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
        held = ", ".join(sorted(os.listdir(path))[:5]) or "nothing"
        raise CheckpointError(
            f"{path} is neither a checkpoint (config.json is missing) nor a training "
            f"run (checkpoints/ is missing); it holds {held}"
        )
    return path
