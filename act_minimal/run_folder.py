"""The folder of a training run: its settings, its log, its checkpoints.

    out/config.json             the settings, for people
    out/log.jsonl               one line a step, one more for each validation
    out/tensorboard/            the same curves
    out/checkpoints/<step>/     a policy folder (weights as averaged by the EMA) with
        training.safetensors    raw weights and optimizer moments
        progress.json           step, seconds and settings

A checkpoint appears whole or not at all, so whatever kills a run, the newest one is
where it goes on from.
"""

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from act_minimal.checkpoint import (
    CheckpointError,
    check_tensors,
    newest_checkpoint,
    read_json,
    read_tensors,
    write_tensors,
)
from act_minimal.errors import UserError
from act_minimal.files import (
    atomic_folder,
    check_output_folder,
    explained,
    remove_folder,
    tidy,
    write_json,
    write_text,
)
from act_minimal.policy import Policy, write_policy
from act_minimal.training_config import TrainConfig, as_json

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
    """Refuses to train into a folder that is no training run's, or the data's.

    Raises:
        UserError: names what is there already.
    """
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

    What training did not write is not removed: an imported policy, or somebody's notes.
    """
    folder = run / "checkpoints" / str(progress["step"])
    tensors = {f"weights.{k}": v for k, v in policy.module.state_dict().items()}
    for index, moments in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": m for name, m in moments.items()}
    with atomic_folder(folder, CheckpointError, made_by=MADE_BY) as temporary:
        write_policy(temporary, averaged, card)
        write_tensors(temporary / "training.safetensors", tensors)
        write_json(temporary / "progress.json", progress)
    saved = [p for p in folder.parent.iterdir() if p.name.isdecimal()]
    saved.sort(key=lambda path: int(path.name))
    for old in saved[:-keep] if keep else []:
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
    path = folder / "model.safetensors"
    weights = read_tensors(path)
    check_tensors(weights, averaged.module.state_dict(), path)
    averaged.module.load_state_dict(weights)
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
    beyond the checkpoint that the run goes on from.

    Args:
        run: the run's folder.
        step: steps done.
        tensorboard: whether to write TensorBoard's files too.
        settings: for config.json.

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
        """Appends records; TensorBoard gets the last one only.

        Raises:
            UserError: the disk is full.
        """
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
        """Closes the files; a full disk has been reported already."""
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
