"""What can be set, with a reason beside each: the network's and a training run's.

The command line's flags and a notebook's arguments are the same dataclasses.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, Literal

from .support.errors import SettingError
from .support.plugins import load_class
from .support.validation import (
    Bounds,
    ClassPath,
    Count,
    NotNegative,
    Positive,
    Seed,
    Share,
    Side,
    Threads,
    Whole,
    check_named,
    check_settings,
    check_value,
)

PolicyKind = Literal["act", "bc_transformer", "bc_mlp"]
HeadName = Literal["l1", "mip", "flow", "l1_flow", "diffusion", "mdn", "bins"]
ActionTarget = Literal["absolute", "delta"]
Size = Literal["small", "medium", "paper"]
ResizeMode = Literal["pad", "stretch"]
# What a network of one's own has; `model.ACT` is an example.
NETWORK = ("Config", "forward", "loss")
ImageSize = tuple[Count, Count] | tuple[tuple[Count, Count], ...]


# ---------------------------------------------------------------- networks


def as_tuples(size: Any) -> Any:
    """An `ImageSize` from JSON, which gives lists; anything else as it is."""
    return tuple(as_tuples(x) for x in size) if isinstance(size, list | tuple) else size


# Settings that came later, and those that mean nothing without them.
SLOW = {"future_max": ("future_lag",), "prefix_max": ("prefix_noise",)}
LATER = SLOW | {"head": ("head_steps",)}
STEPPING = "flow", "diffusion"  # heads that take `head_steps` from noise to a chunk


@dataclass(frozen=True)
class NetworkConfig:
    """What every network has to know of the data; a network of one's own adds to it.

    Raises:
        SettingError: a value out of range; names the field and the valid values.
    """

    state_dim: Count  # S: joints (and gripper) of the observation
    action_dim: Count  # A: joints (and gripper) of the command
    env_state_dim: Whole = 0  # E: e.g. the cube's pose; 0 = the policy does not see it
    cameras: tuple[str, ...] = ()  # order matters: it is the order of the images
    image_size: ImageSize = (96, 128)  # (H, W) pixels, of all cameras or of each
    chunk_size: Count = 25  # k: at 30 Hz 25 actions are 0.8 s; about 1 s works best

    def __post_init__(self) -> None:
        # JSON gives lists; the class promises tuples.
        object.__setattr__(self, "cameras", tuple(self.cameras))
        object.__setattr__(self, "image_size", given := as_tuples(self.image_size))
        check_settings(self)
        self._check(
            "cameras",
            len(set(self.cameras)) == len(self.cameras),
            "names that differ from each other",
        )
        n, least = max(1, len(self.cameras)), self.least_side
        sizes = given if given and isinstance(given[0], tuple) else (given,) * n
        self._check(
            "image_size",
            len(sizes) == n and min(map(min, sizes)) >= least,
            f"(height, width) of at least {least} pixels each, or such a pair a camera",
        )
        if len(set(sizes)) == 1:  # one size for all is written in one way
            object.__setattr__(self, "image_size", sizes[0])

    def _check(self, name: str, good: bool, expected: str) -> None:
        if not good:
            found = getattr(self, name)
            raise SettingError(f"{name} is {found!r}, expected {expected}")

    def to_json(self) -> dict[str, Any]:
        """The settings as JSON has them."""
        return asdict(self)

    @property
    def least_side(self) -> int:
        """Pixels that an image has at least, each way."""
        return 16

    @property
    def camera_sizes(self) -> dict[str, tuple[int, int]]:
        """(H, W) of each camera's images."""
        size: Any = self.image_size
        each = size if isinstance(size[0], tuple) else [size] * len(self.cameras)
        return dict(zip(self.cameras, each, strict=True))


@dataclass(frozen=True)
class ACTConfig(NetworkConfig):
    """Every choice that shapes the network and its loss.

    The defaults are those of a laptop; `ACTConfig.of_size("paper", ...)` is the
    paper's network. docs/model_choices.md compares each switch with the original.
    """

    width: Count = 64  # D of every token
    feedforward: Count = 192  # hidden width of the transformer's MLPs
    heads: Count = 4  # attention heads; D / heads below 16 is slow on a CPU
    encoder_layers: Count = 2
    decoder_layers: Count = 1  # the original has 7 but uses one: see decoder_output
    # "first": the original's bug, https://github.com/tonyzhaozh/act/issues/10
    decoder_output: Literal["last", "first"] = "last"
    pre_norm: bool = True  # trains without long warm-up; the paper: post-norm
    activation: Literal["relu", "gelu"] = "gelu"  # the paper: relu
    dropout: Annotated[float, Bounds(0, below=1)] = (
        0.0  # the paper: 0.1; on a CPU it costs more than it brings
    )

    use_cvae: bool = True  # False: z is always 0, as at test
    cvae_layers: Count = 1
    cvae_actions_per_token: Count = 1  # the paper: 1; more = fewer tokens, faster
    latent_dim: Count = 16  # Z
    kl_weight: NotNegative = 1.0  # beta; the paper: 10
    kl_reduction: Literal["sum", "mean"] = "sum"  # over Z, as the original; then mean
    loss: Literal["l1", "l2"] = "l1"  # the paper's ablation prefers l1
    padding_in_loss: Literal["exclude", "dilute"] = "exclude"  # original: dilute
    # What makes the chunk (heads.py). l1 is ACT; the others have no CVAE.
    head: HeadName = "l1"
    head_steps: Count = 5  # passes at test, of flow and diffusion

    # For slow predictions (realtime.py). Either up to so many committed actions that
    # the encoder is told of; 0 is ACT.
    prefix_max: Whole = 0
    # their noise in training, in deviations: at test they are not a person's actions
    prefix_noise: NotNegative = 0.03
    # Or up to so many ticks by which qpos is ahead of what else is observed. It is
    # taken to be the action committed for then, or for `future_lag` ticks before then.
    future_max: Whole = 0
    future_lag: Whole = 0  # ticks that the arm is behind its targets

    backbone: Literal["small", "resnet18", "resnet34", "resnet50"] = "small"
    pretrained: Literal["none", "imagenet"] = "none"  # starting weights of a ResNet
    image_tokens: Literal["keypoints", "grid"] = "keypoints"  # the paper: grid
    keypoint_tokens: Count = 4  # tokens a camera that carry its keypoints
    image_pool: Count = 1  # average-pool the images by this first: cheaper, blurrier
    camera_embedding: bool = True  # False: two equal cameras can be swapped unnoticed

    @classmethod
    def of_size(cls, size: Size, **settings: Any) -> ACTConfig:
        """The settings of one size, and fields to set or override.

        Args:
            size: "small" for state policies on a laptop, "medium" for its vision
                policies, "paper" for the published network (a GPU's work).

        Raises:
            SettingError: the size or a setting is not valid.
        """
        if size not in SIZES:
            raise SettingError(f"size is {size!r}, expected one of {sorted(SIZES)}")
        check_named(cls, settings)
        return cls(**{**SIZES[size], **settings})

    def to_json(self) -> dict[str, Any]:
        """The settings as JSON has them; those that came later only where used.

        So a policy that has none of them is the same as before there were any.
        """
        usual = {field.name: field.default for field in fields(self)}
        unused = {
            name
            for switch, names in LATER.items()
            if getattr(self, switch) == usual[switch]
            for name in (switch, *names)
        }
        return {k: v for k, v in asdict(self).items() if k not in unused}

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check("width", self.width % 4 == 0, "a multiple of 4 (sine embeddings)")
        if self.head != "l1":
            object.__setattr__(self, "use_cvae", False)
        lossless = self.loss == "l1" or self.head == "l1"
        self._check("loss", lossless, f"'l1': head={self.head!r} has its own")
        steps = self.head_steps == 5 or self.head in STEPPING
        self._check("head_steps", steps, f"5: head={self.head!r} has no steps")
        divides = self.width % self.heads == 0
        self._check("heads", divides, f"a divisor of width={self.width}")
        self._check(
            "cvae_actions_per_token",
            self.chunk_size % self.cvae_actions_per_token == 0 or not self.use_cvae,
            f"a divisor of chunk_size={self.chunk_size}",
        )
        most = self.chunk_size - 1 if self.state_dim == self.action_dim else 0
        self._check(
            "future_max",
            self.future_max <= most,
            f"at most {most} with chunk_size={self.chunk_size}, "
            f"state_dim={self.state_dim}, action_dim={self.action_dim}",
        )
        self._check(
            "future_lag",
            self.future_lag < max(1, self.future_max),
            f"less than future_max={self.future_max}: else nothing is ever ahead",
        )
        most = 0 if self.future_max else self.chunk_size - 1
        self._check(
            "prefix_max",
            self.prefix_max <= most,
            f"at most {most} with chunk_size={self.chunk_size} and "
            f"future_max={self.future_max}",
        )
        if self.backbone == "small":
            untrained = self.pretrained == "none"
            self._check("pretrained", untrained, "'none' with backbone=small")

    @property
    def least_side(self) -> int:
        return (16 if self.backbone == "small" else 2) * self.image_pool


SIZES: dict[str, dict[str, Any]] = {
    "small": {},
    "medium": {"width": 128, "feedforward": 384, "chunk_size": 50},
    "paper": {
        "image_size": (480, 640),
        "chunk_size": 100,
        "width": 512,
        "feedforward": 3200,
        "heads": 8,
        "encoder_layers": 4,
        "pre_norm": False,
        "activation": "relu",
        "dropout": 0.1,
        "cvae_layers": 4,
        "latent_dim": 32,
        "kl_weight": 10.0,
        "backbone": "resnet18",
        "image_tokens": "grid",
        "camera_embedding": False,
    },
}


@dataclass(frozen=True)
class MLPConfig(NetworkConfig):
    """Everything that decides the shape and the loss of an `MLP`."""

    chunk_size: Count = 1  # k; 1 is behaviour cloning as the textbooks have it
    hidden: Count = 256  # width of each hidden layer
    depth: Count = 3  # number of hidden layers
    image_features: Count = 64  # numbers that each camera contributes to the input
    dropout: Annotated[float, Bounds(0, below=1)] = 0.0  # costs more than its layer
    # As ACT, so that the comparison is about the network and not the loss.
    loss: Literal["l1", "l2"] = "l1"
    padding_in_loss: Literal["exclude", "dilute"] = "exclude"

    @property
    def act(self) -> ACTConfig:
        """The settings shared with ACT: its camera network and its loss."""
        shared = {one.name: getattr(self, one.name) for one in fields(NetworkConfig)}
        return ACTConfig(
            **shared,
            width=self.image_features,
            use_cvae=False,
            keypoint_tokens=1,
            loss=self.loss,
            padding_in_loss=self.padding_in_loss,
        )


def network_config(kind: PolicyKind | ClassPath) -> type[NetworkConfig]:
    """The settings that the network of this kind of policy has."""
    if ":" in kind:
        return load_class(kind, NETWORK).Config
    return MLPConfig if kind == "bc_mlp" else ACTConfig


def make_config(
    kind: PolicyKind | ClassPath, size: Size = "small", **settings: Any
) -> NetworkConfig:
    """The settings of a network; see `policy.make_policy`."""
    check_value("policy", kind, PolicyKind | ClassPath)
    config = network_config(kind)
    check_named(config, settings)
    if kind == "bc_transformer":
        for key, only in (("chunk_size", 1), ("use_cvae", False)):
            if settings.setdefault(key, only) != only:
                raise SettingError(
                    f"{key} is {settings[key]}, but a bc_transformer has {only}; "
                    f"policy 'act' predicts chunks, with use_cvae False or True"
                )
    try:
        if config is ACTConfig:
            return ACTConfig.of_size(size, **settings)
        return config(**settings)
    except TypeError as error:  # one is missing
        raise SettingError(f"a {kind} policy cannot be built: {error}") from error


# ---------------------------------------------------------------- training


@dataclass(frozen=True)
class Augmentation:
    """How strongly images are varied in training; the defaults leave them alone."""

    shift_px: Whole = 0  # up to so many pixels each way; the edge is repeated
    brightness: Share = 0.0  # all values times 1 - b to 1 + b
    contrast: Share = 0.0  # distance from the mean grey times 1 - c to 1 + c
    saturation: Share = 0.0  # distance from each pixel's grey times 1 - s to 1 + s

    def __post_init__(self) -> None:
        check_settings(self)

    @property
    def enabled(self) -> bool:
        return self != Augmentation()


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

    policy: PolicyKind | ClassPath = "act"
    """act, or a single-step baseline: bc_transformer, bc_mlp; or a network of your own,
    as module:Class."""
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
        # What the network refuses comes later.
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
        head = self.model.get("head", "l1")
        if self.compile and head != "l1":
            raise SettingError(f"compile is True with head={head!r}, expected 'l1'")
        check_named(network_config(self.policy), self.model)

    @property
    def augmentation(self) -> Augmentation:
        return Augmentation(
            self.shift_px, self.brightness, self.contrast, self.saturation
        )


def as_json(config: TrainConfig) -> dict[str, Any]:
    """The settings as JSON has them."""
    return json.loads(json.dumps(asdict(config), default=str))  # paths are text
