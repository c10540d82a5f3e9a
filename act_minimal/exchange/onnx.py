"""A policy as one ONNX file: observations in physical units in, chunks of actions out.

Normalisation is inside, images stay uint8, and what only training needs is left out, so
whoever runs the file needs neither this package nor torch. The file is held against the
policy before it gets its name. Letters: B batch, k chunk, A action, H W image.
"""

import contextlib
import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ..checkpoint import load_policy
from ..datasets.embodiment import ABOUT_ARM
from ..images import Resizing
from ..policy import Policy, Scale, check_noise, check_prefix, future_place
from ..residual import refuse_head
from ..support.errors import UserError
from ..support.extras import require
from ..support.files import atomic_file, check_output_file

TOLERANCE = 1e-4  # of an action's standard deviation
METADATA = "act_minimal"
TOLD = "prefix_max", "future_max", "future_lag"  # settings that a file says
# Inputs that `predict_chunk` works out, or draws.
WORKED_OUT = "prefix", "prefix_size", "ahead", "noise"


class OnnxError(UserError):
    """A policy that cannot be exported, or a file that does not do what it should."""


class OnnxExport(NamedTuple):
    """What was written, and how far it is from the policy."""

    path: Path
    inputs: dict[str, tuple[int, ...]]  # name -> shape without B
    difference: float  # the greatest, in the units of the actions
    deviations: float  # the greatest, in standard deviations of the actions


class Predict(nn.Module):
    """A policy's prediction as a function of tensors in a fixed order."""

    def __init__(self, policy: Policy, names: tuple[str, ...]) -> None:
        super().__init__()
        self.policy, self.names = policy, names

    def forward(self, *inputs: Tensor) -> Tensor:
        """Actions (B, k, A) in physical units, from the inputs in the names' order."""
        batch = dict(zip(self.names, inputs, strict=True))
        read = self.policy._inputs(batch)
        if "prefix" in batch:
            told = batch["prefix"], batch["prefix_size"]
            read |= self.policy._prefix(*told, batch["qpos"])
        if "noise" in batch:
            read["noise"] = batch["noise"]
        actions = self.policy.module(read).actions
        return self.policy._physical(actions.float(), batch["qpos"])


class OnnxPredictor:
    """Runs an exported file as `Policy.predict_chunk` runs a policy.

    Args:
        file: an exported file, or its content.
        threads: for ONNX Runtime; None leaves it the choice.

    Attributes:
        about: "cameras", "chunk_size" and so on, as the file says them.

    Raises:
        MissingExtra: ONNX Runtime is not installed.
        OnnxError: this is no such file.
    """

    def __init__(self, file: Path | bytes, threads: int | None = None) -> None:
        require("onnx", "onnxruntime")
        import onnxruntime

        options = onnxruntime.SessionOptions()
        if threads is not None:
            options.intra_op_num_threads = threads
        where = "the model" if isinstance(file, bytes) else file
        try:
            content = file if isinstance(file, bytes) else file.read_bytes()
            providers = ["CPUExecutionProvider"]
            self.session = onnxruntime.InferenceSession(content, options, providers)
        except Exception as error:  # its own classes, which it does not document
            raise OnnxError(
                f"{where} is no file that ONNX Runtime opens ({error})"
            ) from error
        said = self.session.get_modelmeta().custom_metadata_map
        if METADATA not in said:
            raise OnnxError(
                f"{where} was not exported by act_minimal, its metadata lacks "
                f"'{METADATA}'; expected the file of: act export-onnx"
            )
        self.about: dict[str, Any] = json.loads(said[METADATA])
        self.names = [x.name for x in self.session.get_inputs()]
        cameras = tuple(self.about["cameras"])
        self.resizing = Resizing.from_json(self.about.get("resizing"), cameras)
        told = (self.about.get(name, 0) for name in ("prefix_max", "future_max"))
        self.told_max = max(told)
        self.random = np.random.default_rng(0)  # of the noise of policies that sample

    def predict_chunk(
        self, observation: Mapping[str, np.ndarray], prefix: np.ndarray | None = None
    ) -> np.ndarray:
        """Actions (B, k, A), as `Policy.predict_chunk`.

        Raises:
            OnnxError: for another observation than the policy's.
            ObservationError: for another prefix.
        """
        observed = [name for name in self.names if name not in WORKED_OUT]
        for name in observed:
            if name not in observation:
                raise OnnxError(
                    f"the observation has no '{name}': this file reads "
                    f"{', '.join(observed)}"
                )
        inputs = {name: np.asarray(observation[name]) for name in observed}
        rows, size = len(inputs["qpos"]), self.about["action_dim"]
        given = check_prefix(prefix, rows, self.told_max, size)  # (B, d, A)
        d = given.shape[1]
        if "prefix" in self.names:
            padding = (0, 0), (0, self.told_max - d), (0, 0)
            inputs["prefix"] = np.pad(given, padding)  # (B, P, A)
            inputs["prefix_size"] = np.full(rows, d)
        if "noise" in self.names:
            shape = rows, self.about["chunk_size"], size
            noise = observation.get("noise", self.random.standard_normal(shape))
            inputs["noise"] = check_noise(noise, *shape)
        place = None
        if "ahead" in self.names:
            place = future_place(d, self.about.get("future_lag", 0))
            inputs["ahead"] = np.full(rows, 0 if place is None else d)
        if place is not None:
            inputs["qpos"] = given[:, place]
        if self.resizing:
            for camera in self.resizing.recorded:
                name = f"images/{camera}"
                inputs[name] = self.resizing.bring(camera, inputs[name])
        try:
            actions = np.asarray(self.session.run(None, inputs)[0])  # (B, k, A)
        except Exception as error:
            raise OnnxError(f"ONNX Runtime refuses the observation: {error}") from error
        rest = actions[:, d:] if place is None else actions  # (B, k - d or k, A)
        return np.concatenate([given, rest], axis=1)[:, : actions.shape[1]]


def export_onnx(
    folder: Path | str, out: Path | str, network: str | None = None
) -> OnnxExport:
    """Writes a checkpoint's prediction as an ONNX file, and checks it.

    The file takes any number of robots B at once, and answers as
    `Policy.predict_chunk` does, with z = 0. An older file is replaced.

    Args:
        network: the class that it was trained with, where that is one's own.

    Raises:
        SettingError: the name does not end in .onnx, or cannot be written to.
        OnnxError: a library is not installed, or ONNX Runtime's answer differs from the
            policy's by more than 1e-4 standard deviations of the actions.
        CheckpointError: the checkpoint cannot be read.
    """
    path = Path(out)
    check_output_file(path, "out", ".onnx")
    require("onnx")
    refuse_head(folder, "an ONNX file")
    policy = load_policy(folder, network=network)
    shapes = policy.input_shapes
    config = policy.config
    if getattr(config, "future_max", 0):
        shapes |= {"ahead": ()}
    elif policy.told_max:
        shapes |= {"prefix": (policy.told_max, config.action_dim), "prefix_size": ()}
    if policy.samples:
        shapes |= {"noise": (policy.chunk_size, config.action_dim)}
    content = _exported(policy, shapes)
    difference, deviations = _compare(policy, OnnxPredictor(content), shapes)
    if not deviations <= TOLERANCE:
        raise OnnxError(
            f"ONNX Runtime's actions differ from those of {folder} by {deviations:.2g} "
            f"standard deviations, expected at most {TOLERANCE:g}; nothing was written"
        )
    with atomic_file(path, OnnxError) as temporary:
        temporary.write_bytes(content)
    return OnnxExport(path, shapes, difference, deviations)


def _observation(
    policy: Policy, shapes: Mapping[str, tuple[int, ...]], rows: int
) -> dict[str, np.ndarray]:
    """Noise as wide as the demonstrations."""
    random, seen = np.random.default_rng(rows), {}
    for name, shape in shapes.items():
        if name == "prefix":
            seen[name] = _noise(policy.scale(policy._target_key), random, rows, shape)
        elif name == "noise":
            seen[name] = random.standard_normal((rows, *shape)).astype(np.float32)
        elif name in ("prefix_size", "ahead"):
            seen[name] = random.integers(0, policy.told_max + 1, rows)
        elif name.startswith("images/"):
            pixels = random.integers(0, 256, (rows, *shape))
            seen[name] = pixels.astype(np.uint8)
        else:
            seen[name] = _noise(policy.scale(name), random, rows, shape)
    return seen


def _noise(
    scale: Scale, random: np.random.Generator, rows: int, shape: tuple[int, ...]
) -> np.ndarray:
    noise = random.standard_normal((rows, *shape))
    return (scale.mean.numpy() + scale.std.numpy() * noise).astype(np.float32)


def _exported(policy: Policy, shapes: Mapping[str, tuple[int, ...]]) -> bytes:
    # Two rows: one row would be taken for an axis that is always 1.
    example = _observation(policy, shapes, rows=2)
    names = tuple(example)
    dynamic = tuple({0: torch.export.Dim.DYNAMIC} for _ in names)
    with _quiet("onnxscript", "onnx_ir", "torch.onnx"), torch.no_grad():
        program = torch.onnx.export(
            Predict(policy, names).eval(),
            tuple(torch.from_numpy(x) for x in example.values()),
            dynamo=True,
            input_names=list(names),
            output_names=["actions"],
            dynamic_shapes=(dynamic,),
            verbose=False,
        )
    assert program is not None
    proto = program.model_proto
    about = {
        "kind": policy.name,
        "cameras": list(policy.cameras),
        "chunk_size": policy.chunk_size,
        "action_dim": policy.config.action_dim,
        **{k: v for k, v in policy.config.to_json().items() if k in TOLD},
        "inputs": {name: list(shape) for name, shape in shapes.items()},
        **{k: v for k, v in policy.card.items() if k in ABOUT_ARM},
    }
    if policy.resizing is not None:  # not in the file: whoever runs it does it
        about["resizing"] = policy.resizing.to_json()
    row = proto.metadata_props.add()
    row.key, row.value = METADATA, json.dumps(about)
    return proto.SerializeToString()


def _compare(
    policy: Policy, predictor: OnnxPredictor, shapes: Mapping[str, tuple[int, ...]]
) -> tuple[float, float]:
    scale = policy.scale(policy._target_key)
    # An idle joint deviates by nothing, but its mean is rounded, too.
    std = np.maximum(scale.std.numpy(), 1e-2 * np.abs(scale.mean.numpy()))
    difference = deviations = 0.0
    for rows, told in ((1, 0), (3, policy.told_max)):
        seen = _observation(policy, shapes, rows)
        shape, random = (told, policy.config.action_dim), np.random.default_rng(rows)
        prefix = _noise(scale, random, rows, shape) if told else None
        chunks = [one.predict_chunk(seen, prefix) for one in (predictor, policy)]
        apart = np.abs(chunks[0] - chunks[1])
        difference = max(difference, float(apart.max()))
        deviations = max(deviations, float((apart / std).max()))
    return difference, deviations


@contextlib.contextmanager
def _quiet(*names: str) -> Iterator[None]:
    """Keeps the exporter's remarks on its own optimiser to itself."""
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
