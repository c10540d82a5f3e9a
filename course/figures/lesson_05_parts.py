"""Lesson 05: ACT taken apart: its pieces, its weights by name, its shapes."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor, nn

from act_minimal.backbones import sinusoid_2d
from act_minimal.dataset import Demonstrations, Windows
from act_minimal.model import ACT, act_loss
from act_minimal.policy import Policy
from act_minimal.settings import ACTConfig

from ..toolkit.plots import figure, label, style

# --- the pieces, as the lesson asks for them ------------------------------------------


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Any = None) -> Tensor:
    """Attention of (..., T, d) over (..., S, d); the mask is True where it may."""
    score = torch.einsum("...td,...sd->...ts", query, key) / math.sqrt(query.shape[-1])
    if mask is not None:
        score = torch.where(mask, score, torch.tensor(-math.inf, dtype=score.dtype))
    return torch.einsum("...ts,...sd->...td", score.softmax(-1), value)


def split_heads(x: Tensor, heads: int) -> Tensor:
    """(B, T, D) to (B, heads, T, D / heads)."""
    return torch.stack(x.chunk(heads, -1), 1)


def sinusoid(length: int, width: int) -> Tensor:
    """(length, width): sine and cosine in turn, slower and slower."""
    table = torch.zeros(length, width, dtype=torch.float64)
    for j in range(0, width, 2):
        angle = torch.arange(length, dtype=torch.float64) / 10000.0 ** (j / width)
        table[:, j], table[:, j + 1] = angle.sin(), angle.cos()
    return table.float()


def encoder_layer(w: "Weights", x: Tensor, position: Tensor, mask: Any = None):
    """One pre-norm encoder layer, (B, T, D) to the same."""
    y = w.norm("norm1", x)
    place = y + position
    x = x + w.attention("self_attn", place, place, y, mask)
    return x + w.mlp(w.norm("norm2", x))


def posterior(w: "Weights", qpos: Tensor, action: Tensor, is_pad: Tensor):
    """The CVAE's encoder: mean and log variance (B, Z)."""
    cls = w["cls"].expand(len(qpos), 1, -1)
    x = [cls, w.linear("qpos_proj", qpos)[:, None], w.linear("action_proj", action)]
    mask = torch.cat([torch.ones(len(qpos), 2, dtype=torch.bool), ~is_pad], 1)
    x = w.encoder(torch.cat(x, 1), w.sinusoid(2 + action.shape[1]), mask)
    return w.linear("latent_proj", x[:, 0]).chunk(2, -1)


def image_tokens(w: "Weights", features: Tensor) -> tuple[Tensor, Tensor]:
    """A feature map (B, C, h, w): tokens (B, h w, D), positions (h w, D)."""
    h, width = features.shape[2:]
    tokens = w.linear("proj", torch.einsum("bchw->bhwc", features).flatten(1, 2))
    rows, columns = w.wave(h), w.wave(width)
    cells = [torch.cat([row, column]) for row in rows for column in columns]
    return tokens, torch.stack(cells)


def decode(w: "Weights", memory: Tensor, key: Tensor) -> Tensor:
    """From the memory (B, T, D), by k learned queries, to actions (B, k, A)."""
    query, layer = w["queries"], w.part("decoder.0")
    x = memory.new_zeros(len(memory), *query.shape)
    y = layer.norm("norm1", x)
    x = x + layer.attention("self_attn", y + query, y + query, y)
    x = x + layer.attention("cross_attn", layer.norm("norm2", x) + query, key, memory)
    x = x + layer.mlp(layer.norm("norm3", x))
    return w.linear("action_head", w.norm("decoder_norm", x))


def act(w: "Weights", batch: dict[str, Tensor], eps: Tensor | None = None):
    """Actions (B, k, A); mean and log variance (B, Z), None without actions."""
    if "action" in batch:
        assert eps is not None
        mean, logvar = w.posterior(batch["qpos"], batch["action"], batch["is_pad"])
        z = mean + (0.5 * logvar).exp() * eps
    else:
        mean = logvar = None
        z = torch.zeros(len(batch["qpos"]), w["latent_proj.weight"].shape[1])
    x, position = w.tokens(z, batch)
    memory = w.encoder(x, position)
    return w.decode(memory, memory + position), mean, logvar


@dataclass(frozen=True)
class Pieces:
    """The functions that the lesson writes, and which of them are the learner's."""

    sinusoid: Callable = sinusoid
    attend: Callable = attend
    split_heads: Callable = split_heads
    encoder_layer: Callable = encoder_layer
    posterior: Callable = posterior
    image_tokens: Callable = image_tokens
    decode: Callable = decode
    act: Callable = act
    yours: tuple[str, ...] = ()
    missing: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        lines = [f"yours: {', '.join(self.yours) or 'none yet'}"]
        lines += [f"the course's: {name} ({why})" for name, why in self.missing.items()]
        return "\n".join(lines)


class Weights:
    """The weights of a network by name, and the operations that need them.

    `w["queries"]` is a tensor, `w.part("decoder.0")` the weights of one part, and
    `w.linear("qpos_proj", x)` the layer of that name.

    Args:
        network: an `nn.Module`, or its state dict.
        heads: of every attention.
        pieces: what attention, encoder layers and positions are made of.
    """

    def __init__(self, network: Any, heads: int = 4, pieces: Pieces | None = None):
        state = network.state_dict() if isinstance(network, nn.Module) else network
        self.state: dict[str, Tensor] = dict(state)
        self.heads, self.pieces = heads, pieces or Pieces()

    def __getitem__(self, name: str) -> Tensor:
        return self.state[name]

    def part(self, prefix: str) -> "Weights":
        """The weights whose names begin with `prefix`, without it."""
        n = len(prefix) + 1
        found = {k[n:]: x for k, x in self.state.items() if k.startswith(f"{prefix}.")}
        if not found:
            raise KeyError(f"no weights begin with {prefix!r}")
        return Weights(found, self.heads, self.pieces)

    def linear(self, name: str, x: Tensor) -> Tensor:
        """Matrix and bias, x W^T + b: (..., in) to (..., out)."""
        return F.linear(x, self[f"{name}.weight"], self[f"{name}.bias"])

    def norm(self, name: str, x: Tensor) -> Tensor:
        """Layer norm over the last axis."""
        weight, bias = self[f"{name}.weight"], self[f"{name}.bias"]
        return F.layer_norm(x, x.shape[-1:], weight, bias)

    def mlp(self, x: Tensor) -> Tensor:
        """linear2(gelu(linear1(x))): each token by itself."""
        return self.linear("linear2", F.gelu(self.linear("linear1", x)))

    def sinusoid(self, length: int) -> Tensor:
        """Positions (length, D)."""
        table = self.pieces.sinusoid(length, self["cls"].shape[-1])
        return torch.as_tensor(table, dtype=torch.float32)

    def wave(self, n: int) -> Tensor:
        """Positions (n, D / 2) along one side of a feature map, as DETR has them."""
        width = len(self["proj.weight"])
        return sinusoid_2d(n, 1, width)[:, : width // 2]

    def attention(
        self, name: str, query: Tensor, key: Tensor, value: Tensor, mask: Any = None
    ) -> Tensor:
        """All heads: (B, T, D) over (B, S, D); the mask (B, S) is True where it may."""
        w = self.part(name)
        several = zip(
            (query, key, value),
            w["in_proj_weight"].chunk(3),
            w["in_proj_bias"].chunk(3),
            strict=True,
        )
        heads = [
            self.pieces.split_heads(F.linear(x, a, b), self.heads)
            for x, a, b in several
        ]
        mask = None if mask is None else mask[:, None, None]  # (B, 1, 1, S)
        out = self.pieces.attend(*heads, mask)  # (B, heads, T, D / heads)
        return w.linear("out_proj", out.transpose(1, 2).flatten(2))  # (B, T, D)

    def encoder(self, x: Tensor, position: Tensor, mask: Any = None) -> Tensor:
        """The part `encoder`: its layers, then its norm."""
        stack = self.part("encoder")
        i = 0
        while f"layers.{i}.norm1.weight" in stack.state:
            layer = stack.part(f"layers.{i}")
            x = self.pieces.encoder_layer(layer, x, position, mask)
            i += 1
        return stack.norm("norm", x)

    def posterior(self, qpos: Tensor, action: Tensor, is_pad: Tensor) -> Any:
        """Mean and log variance (B, Z), by the part `cvae`."""
        return self.pieces.posterior(self.part("cvae"), qpos, action, is_pad)

    def tokens(self, z: Tensor, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Tokens of z, joints, cube and image cells (B, T, D), and positions (T, D)."""
        tokens = [
            self.linear("latent_proj", z),
            self.linear("qpos_proj", batch["qpos"]),
        ]
        if "env_state" in batch:
            tokens.append(self.linear("env_proj", batch["env_state"]))
        x, position = torch.stack(tokens, 1), self["position"]
        if "features" in batch:
            w = self.part("cameras.tokens")
            seen, places = self.pieces.image_tokens(w, batch["features"])
            x, position = torch.cat([x, seen], 1), torch.cat([position, places])
        return x, position

    def decode(self, memory: Tensor, key: Tensor) -> Tensor:
        """Actions (B, k, A)."""
        return self.pieces.decode(self, memory, key)


# --- the whole network ----------------------------------------------------------------


def fresh(seed: int = 0, **settings: Any) -> ACT:
    """An untrained small ACT for the SO-100 task, cube's pose in sight."""
    torch.manual_seed(seed)
    config = {"state_dim": 6, "action_dim": 6, "env_state_dim": 7, "chunk_size": 50}
    return ACT(ACTConfig.of_size("small", **config | settings)).eval()


def sample_batch(policy: Policy) -> dict[str, Tensor]:
    """Four windows of the sample episodes, normalised, the last one at the very end."""
    from ..toolkit.paths import ROOT

    demos = Demonstrations.load(ROOT / "data/samples/state")
    windows = Windows(demos, [0], policy.chunk_size)
    raw = windows.batch(np.linspace(0, len(windows) - 20, 4).astype(int))
    batch = {
        k: policy.scale(k).normalise(raw[k]) for k in ("qpos", "env_state", "action")
    }
    return batch | {"is_pad": raw["is_pad"]}


def shapes(model: ACT, batch: dict[str, Tensor], eps: Tensor) -> list[str]:
    """A line for each part that a batch runs through: name, shapes, parameters."""
    wanted = [
        *("cvae.qpos_proj", "cvae.action_proj", "cvae.encoder", "cvae.latent_proj"),
        *("latent_proj", "qpos_proj", "env_proj", "encoder"),
        *("decoder.0.self_attn", "decoder.0.cross_attn", "decoder_norm", "action_head"),
    ]
    lines: dict[str, str] = {}

    def hook(name: str) -> Callable:
        def keep(module: nn.Module, given: tuple, out: Tensor) -> None:
            numbers = sum(p.numel() for p in module.parameters())
            came, went = str(tuple(given[0].shape)), str(tuple(out.shape))
            lines[name] = f"{name:22} {came:>13} -> {went:13} {numbers:7,}"

        return keep

    hooks = [model.get_submodule(n).register_forward_hook(hook(n)) for n in wanted]
    with torch.no_grad():
        model(batch, eps)
    for one in hooks:
        one.remove()
    return [lines[name] for name in wanted]


def difference(
    model: ACT, answer: Tensor, batch: dict[str, Tensor], eps: Tensor
) -> float:
    """Largest difference between an answer and the package's."""
    with torch.no_grad():
        return float((model(batch, eps).actions - answer).abs().max())


def reached(layers: int, output: str) -> list[bool]:
    """For each decoder layer, whether the loss has a gradient in it."""
    model = fresh(decoder_layers=layers, decoder_output=output, use_cvae=False)
    rng = torch.Generator().manual_seed(0)
    batch = {"qpos": torch.randn(2, 6, generator=rng)}
    batch["env_state"] = torch.randn(2, 7, generator=rng)
    target, is_pad = torch.randn(2, 50, 6, generator=rng), torch.zeros(2, 50) > 0
    act_loss(model(batch), target, is_pad, model.config)[0].backward()
    return [any(p.grad is not None for p in x.parameters()) for x in model.decoder]


def with_image(batch: dict[str, Tensor]) -> tuple[ACT, dict[str, Tensor]]:
    """An untrained ACT with one camera and the original's grid of tokens, and a batch.

    The batch holds the image, and its feature map by this network's backbone.
    """
    from act_minimal.episodes import load_episode

    from ..toolkit.paths import ROOT

    episode = load_episode(ROOT / "data/samples/vision/episode_0.hdf5")
    seen = np.stack([episode.images["top"][t] for t in range(0, 4 * 40, 40)])
    images = torch.tensor(seen)[:, None].permute(0, 1, 4, 2, 3)  # (4, 1, 3, H, W)
    model = fresh(
        cameras=("top",),
        image_size=tuple(images.shape[-2:]),
        image_tokens="grid",
        camera_embedding=False,
        env_state_dim=0,
    )
    assert model.cameras is not None
    kept: list[Tensor] = []
    hook = model.cameras.tokens.register_forward_pre_hook(
        lambda module, given: kept.append(given[0])
    )
    with torch.no_grad():
        model.cameras(images)
    hook.remove()
    seen = {k: x for k, x in batch.items() if k != "env_state"}
    return model, seen | {"images": images, "features": kept[0]}


def row_spread(model: ACT, batch: dict[str, Tensor]) -> dict[str, float]:
    """The largest difference between rows in what each decoder attention returns."""
    found: dict[str, float] = {}
    hooks = []
    for name in ("self_attn", "cross_attn"):

        def keep(module: nn.Module, given: Any, out: Tensor, name: str = name) -> None:
            found[name] = float((out - out[:, :1]).abs().max())  # (B, k, D)

        layer = model.get_submodule(f"decoder.0.{name}")
        hooks.append(layer.register_forward_hook(keep))
    with torch.no_grad():
        model({name: x for name, x in batch.items() if name != "action"})
    for hook in hooks:
        hook.remove()
    return found


def paper_parameters(decoder_layers: int) -> int:
    """Numbers in the published network with so many decoder layers, three cameras."""
    with torch.device("meta"):
        config = ACTConfig.of_size(
            "paper",
            state_dim=14,
            action_dim=14,
            cameras=("a", "b", "c"),
            decoder_layers=decoder_layers,
        )
        return sum(p.numel() for p in ACT(config).parameters())


# --- pictures -------------------------------------------------------------------------


def sinusoid_figure(length: int = 52, width: int = 64) -> Figure:
    """The position table, and how alike three positions are to all others."""
    table = sinusoid(length, width).numpy()
    fig, (left, right) = figure(2)
    left.imshow(table, aspect="auto", cmap="cividis")
    left.grid(False)
    label(left, "channel", "position")
    for i, row in enumerate((0, length // 2, length - 1)):
        alike = table @ table[row] / (width / 2)
        right.plot(alike, **style(i), label=f"position {row}")
    right.set_ylim(None, 1.5)  # room for the legend
    right.legend(loc="upper center")
    label(right, "position", "likeness (dot product / 32)")
    return fig


def likeness(queries: Tensor) -> np.ndarray:
    """(k, k) cosine of the angle between each two queries."""
    unit = queries.detach() / queries.detach().norm(dim=-1, keepdim=True)
    return (unit @ unit.T).numpy()


def by_distance(alike: np.ndarray) -> np.ndarray:
    """(k - 1,) mean likeness of queries 1, 2, ... actions apart."""
    return np.array([np.diagonal(alike, i).mean() for i in range(1, len(alike))])


def query_figure(before: Tensor, after: Tensor) -> Figure:
    """How alike the trained queries are, and how that depends on their distance."""
    fig, (left, right) = figure(2, height=3.4)
    drawn = left.imshow(likeness(after), vmin=-0.5, vmax=0.5, cmap="PuOr")
    left.grid(False)
    label(left, "action in the chunk", "action in the chunk", "trained")
    fig.colorbar(drawn, ax=left, label="cosine")
    for i, (queries, name) in enumerate(((before, "untrained"), (after, "trained"))):
        line = by_distance(likeness(queries))
        right.plot(1 + np.arange(len(line)), line, **style(i), label=name)
    right.axhline(0, color="black", lw=0.8)
    right.legend()
    label(right, "actions apart", "mean cosine")
    return fig
