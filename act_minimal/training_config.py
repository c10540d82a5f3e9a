"""Settings of a training run: the command line's flags and a notebook's arguments."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from act_minimal.dataset import Augmentation, Demonstrations
from act_minimal.errors import SettingError, UserError
from act_minimal.model import ACTConfig, Size
from act_minimal.policy import ActionTarget, PolicyKind
from act_minimal.resizing import ResizeMode, Resizing, check_size

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
    chunk_size: int | None = None
    """k, actions predicted at once; by default the size's own, and 1 for bc_*."""
    model: dict[str, bool | int | float | str] = field(default_factory=dict)
    """Any other field of the network's configuration, by name: use_cvae False ..."""
    action_target: ActionTarget = "absolute"
    """Whether actions are predicted as recorded or relative to the present qpos."""

    cameras: tuple[str, ...] = ()
    """Cameras that the policy sees."""
    resize: tuple[int, int] | None = None
    """Bring images to this height and width; the policy does the same at run time. By
    default the network reads them as recorded, each camera at its own size."""
    resize_mode: ResizeMode = "pad"
    """How, where the proportions differ: pad with black, or stretch the image."""
    use_env_state: bool | None = None
    """Whether it sees the simulator's state; by default only without cameras."""
    cache: Path | None = None
    """Folder for decoded images; by default inside `data`, which must be writable."""
    limit: int | None = None
    """Use only the first so many demonstrations."""
    pad: Literal["last", "zero"] = "last"
    """What fills a chunk that reaches beyond the episode; see `dataset.Windows`."""
    val_fraction: float = 0.1
    """Share of the episodes held out; 0 trains on all of them."""
    state_noise: float = 0.0
    """Deviation of noise added to normalised qpos and env_state: 0.02 helps vision
    policies not to lean on the joints alone."""
    shift_px: int = 0
    """Shift images at random by up to so many pixels; 4 suits 96 x 128."""
    brightness: float = 0.0
    """Vary the images' brightness by up to this share; likewise the next two."""
    contrast: float = 0.0
    """See brightness."""
    saturation: float = 0.0
    """See brightness."""

    steps: int = 2000
    """Optimizer steps. The cosine ends here, so it cannot change later."""
    batch_size: int = 64
    """B, over all processes together. The paper has 8, with a rate of 1e-5."""
    lr: float = 1e-3
    """Highest learning rate; right for `small`, too high for `paper` (1e-5)."""
    backbone_lr: float | None = None
    """The same for the image backbone; by default lr; 0 freezes it."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """What the rate does after the warm-up; the paper's is constant."""
    warmup_steps: int = 100
    """Steps in which the rate rises from zero: Adam's moments are poor at first."""
    weight_decay: float = 1e-4
    """As the paper."""
    grad_clip: float = 10.0
    """Longest gradient, as LeRobot; 0 is off, as the original code."""
    ema_decay: float = 0.995
    """The saved policy averages the weights over about 1 / (1 - decay) steps, which
    smooths away the last batches; 0 is off, as the paper."""

    seed: int = 0
    """Decides everything that is random."""
    device: str = "auto"
    """auto (a GPU where there is one), cpu, cuda, mps."""
    threads: int | None = None
    """CPU threads; 1 is often fastest for small networks. By default torch's own."""
    bf16: bool = False
    """Mixed precision: faster on recent GPUs, slower on most CPUs."""
    compile: bool = False
    """torch.compile: a minute at the start, faster steps after; for long runs."""

    log_every: int = 10
    """Steps between two looks at the losses, which make a GPU wait."""
    val_every: int = 500
    """Steps between two validations; 0 is never."""
    val_frames: int = 512
    """Frames of the held-out episodes that a validation looks at."""
    save_every: int = 500
    """Steps between two checkpoints; there is always one at the end."""
    keep: int = 3
    """Checkpoints kept, the newest; 0 keeps all."""
    tensorboard: bool = True
    """Whether to write TensorBoard's files beside log.jsonl."""

    def __post_init__(self) -> None:
        """Refuses what cannot be meant; what the network refuses comes later."""
        least = {"steps": 1, "batch_size": 1, "warmup_steps": 0, "grad_clip": 0}
        least |= {"log_every": 1, "val_every": 0, "val_frames": 1, "save_every": 1}
        least |= {"weight_decay": 0, "state_noise": 0, "keep": 0, "seed": 0}
        for name, bound in least.items():
            value = getattr(self, name)
            if not value >= bound:
                raise SettingError(f"{name} is {value}, expected at least {bound}")
        if not self.lr > 0:
            raise SettingError(f"lr is {self.lr}, expected more than 0")
        if self.backbone_lr is not None and not self.backbone_lr >= 0:
            raise SettingError(
                f"backbone_lr is {self.backbone_lr}, expected at least 0"
            )
        if not 0 <= self.ema_decay < 1:
            raise SettingError(
                f"ema_decay is {self.ema_decay}, expected 0 up to (not) 1"
            )
        if self.threads is not None and self.threads < 1:
            raise SettingError(f"threads is {self.threads}, expected at least 1")
        if self.policy == "bc_transformer" and self.chunk_size not in (None, 1):
            raise SettingError(
                f"chunk_size is {self.chunk_size}, but a bc_transformer predicts one "
                f"action; policy 'act' with use_cvae False predicts chunks"
            )
        if self.resize is not None:
            check_size("resize", self.resize)
        for name in self.model:
            if name in DECIDED:
                raise SettingError(
                    f"'{name}' cannot be set in `model`: the data decide it, or a "
                    f"setting of its own"
                )

    @property
    def augmentation(self) -> Augmentation:
        """How images are varied."""
        return Augmentation(
            self.shift_px, self.brightness, self.contrast, self.saturation
        )


def load_demonstrations(
    config: TrainConfig, *, progress: bool = False
) -> Demonstrations:
    """The demonstrations that a configuration asks for."""
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
    plain = asdict(config)
    plain |= {"data": str(config.data), "out": str(config.out)}
    return plain | {"cameras": list(config.cameras)}
