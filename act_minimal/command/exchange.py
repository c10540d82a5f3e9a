"""The commands of `act` that carry policies elsewhere and back: LeRobot, ONNX.

Each is a function whose parameters are the flags, as in `main.py`, which lists them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import tyro

from ..exchange.lerobot_units import PolicyUnits
from ..execution import ExecutionConfig
from ..support.errors import SettingError
from ..support.results import Json, Result
from ..support.validation import ClassPath, Count, check_settings


@dataclass(frozen=True)
class ExportConfig:
    """What goes to LeRobot, and how it shall act there."""

    policy: Path
    """A checkpoint folder, or a training run (its newest checkpoint is taken)."""
    out: Path
    """The folder to write; LeRobot takes it as --policy.path."""
    units: PolicyUnits = "keep"
    """so100 or so101: LeRobot's degrees, and 0 to 100 for the gripper, instead of
    radians, and 0 to 1; for robots with use_degrees=true. openarm: degrees of two arms,
    the left one first."""
    rename: tuple[str, ...] = ()
    """New names for cameras, such as top=front."""
    drop_cvae: bool = False
    """Leave out the action encoder, which only training uses."""
    execution: ExecutionConfig = field(
        default_factory=lambda: ExecutionConfig("open_loop")
    )

    def __post_init__(self) -> None:
        check_settings(self)


def export_lerobot(
    config: tyro.conf.OmitArgPrefixes[ExportConfig], json: Json = False
) -> Result:
    r"""Write an ACT policy as a LeRobot 0.4 checkpoint; it acts the same there.

    Weights, normalisation and the way to execute chunks go along. What LeRobot's ACT
    cannot do is refused by name: cameras need a ResNet with all its image tokens and no
    camera embedding (--size paper), several actions a token need --drop-cvae. A SO-100
    counts in degrees there: --units so100 (or so101) converts the statistics.

    $ act export-lerobot --policy runs/state --out there --drop-cvae
    $ act export-lerobot --policy runs/paper --out there --units so100
    $ act export-lerobot --policy runs/paper --out there --rename top=front
    $ act export-lerobot --policy runs/paper --out there --mode ensemble --m 0.01
    $ lerobot-record --robot.type=so100_follower --robot.use_degrees=true \
          --policy.path=there ...
    """
    from ..exchange.lerobot_policy import export_policy

    folder, notes = export_policy(
        config.policy,
        config.out,
        units=config.units,
        execution=config.execution,
        drop_cvae=config.drop_cvae,
        cameras=_renames(config.rename),
    )
    lines = [f"{folder}: a LeRobot checkpoint; bring it back with: act import-lerobot"]
    lines += [f"note: {note}" for note in notes]
    return Result({"folder": str(folder), "notes": notes}, "\n".join(lines))


def import_lerobot(
    checkpoint: tyro.conf.Positional[Path],
    out: Path,
    units: PolicyUnits = "keep",
    rename: tuple[str, ...] = (),
    statistics: Path | None = None,
    cameras: tuple[str, ...] = (),
    size: tuple[Count, Count] = (480, 640),
    heads: Count = 8,
    json: Json = False,
) -> Result:
    r"""Read LeRobot's ACT checkpoint, or the original repository's, as one of ours.

    LeRobot's of 0.4 and before; a folder with config.json. Its silent gaps are errors
    here: a missing weight, or a feature without statistics. Of the original, the
    weights as safetensors, and --statistics; pickles are not opened, and the message
    says how to convert them.

    $ act import-lerobot outputs/train/act/checkpoints/last/pretrained_model --out ours
    $ act import-lerobot pretrained_model --out ours --units so101 --rename front=top
    $ act import-lerobot policy.safetensors --statistics stats.json --cameras top \
          --out ours
    $ act deploy --policy ours --port arm --calibration arm.json

    Args:
        checkpoint: LeRobot's folder `pretrained_model`, or the original's weights.
        out: The folder to write, as `act eval` and `act deploy` read it.
        units: so100 or so101: turn LeRobot's degrees, and 0 to 100, into radians, and
            0 to 1; openarm: degrees of two arms, the left one first.
        rename: New names for LeRobot's cameras, such as front=top.
        statistics: Of the original: a .json or .safetensors with qpos_mean, qpos_std,
            action_mean and action_std.
        cameras: Of the original: the names, in the order that it was trained with.
        size: Of the original: height and width of its images, in pixels.
        heads: Of the original: attention heads.
    """
    from ..checkpoint import CheckpointError, load_policy

    if not checkpoint.exists():
        raise CheckpointError(
            f"there is no {checkpoint}; expected LeRobot's folder 'pretrained_model', "
            "or a file of the original repository's weights"
        )
    if checkpoint.is_dir():
        from ..exchange.lerobot_policy import import_policy

        for name, given in (("statistics", statistics), ("cameras", cameras)):
            if given:
                raise SettingError(
                    f"{name} is for a file of the original repository's weights, but "
                    f"{checkpoint} is a folder, which says it itself"
                )
        import_policy(checkpoint, out, units=units, cameras=_renames(rename))
    else:
        from ..exchange.original_act import import_original

        if statistics is None:
            raise SettingError(
                f"{checkpoint} is no folder of LeRobot's; for the original "
                "repository's weights, statistics is missing: the file with qpos_mean, "
                "qpos_std, action_mean and action_std"
            )
        if rename:
            raise SettingError("rename is for LeRobot's folders; use cameras instead")
        import_original(
            checkpoint,
            statistics,
            out,
            cameras=cameras,
            image_size=size,
            heads=heads,
            units=units,
        )
    policy = load_policy(out)
    reads = ["qpos", *(["env_state"] if policy.uses_env_state else []), *policy.cameras]
    return Result(
        {"folder": str(out), "reads": reads, "chunk_size": policy.chunk_size},
        f"{out}: reads {', '.join(reads)}, predicts {policy.chunk_size} actions at a "
        "time",
    )


def export_onnx(
    policy: Path, out: Path, network: ClassPath | None = None, json: Json = False
) -> Result:
    """Write a policy's prediction as one ONNX file, and check it with ONNX Runtime.

    Normalisation is inside and images stay uint8: in go "qpos" (B, S) in rad,
    "images/<camera>" (B, H, W, 3) and so on, out come "actions" (B, k, A). Whoever runs
    the file needs neither torch nor this package. Needs the extra "onnx".

    $ act export-onnx --policy runs/state --out state.onnx

    Args:
        policy: A checkpoint folder, or a training run (its newest checkpoint is taken).
        out: The file to write.
        network: The network of your own that it was trained with, as module:Class.
    """
    from ..exchange.onnx import export_onnx as export

    done = export(policy, out, network)
    size = done.path.stat().st_size
    return Result(
        {
            "file": str(done.path),
            "inputs": {name: list(shape) for name, shape in done.inputs.items()},
            "difference": done.difference,
            "bytes": size,
        },
        f"{done.path}: {size / 1e6:.1f} MB, reads {', '.join(done.inputs)}; its "
        f"actions differ from the policy's by at most {done.difference:.1g}",
    )


def _renames(words: Sequence[str]) -> dict[str, str]:
    names = {}
    for word in words:
        old, equals, new = word.partition("=")
        if not (old and equals and new):
            raise SettingError(f"rename is {word!r}, expected OLD=NEW, as in top=front")
        names[old] = new
    return names


COMMANDS: dict[str, Callable[..., Result]] = {
    "export-lerobot": export_lerobot,
    "import-lerobot": import_lerobot,
    "export-onnx": export_onnx,
}
