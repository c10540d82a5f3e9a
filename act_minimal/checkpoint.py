"""Checkpoints and training runs' folders: whole or absent, errors name the fault.

A checkpoint is a folder of JSON and safetensors. Nothing is pickled, so reading a
stranger's checkpoint cannot run a stranger's code. A training run's folder holds

    config.json             the settings, for people
    log.jsonl               one line a step, one more for each validation
    tensorboard/            the same curves
    checkpoints/<step>/     a policy's checkpoint (weights as averaged by the EMA) with
        training.safetensors    raw weights and optimizer moments
        progress.json           step, seconds and settings

so whatever kills a run, the newest checkpoint is where it goes on from.
"""

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any, get_args

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from .dataset import Statistics
from .datasets.embodiment import expect_card
from .images import Resizing
from .policy import Policy
from .settings import ActionTarget, PolicyKind, TrainConfig, as_json, network_config
from .support.errors import UserError
from .support.files import (
    atomic_folder,
    check_output_folder,
    explained,
    read_object,
    remove_folder,
    tidy,
    write_bytes,
    write_json,
    write_text,
)


class CheckpointError(UserError):
    """A checkpoint folder that cannot be read or written."""


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Writes tensors as safetensors, from whatever device they are on."""
    # A copy each: safetensors refuses views that share memory.
    plain = {key: t.detach().cpu().contiguous().clone() for key, t in tensors.items()}
    write_bytes(path, save(plain))


def _missing(path: Path) -> CheckpointError:
    return CheckpointError(
        f"{path} is missing: {path.parent} is not a whole checkpoint folder"
    )


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON object; CheckpointError if it is missing or damaged."""
    if not path.exists():
        raise _missing(path)
    return read_object(path, CheckpointError)


def read_card(folder: Path) -> dict[str, Any]:
    """What is known of a checkpoint, as `save_policy` was told; {} without a card."""
    path = folder / "card.json"
    if not path.exists():
        return {}
    card = read_json(path)
    expect_card(card, path)
    return card


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Reads a safetensors file; CheckpointError if it is missing or damaged."""
    try:
        return load(path.read_bytes())
    except FileNotFoundError:
        raise _missing(path) from None
    except (OSError, SafetensorError, ValueError, KeyError) as error:
        raise CheckpointError(
            f"{path} is damaged or not a safetensors file ({error})"
        ) from error


def check_tensors(
    found: Mapping[str, Tensor], expected: Mapping[str, Tensor], path: Path
) -> None:
    """CheckpointError for the first name or shape that is not what a module needs."""
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


def load_weights(module: torch.nn.Module, path: Path) -> None:
    """Give a network the weights of a file; CheckpointError if they do not suit it."""
    weights = read_tensors(path)
    check_tensors(weights, module.state_dict(), path)
    module.load_state_dict(weights)


def card_text(title: str, about: str, card: Mapping[str, Any]) -> str:
    """A checkpoint's card as a page of Markdown, for people."""
    lines = [f"# {title}", "", about, "", "| | |", "|---|---|"]
    for key, value in card.items():
        text = value if isinstance(value, str) else json.dumps(value)
        text = text.replace("|", "\\|").replace("\n", " ")
        lines.append(f"| {key} | {text} |")
    lines += [
        "",
        "`act_minimal.checkpoint.load_policy(folder)` reads this folder: `config.json` "
        "(shape), `model.safetensors` (weights), `stats.safetensors` (normalisation) "
        "and `card.json` (the table above).",
        "",
    ]
    return "\n".join(lines)


def _saved(run: Path) -> list[Path]:
    """The checkpoints of a training run's folder, the oldest first."""
    found = [p for p in (run / "checkpoints").glob("*") if p.name.isdecimal()]
    return sorted(found, key=lambda path: int(path.name))


def newest_checkpoint(run: Path) -> Path | None:
    """The newest checkpoint of a training run's folder, if there is one."""
    return next(reversed(_saved(run)), None)


def find_checkpoint(path: Path | str) -> Path:
    """The checkpoint that a person means: the folder itself, or a run's newest."""
    path = Path(path)
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


# ---------------------------------------------------------------- policies


def save_policy(
    folder: Path | str,
    policy: Policy,
    card: Mapping[str, Any],
    *,
    made_by: str = "save_policy",
) -> Path:
    """Writes a checkpoint folder, whole or not at all.

    Args:
        folder: where; an older checkpoint there is replaced if the same writer made it.
        card: what a person wants to know of it: data, seed, steps, success, command.
            Library versions are added.
        made_by: who writes it, such as "act demo".

    Raises:
        CheckpointError: the disk is full, or `folder` holds something else.
    """
    with atomic_folder(folder, CheckpointError, made_by=made_by) as temporary:
        write_policy(temporary, policy, card)
    return Path(folder)


def write_policy(folder: Path, policy: Policy, card: Mapping[str, Any]) -> None:
    """Writes the files of a checkpoint into a folder that is there already."""
    config = {
        "kind": policy.name,
        "action_target": policy.action_target,
        "model": policy.config.to_json(),
    }
    if policy.resizing is not None:
        config["resizing"] = policy.resizing.to_json()
    versions = {name: version(name) for name in ("act-minimal", "torch", "numpy")}
    card = {**card, "versions": versions}
    write_json(folder / "config.json", config)
    write_json(folder / "card.json", card)
    write_tensors(folder / "model.safetensors", policy.module.state_dict())
    write_tensors(folder / "stats.safetensors", policy.stats.state_dict())
    parameters = sum(p.numel() for p in policy.parameters())
    state = ["qpos", "env_state"] if policy.uses_env_state else ["qpos"]
    about = (
        f"Reads {', '.join([*state, *policy.cameras])}; predicts {policy.chunk_size} "
        f"actions at a time ({policy.action_target}); {parameters:,} parameters."
    )
    text = card_text(f"Policy: {policy.name}", about, card)
    write_text(folder / "README.md", text)


def load_policy(
    folder: Path | str, device: str | torch.device = "cpu", network: str | None = None
) -> Policy:
    """Reads a checkpoint folder, or the newest checkpoint of a training run.

    Args:
        network: the class of one's own that the checkpoint was trained with, as
            "module:Class": what a checkpoint names is not imported unasked.

    Raises:
        CheckpointError: names the file, and the key where there is one.
    """
    folder = find_checkpoint(folder)
    policy = _untrained(folder / "config.json", folder / "stats.safetensors", network)
    load_weights(policy.module, folder / "model.safetensors")
    policy.card = read_card(folder)
    return policy.to(device).eval()


def _untrained(config_path: Path, stats_path: Path, network: str | None) -> Policy:
    """The policy that these files describe, with random weights."""
    config = read_json(config_path)
    for key in ("kind", "action_target", "model"):
        if key not in config:
            raise CheckpointError(f"{config_path} lacks '{key}'")
    kind, target = config["kind"], config["action_target"]
    known = (*get_args(PolicyKind), *([network] if network else []))
    for key, choices in (("kind", known), ("action_target", get_args(ActionTarget))):
        if config[key] not in choices:
            hint = "; one of your own has to be named: --network module:Class"
            hint = hint if key == "kind" else ""
            raise CheckpointError(
                f"'{key}' in {config_path} is '{config[key]}': known are "
                f"{', '.join(choices)}{hint}"
            )
    try:
        shape = network_config(kind)(**config["model"])
        resizing = Resizing.from_json(config.get("resizing"), shape.cameras)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"'model' in {config_path}: {error}") from error
    tensors = read_tensors(stats_path)
    try:
        arrays = {key: tensor.numpy() for key, tensor in tensors.items()}
        statistics = Statistics.from_arrays(arrays)
        policy = Policy(shape, statistics, target, kind, pretrained_weights=False)
    except UserError as error:
        raise CheckpointError(f"{stats_path}: {error}") from error
    policy.resizing = resizing
    return policy


# ---------------------------------------------------------------- training runs


MADE_BY = "act train"

# Settings that may change when a run goes on: they do not change what it computes,
# or not more than another machine would.
FREE = {
    *("data", "cache", "out", "device", "threads", "compile", "tensorboard"),
    *("log_every", "val_every", "val_frames", "save_every", "keep"),
}

# What a run did before a setting existed: as the setting's default does. A new setting
# must keep that, or a line here must say what was done before.
BEFORE = as_json(TrainConfig(data=Path(), out=Path()))
WRITTEN = ("config.json", "log.jsonl", "tensorboard", "checkpoints")

Record = dict[str, Any]


def check_run_folder(run: Path, data: Path) -> None:
    """Refuses to train into a folder that is no training run's, or the data's."""
    check_output_folder(run, "a training run", apart_from=data)
    found = [name for name in WRITTEN if (run / name).exists()]
    newest = newest_checkpoint(run)
    ours = newest is not None and (newest / "progress.json").exists()
    if "config.json" in found and not ours:
        with suppress(UserError):
            ours = {"data", "out", "steps"} <= read_json(run / "config.json").keys()
    if found and not ours:
        raise UserError(
            f"{run} holds {found[0]}, which no training run wrote; choose another "
            "output folder"
        )


def save_checkpoint(
    run: Path,
    policy: Policy,
    averaged: Policy,
    optimizer: torch.optim.Optimizer,
    progress: Mapping[str, Any],
    card: Mapping[str, Any],
    keep: int,
) -> Path:
    """Writes checkpoints/<step> and removes all but the newest `keep` (0 keeps all).

    What training did not write stays.
    """
    folder = run / "checkpoints" / str(progress["step"])
    tensors = {f"weights.{k}": v for k, v in policy.module.state_dict().items()}
    for index, moments in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": m for name, m in moments.items()}
    with atomic_folder(folder, CheckpointError, made_by=MADE_BY) as temporary:
        write_policy(temporary, averaged, card)
        write_tensors(temporary / "training.safetensors", tensors)
        write_json(temporary / "progress.json", progress)
    for old in _saved(run)[:-keep] if keep else []:
        remove_folder(old, MADE_BY)
    return folder


def resume(
    run: Path,
    policy: Policy,
    averaged: Policy,
    optimizer: torch.optim.Optimizer,
    settings: Mapping[str, Any],
) -> tuple[int, float]:
    """Loads the newest checkpoint into policy, average and optimizer.

    Returns:
        Steps done and seconds spent; (0, 0.0) where there is no checkpoint.

    Raises:
        UserError: settings or data are not those of the checkpoint.
        CheckpointError: a file is damaged.
    """
    folder = newest_checkpoint(run)
    if folder is None:
        return 0, 0.0
    progress = read_json(folder / "progress.json")
    for key in ("step", "seconds", "settings"):
        if key not in progress:
            raise CheckpointError(f"{folder / 'progress.json'} lacks '{key}'")
    before = progress["settings"]
    for key, value in settings.items():
        known = before.get(key, BEFORE[key])
        if key not in FREE and known != value:
            raise UserError(
                f"{run} holds a run with {key}={known!r}, but now "
                f"{key}={value!r} is asked for: choose another output folder, "
                f"or the same settings to go on with that run"
            )
    path = folder / "stats.safetensors"
    stats = read_tensors(path)
    now = policy.stats.state_dict()
    check_tensors(stats, now, path)
    for key, tensor in stats.items():
        if not torch.equal(tensor, now[key].cpu()):
            raise UserError(
                f"{run} was trained on other data ('{key}' of the demonstrations "
                f"differs): choose another output folder, or the same data"
            )
    load_weights(averaged.module, folder / "model.safetensors")
    path = folder / "training.safetensors"
    tensors = read_tensors(path)
    raw = _below("weights.", tensors)
    check_tensors(raw, policy.module.state_dict(), path)
    policy.module.load_state_dict(raw)
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in _below("optimizer.", tensors).items():
        index, name = key.split(".")
        state.setdefault(int(index), {})[name] = tensor
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
    # The fused optimizer walks raw memory: moments must lie as their weights do, and
    # channels-last weights do not lie as files do.
    for parameter, moments in optimizer.state.items():
        for name, moment in moments.items():
            if moment.shape == parameter.shape:
                same = torch.empty_like(parameter, requires_grad=False)
                moments[name] = same.copy_(moment)
    return progress["step"], progress["seconds"]


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose names begin with `prefix`, without it."""
    n = len(prefix)
    return {key[n:]: t for key, t in tensors.items() if key.startswith(prefix)}


class RunLog:
    """config.json, log.jsonl and TensorBoard.

    What a crash left is tidied up: half-written checkpoints, and lines of the log
    beyond `step`, the checkpoint that the run goes on from.

    Raises:
        UserError: the folder cannot be written to.
    """

    def __init__(
        self, run: Path, step: int, tensorboard: bool, settings: Mapping[str, Any]
    ) -> None:
        write_json(run / "config.json", settings)
        tidy(run / "checkpoints")
        self.path = run / "log.jsonl"
        self.records = [r for r in read_log(run) if r["step"] <= step]
        write_text(self.path, "".join(_line(r) for r in self.records))
        self.file = self.path.open("a", encoding="utf-8")
        self.board = None
        if tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            self.board = SummaryWriter(str(run / "tensorboard"), purge_step=step + 1)

    def write(self, records: list[Record]) -> None:
        """Appends records, UserError if the disk is full; TensorBoard gets the last."""
        self.records += records
        with explained(self.path):
            self.file.writelines(_line(record) for record in records)
            self.file.flush()
        if self.board is not None and records:
            last = records[-1]
            for key, value in last.items():
                if isinstance(value, float):
                    self.board.add_scalar(key, value, last["step"])

    def close(self) -> None:
        # A full disk has been reported already.
        with suppress(OSError):
            self.file.close()
        if self.board is not None:
            self.board.close()


def _line(record: Record) -> str:
    return json.dumps(record) + "\n"


def read_log(run: Path) -> list[Record]:
    """All records of a run's log.jsonl; a last line cut short is left out."""
    path = run / "log.jsonl"
    records = []
    text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    for line in text.split("\n"):
        try:
            records.append(json.loads(line))
        except ValueError:
            break
    return records
