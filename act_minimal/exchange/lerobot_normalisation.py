"""LeRobot's normalising steps: its processor files, and the buffers before 0.4.

Every way in which LeRobot normalises is a linear map of each number, so each is the
same as a mean and a standard deviation, which is what a policy here keeps.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from ..checkpoint import CheckpointError, read_json, read_tensors, write_tensors
from ..support.files import write_json
from .lerobot_units import ACTION

EPS = 1e-8  # what LeRobot adds to a deviation before it divides
PRE, POST = "policy_preprocessor", "policy_postprocessor"
NORMALISE = {PRE: "normalizer_processor", POST: "unnormalizer_processor"}
OTHERS = {  # they change names, axes and devices, but no number
    PRE: ("rename_observations_processor", "to_batch_processor", "device_processor"),
    POST: ("device_processor",),
}
# The statistics that become -1 and 1.
ENDS = {
    "MIN_MAX": ("min", "max"),
    "QUANTILES": ("q01", "q99"),
    "QUANTILE10": ("q10", "q90"),
}


def write_steps(
    folder: Path, settings: Mapping[str, Any], stats: Mapping[str, Tensor]
) -> None:
    """Writes both processors of a checkpoint.

    `settings` are LeRobot's config.json, `stats` "<feature>.<mean or std>".
    """
    inputs, outputs = settings["input_features"], settings["output_features"]
    device = {"device": "cpu", "float_dtype": None}
    on_device = {"registry_name": "device_processor", "config": device}

    def step(part: str, place: int, features: dict[str, Any]) -> dict[str, Any]:
        name = NORMALISE[part]
        file = f"{part}_step_{place}_{name}.safetensors"
        write_tensors(folder / file, stats)
        norm_map = settings["normalization_mapping"]
        about = {"eps": EPS, "features": features, "norm_map": norm_map}
        return {"registry_name": name, "config": about, "state_file": file}

    before = [
        {"registry_name": OTHERS[PRE][0], "config": {"rename_map": {}}},
        {"registry_name": "to_batch_processor", "config": {}},
        on_device,
        step(PRE, 3, {**inputs, **outputs}),
    ]
    after = [step(POST, 0, outputs), on_device]
    for part, steps in ((PRE, before), (POST, after)):
        write_json(folder / f"{part}.json", {"name": part, "steps": steps})


@dataclass
class Normaliser:
    """What one of LeRobot's normalising steps does to each feature."""

    stats: Mapping[str, Mapping[str, Tensor]]  # feature -> name of statistic -> numbers
    modes: Mapping[str, str]  # type of feature -> mode
    features: frozenset[str] | None  # those that it touches; None: all
    eps: float
    where: Path

    @classmethod
    def of_processor(cls, folder: Path, part: str) -> "Normaliser":
        """From a processor's files, which must hold no step of an unknown kind."""
        path, found = folder / f"{part}.json", None
        for step in read_json(path).get("steps", []):
            name = step.get("registry_name")
            if name == NORMALISE[part]:
                found = step
            elif name not in OTHERS[part]:
                raise CheckpointError(
                    f"{path} has a step '{name}', expected only "
                    f"{', '.join((*OTHERS[part], NORMALISE[part]))}"
                )
            elif renamed := step.get("config", {}).get("rename_map"):
                raise CheckpointError(
                    f"{path} renames {renamed}, expected an empty 'rename_map': name "
                    "the features as the robot does instead"
                )
        if found is None:
            raise CheckpointError(
                f"{path} has no '{NORMALISE[part]}'; LeRobot would pass everything on "
                "as it is"
            )
        about, file = found.get("config", {}), found.get("state_file")
        for key in ("eps", "features", "norm_map"):
            if key not in about:
                raise CheckpointError(f"'{NORMALISE[part]}' in {path} lacks '{key}'")
        stats: dict[str, dict[str, Tensor]] = {}
        # Without a file nothing may need one; `mean_std` names what does.
        tensors = {} if file is None else read_tensors(folder / file)
        for key, tensor in tensors.items():
            feature, _, name = key.rpartition(".")
            stats.setdefault(feature, {})[name] = tensor
        features = set(about["features"])
        if (only := about.get("normalize_observation_keys")) is not None:
            features &= {*only, ACTION}
        where = path if file is None else folder / file
        return cls(stats, about["norm_map"], frozenset(features), about["eps"], where)

    @classmethod
    def of_buffers(
        cls,
        tensors: Mapping[str, Tensor],
        settings: Mapping[str, Any],
        part: str,
        where: Path,
    ) -> "Normaliser":
        """From the weights of a checkpoint before 0.4.

        There "observation.environment_state" is "buffer_observation_environment_state":
        where the dots were, only the declared features tell. `part` is
        "normalize_inputs" or "unnormalize_outputs".

        Raises:
            CheckpointError: config.json lacks 'normalization_mapping', or a buffer
                belongs to no declared feature.
        """
        if "normalization_mapping" not in settings:
            raise CheckpointError(
                f"{where.with_name('config.json')} lacks 'normalization_mapping'"
            )
        declared = {**settings["input_features"], **settings["output_features"]}
        plain = {key.replace(".", "_"): key for key in declared}
        stats: dict[str, dict[str, Tensor]] = {}
        for key, tensor in tensors.items():
            if not key.startswith(f"{part}.buffer_"):
                continue
            feature, _, name = key.removeprefix(f"{part}.buffer_").rpartition(".")
            if feature not in plain:
                raise CheckpointError(
                    f"{where} holds '{key}', which none of the features in config.json "
                    f"explains: {', '.join(declared)}"
                )
            stats.setdefault(plain[feature], {})[name] = tensor
        return cls(stats, settings["normalization_mapping"], None, EPS, where)

    def mean_std(
        self, feature: str, kind: str, shape: tuple[int, ...], divides: bool = True
    ) -> tuple[np.ndarray, np.ndarray]:
        """The step as (x - mean) / std, or as x std + mean where it does not divide.

        `kind` is the feature's type: "STATE", "ENV", "VISUAL" or "ACTION".

        Raises:
            CheckpointError: the feature has no statistics, or not those of its mode, or
                they have another shape or are not finite.
        """
        # ACT of LeRobot leaves a scene's state as it is, unless told otherwise.
        mode = self.modes.get(kind, "IDENTITY" if kind == "ENV" else None)
        if mode == "IDENTITY":
            return np.zeros(shape, np.float32), np.ones(shape, np.float32)
        if mode is None or (self.features is not None and feature not in self.features):
            what = f"'{kind}'" if mode is None else f"'{feature}'"
            raise CheckpointError(
                f"the normalisation with {self.where} lacks {what}; LeRobot would pass "
                f"'{feature}' on as it is"
            )
        if mode != "MEAN_STD" and mode not in ENDS:
            raise CheckpointError(
                f"the normalisation of {kind} with {self.where} is {mode!r}, expected "
                f"one of {', '.join(('IDENTITY', 'MEAN_STD', *ENDS))}"
            )
        first, second = (
            self._statistic(feature, name, shape)
            for name in ENDS.get(mode, ("mean", "std"))
        )
        if mode == "MEAN_STD":
            # On the way back LeRobot adds nothing; but training here divides by it.
            return first, second + self.eps if divides else np.maximum(second, self.eps)
        half = (second - first) / 2
        half = np.where(half == 0, self.eps / 2, half).astype(np.float32)
        return first + half, half

    def _statistic(self, feature: str, name: str, shape: tuple[int, ...]) -> np.ndarray:
        found = self.stats.get(feature, {})
        if name not in found:
            raise CheckpointError(
                f"{self.where} lacks '{feature}.{name}'; LeRobot would pass "
                f"'{feature}' on as it is"
            )
        array = found[name].float().numpy()
        if array.shape != shape:
            raise CheckpointError(
                f"'{feature}.{name}' in {self.where} has shape {array.shape}, expected "
                f"{shape}"
            )
        if not np.isfinite(array).all():
            raise CheckpointError(
                f"'{feature}.{name}' in {self.where} is not finite: it was never set"
            )
        return array


def read_normalisers(
    folder: Path, settings: Mapping[str, Any], buffers: Mapping[str, Tensor], file: Path
) -> tuple[Normaliser, Normaliser]:
    """Of a policy's inputs and of its outputs, wherever its release keeps them.

    `buffers` are what LeRobot's safetensors file holds besides weights.
    """
    if (folder / f"{PRE}.json").exists():
        return (
            Normaliser.of_processor(folder, PRE),
            Normaliser.of_processor(folder, POST),
        )
    if not buffers and _needs_statistics(settings):
        raise CheckpointError(
            f"{folder} has no statistics: neither {PRE}.json nor, as before 0.4, "
            f"'normalize_inputs' in {file.name}; LeRobot would pass everything on as "
            "it is"
        )
    return (
        Normaliser.of_buffers(buffers, settings, "normalize_inputs", file),
        Normaliser.of_buffers(buffers, settings, "unnormalize_outputs", file),
    )


def _needs_statistics(settings: Mapping[str, Any]) -> bool:
    modes = {"ENV": "IDENTITY"} | (settings.get("normalization_mapping") or {})
    features = {**settings["input_features"], **settings["output_features"]}
    return any(modes.get(f["type"]) != "IDENTITY" for f in features.values())
