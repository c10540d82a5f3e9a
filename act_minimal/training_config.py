"""Settings of a training run: the command line's flags and a notebook's arguments."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from act_minimal.errors import SettingError, UserError
from act_minimal.settings import (
    ActionTarget,
    Bounds,
    Count,
    NotNegative,
    PolicyKind,
    Positive,
    ResizeMode,
    Seed,
    Share,
    Side,
    Size,
    Threads,
    Whole,
    check_named,
    check_settings,
)

if TYPE_CHECKING:  # both load torch, for which a wrong flag should not wait
    from act_minimal.dataset import Augmentation, Demonstrations

# Fields of the network's configuration that the data or a flag decide.
DECIDED = {
    *("state_dim", "action_dim", "env_state_dim"),
    *("cameras", "image_size", "chunk_size"),
}


@dataclass(frozen=True)
class TrainConfig:
    """Settings of a training run. The defaults suit a state policy on a laptop."""

    data: Path
    """Folder of demonstrations (episode_0.hdf5, ...)."""
    out: Path
    """Folder for log and checkpoints; a run that is there already goes on."""

    policy: PolicyKind = "act"
    """act, or a single-step baseline: bc_transformer, bc_mlp."""
    size: Size = "small"
    """Size of the transformer: small and medium suit a laptop, paper a GPU."""
    chunk_size: Count | None = None
    """k, actions predicted at once; by default the size's own, and 1 for bc_*."""
    model: dict[str, bool | int | float | str] = field(default_factory=dict)
    """Any other field of the network's configuration, by name: use_cvae False ..."""
    action_target: ActionTarget = "absolute"
    """Whether actions are predicted as recorded or relative to the present qpos."""

    cameras: tuple[str, ...] = ()
    """Cameras that the policy sees."""
    resize: tuple[Side, Side] | None = None
    """Bring images to this height and width; the policy does the same at run time. By
    default the network reads them as recorded, each camera at its own size."""
    resize_mode: ResizeMode = "pad"
    """How, where the proportions differ: pad with black, or stretch the image."""
    use_env_state: bool | None = None
    """Whether it sees the simulator's state; by default only without cameras."""
    cache: Path | None = None
    """Folder for decoded images; by default inside `data`, which must be writable."""
    limit: Count | None = None
    """Use only the first so many demonstrations."""
    pad: Literal["last", "zero"] = "last"
    """What fills a chunk that reaches beyond the episode; see `dataset.Windows`."""
    val_fraction: Annotated[float, Bounds(0, below=1)] = 0.1
    """Share of the episodes held out; 0 trains on all of them."""
    state_noise: NotNegative = 0.0
    """Deviation of noise added to normalised qpos and env_state: 0.02 helps vision
    policies not to lean on the joints alone."""
    shift_px: Whole = 0
    """Shift images at random by up to so many pixels; 4 suits 96 x 128."""
    brightness: Share = 0.0
    """Vary the images' brightness by up to this share; likewise the next two."""
    contrast: Share = 0.0
    """See brightness."""
    saturation: Share = 0.0
    """See brightness."""

    steps: Count = 2000
    """Optimizer steps. The cosine ends here, so it cannot change later."""
    batch_size: Annotated[int, Bounds(1, 65_536)] = 64
    """B, over all processes together. The paper has 8, with a rate of 1e-5."""
    lr: Positive = 1e-3
    """Highest learning rate; right for `small`, too high for `paper` (1e-5)."""
    backbone_lr: NotNegative | None = None
    """The same for the image backbone; by default lr; 0 freezes it."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """What the rate does after the warm-up; the paper's is constant."""
    warmup_steps: Whole = 100
    """Steps in which the rate rises from zero: Adam's moments are poor at first."""
    weight_decay: NotNegative = 1e-4
    """As the paper."""
    grad_clip: NotNegative = 10.0
    """Longest gradient, as LeRobot; 0 is off, as the original code."""
    ema_decay: Annotated[float, Bounds(0, below=1)] = 0.995
    """The saved policy averages the weights over about 1 / (1 - decay) steps, which
    smooths away the last batches; 0 is off, as the paper."""

    seed: Seed = 0
    """Decides everything that is random."""
    device: str = "auto"
    """auto (a GPU where there is one), cpu, cuda, mps."""
    threads: Threads | None = None
    """CPU threads; 1 is often fastest for small networks. By default torch's own."""
    bf16: bool = False
    """Mixed precision: faster on recent GPUs, slower on most CPUs."""
    compile: bool = False
    """torch.compile: a minute at the start, faster steps after; for long runs."""

    log_every: Count = 10
    """Steps between two looks at the losses, which make a GPU wait."""
    val_every: Whole = 500
    """Steps between two validations; 0 is never."""
    val_frames: Count = 512
    """Frames of the held-out episodes that a validation looks at."""
    save_every: Count = 500
    """Steps between two checkpoints; there is always one at the end."""
    keep: Whole = 3
    """Checkpoints kept, the newest; 0 keeps all."""
    tensorboard: bool = True
    """Whether to write TensorBoard's files beside log.jsonl."""

    def __post_init__(self) -> None:
        """Refuses what cannot be meant; what the network refuses comes later."""
        check_settings(self)
        if self.policy == "bc_transformer" and self.chunk_size not in (None, 1):
            raise SettingError(
                f"chunk_size is {self.chunk_size}, but a bc_transformer predicts one "
                f"action; policy 'act' with use_cvae False predicts chunks"
            )
        for name in self.model:
            if name in DECIDED:
                raise SettingError(
                    f"'{name}' cannot be set in `model`: the data decide it, or a "
                    f"setting of its own"
                )
        if self.model:
            from act_minimal.policy import network_config

            check_named(network_config(self.policy), self.model)

    @property
    def augmentation(self) -> Augmentation:
        """How images are varied."""
        from act_minimal.dataset import Augmentation

        return Augmentation(
            self.shift_px, self.brightness, self.contrast, self.saturation
        )


def load_demonstrations(
    config: TrainConfig, *, progress: bool = False
) -> Demonstrations:
    """The demonstrations that a configuration asks for."""
    from act_minimal.dataset import Demonstrations
    from act_minimal.resizing import Resizing

    use_env_state = config.use_env_state
    if use_env_state is None:
        use_env_state = not config.cameras
    return Demonstrations.load(
        config.data,
        cameras=config.cameras,
        use_env_state=use_env_state,
        cache=config.cache,
        resizing=Resizing(config.resize, config.resize_mode) if config.resize else None,
        limit=config.limit,
        progress=progress,
    )


def default_chunk(config: TrainConfig) -> int:
    """The chunk size where the configuration leaves it open."""
    if config.policy != "act":
        return 1
    from act_minimal.model import ACTConfig

    return ACTConfig.of_size(config.size, state_dim=1, action_dim=1).chunk_size


def network_settings(config: TrainConfig, demos: Demonstrations) -> dict[str, Any]:
    """What `make_policy` needs to know: the data's shapes and the user's wishes."""
    env_state = demos.env_state
    settings: dict[str, Any] = {
        "state_dim": demos.qpos.shape[1],
        "action_dim": demos.action.shape[1],
        "env_state_dim": 0 if env_state is None else env_state.shape[1],
        "cameras": demos.cameras,
        "chunk_size": config.chunk_size or default_chunk(config),
    }
    sizes = {camera: images.shape[1:3] for camera, images in demos.images.items()}
    if config.resize and set(sizes.values()) - {tuple(config.resize)}:
        raise UserError(
            f"resize is {config.resize}, but the demonstrations have {sizes}"
        )
    if sizes:
        settings["image_size"] = tuple(sizes.values())
    return settings | config.model


def as_json(config: TrainConfig) -> dict[str, Any]:
    """The settings as JSON has them."""
    return json.loads(json.dumps(asdict(config), default=str))  # paths are text
