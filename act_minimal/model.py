"""ACT, Action Chunking with Transformers: the network and its loss.

Zhao et al. (2023), "Learning Fine-Grained Bimanual Manipulation with Low-Cost
Hardware", section IV.

    qpos, actions ──> CVAE encoder ──> z            (training only; z = 0 at test)
    images ──> backbone ──┐
    z, qpos, env_state ───┴─> encoder ──> memory
    k learned queries ──────> decoder(memory) ──> k actions

Tensors only: no files, no simulator, no robot. Inputs are normalised by the caller,
images excepted (`backbones.py`). Letters in shape comments: B batch, k chunk, A action,
S state, E env_state, N cameras, H W image, T tokens, D width, Z latent.
"""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .backbones import Cameras
from .heads import HEADS, Ask, Shown
from .settings import ACTConfig, MLPConfig


class ACTOutput(NamedTuple):
    """What the network returns; mu and logvar are None where z was 0."""

    actions: Tensor  # (B, k, A) normalised
    mu: Tensor | None  # (B, Z)
    logvar: Tensor | None  # (B, Z)


def sinusoid_1d(length: int, width: int) -> Tensor:
    """(length, width) sines and cosines of Vaswani et al. (2017), interleaved."""
    position = torch.arange(length, dtype=torch.float64)[:, None]
    rate = 10000.0 ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)
    angle = position * rate  # (length, width / 2)
    return torch.stack([angle.sin(), angle.cos()], -1).flatten(1).float()


class Dropout(nn.Dropout):
    """Torch's; on a CPU one draw of 64 bits decides on four numbers: six times as fast.

    Torch's draw for the MLP's 3200 channels took as long as the matrix product before.
    """

    def forward(self, input: Tensor) -> Tensor:
        active = self.training and self.p > 0
        if not active or not input.is_cpu or torch.compiler.is_compiling():
            return super().forward(input)
        n, dropped = input.numel(), round(self.p * 2**16)
        draws = torch.empty(-(-n // 4), dtype=torch.int64).random_(-(2**63), None)
        kept = draws.view(torch.int16)[:n].view(input.shape) >= dropped - 2**15
        return input * (kept / (1 - dropped / 2**16)).to(input.dtype)


class Attention(nn.Module):
    """Multi-head attention; parameters are laid out as nn.MultiheadAttention's."""

    def __init__(self, width: int, heads: int, dropout: float):
        super().__init__()
        self.heads = heads
        self.dropout = Dropout(dropout)
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)
        self.maps: Tensor | None = None  # (B, heads, T, T'), kept when `keep_maps`
        self.keep_maps = False

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None
    ) -> Tensor:
        """Attend: query (B, T, D) over key and value (B, T', D).

        The mask (B, T') is True where a query may look.
        """
        weights, biases = self.in_proj_weight.chunk(3), self.in_proj_bias.chunk(3)
        q, k, v = map(F.linear, (query, key, value), weights, biases)
        # (B, T, D) -> (B, heads, T, D / heads)
        q, k, v = (x.unflatten(-1, (self.heads, -1)).transpose(1, 2) for x in (q, k, v))
        if q.shape[0] != k.shape[0]:  # queries shared by the batch
            q = q.expand(k.shape[0], -1, -1, -1)
        allowed = None if mask is None else mask[:, None, None]  # (B, 1, 1, T')
        share = self.dropout.p if self.training else 0.0
        if self.keep_maps:
            score = q / math.sqrt(q.shape[-1]) @ k.mT  # (B, heads, T, T')
            if allowed is not None:
                score = score.masked_fill(~allowed, -math.inf)
            maps = score.softmax(-1)
            if self.keep_maps:
                self.maps = maps.detach()
            out = self.dropout(maps) @ v
        else:
            out = F.scaled_dot_product_attention(q, k, v, allowed, share)
        return self.out_proj(out.transpose(1, 2).flatten(2))  # (B, T, D)


class Layer(nn.Module):
    """What encoder and decoder layers share: the MLP, norms and dropout."""

    def __init__(self, config: ACTConfig, norms: int):
        super().__init__()
        width = config.width
        self.pre_norm = config.pre_norm
        self.activation = F.relu if config.activation == "relu" else F.gelu
        self.self_attn = Attention(width, config.heads, config.dropout)
        self.linear1 = nn.Linear(width, config.feedforward)
        self.linear2 = nn.Linear(config.feedforward, width)
        self.norm1 = nn.LayerNorm(width)
        self.norm2 = nn.LayerNorm(width)
        if norms == 3:
            self.norm3 = nn.LayerNorm(width)
        self.dropout = Dropout(config.dropout)

    def mlp(self, x: Tensor) -> Tensor:
        return self.linear2(self.dropout(self.activation(self.linear1(x))))


class EncoderLayer(Layer):
    """Self-attention and MLP; positions enter queries and keys, not values."""

    def __init__(self, config: ACTConfig):
        super().__init__(config, norms=2)

    def forward(
        self,
        x: Tensor,
        position: Tensor,
        mask: Tensor | None = None,
        keep: int | None = None,
    ) -> Tensor:
        """From (B, T, D) to the same, or to the first `keep` tokens (B, keep, D)."""
        y = self.norm1(x) if self.pre_norm else x
        positioned = y + position
        y = self.self_attn(positioned[:, :keep], positioned, y, mask)
        x = x[:, :keep] + self.dropout(y)
        if self.pre_norm:
            return x + self.dropout(self.mlp(self.norm2(x)))
        x = self.norm1(x)
        return self.norm2(x + self.dropout(self.mlp(x)))


class DecoderLayer(Layer):
    """Self-attention of the queries, cross-attention to the memory, MLP."""

    def __init__(self, config: ACTConfig):
        super().__init__(config, norms=3)
        self.cross_attn = Attention(config.width, config.heads, config.dropout)

    def forward(
        self,
        x: Tensor,
        query: Tensor,
        memory: Tensor,
        key: Tensor,
        mask: Tensor | None = None,
    ) -> Tensor:
        """From x (B or 1, k, D) to (B, k, D).

        The positions are query (k, D); memory and key are (B, T, D), mask (B, T) True
        where there is some.
        """
        y = self.norm1(x) if self.pre_norm else x
        x = x + self.dropout(self.self_attn(y + query, y + query, y))
        x = x if self.pre_norm else self.norm1(x)
        y = self.norm2(x) if self.pre_norm else x
        x = x + self.dropout(self.cross_attn(y + query, key, memory, mask))
        if self.pre_norm:
            return x + self.dropout(self.mlp(self.norm3(x)))
        x = self.norm2(x)
        return self.norm3(x + self.dropout(self.mlp(x)))


class Encoder(nn.Module):
    """A stack of encoder layers, with the final norm that pre-norm needs."""

    def __init__(self, config: ACTConfig, layers: int):
        super().__init__()
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(layers))
        self.norm = nn.LayerNorm(config.width) if config.pre_norm else nn.Identity()

    def forward(
        self,
        x: Tensor,
        position: Tensor,
        mask: Tensor | None = None,
        keep: int | None = None,
    ) -> Tensor:
        """From (B, T, D) to (B, keep or T, D): the last layer computes what is kept."""
        for layer in self.layers[:-1]:
            x = layer(x, position, mask)
        return self.norm(self.layers[-1](x, position, mask, keep))


class CVAEEncoder(nn.Module):
    """The posterior q(z | qpos, actions): a transformer over [CLS, qpos, actions]."""

    position: Tensor  # (2 + k/p, D)

    def __init__(self, config: ACTConfig):
        super().__init__()
        width, self.pack = config.width, config.cvae_actions_per_token
        self.cls = nn.Parameter(torch.randn(width))
        self.qpos_proj = nn.Linear(config.state_dim, width)
        self.action_proj = nn.Linear(config.action_dim * self.pack, width)
        self.encoder = Encoder(config, config.cvae_layers)
        self.latent_proj = nn.Linear(width, 2 * config.latent_dim)
        tokens = 2 + config.chunk_size // self.pack
        self.register_buffer("position", sinusoid_1d(tokens, width), persistent=False)

    def forward(
        self, qpos: Tensor, action: Tensor, is_pad: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Mean and log variance (B, Z); padded actions have no influence."""
        # Packed tokens may be padded in part: zeros stand for what is missing.
        action = action.masked_fill(is_pad[..., None], 0.0)
        actions = action.unflatten(1, (-1, self.pack)).flatten(2)  # (B, k/p, p A)
        mask = ~is_pad.unflatten(1, (-1, self.pack)).all(-1)  # (B, k/p)
        x = torch.cat(
            [
                self.cls.expand(len(qpos), 1, -1),
                self.qpos_proj(qpos)[:, None],
                self.action_proj(actions),
            ],
            1,
        )  # (B, 2 + k/p, D)
        mask = F.pad(mask, (2, 0), value=True)  # CLS and qpos are always seen
        x = self.encoder(x, self.position, mask, keep=1)  # (B, 1, D): CLS
        mu, logvar = self.latent_proj(x[:, 0]).chunk(2, -1)
        return mu, logvar


class ACT(nn.Module):
    """The network. `pretrained_weights=False` when a checkpoint will replace them."""

    def __init__(self, config: ACTConfig, pretrained_weights: bool = True):
        super().__init__()
        self.config = config
        width = config.width
        self.head = HEADS[config.head]()
        self.cvae = CVAEEncoder(config) if config.use_cvae else None
        self.latent_proj = nn.Linear(config.latent_dim, width)
        self.qpos_proj = nn.Linear(config.state_dim, width)
        self.env_proj = None
        if config.env_state_dim:
            self.env_proj = nn.Linear(config.env_state_dim, width)
        # Where the latent, qpos and env_state tokens come from.
        self.position = nn.Parameter(torch.randn(2 + bool(self.env_proj), width))
        self.cameras = Cameras(config, pretrained_weights) if config.cameras else None
        self.encoder = Encoder(config, config.encoder_layers)
        self.queries = nn.Parameter(torch.randn(config.chunk_size, width))
        self.decoder = nn.ModuleList(
            DecoderLayer(config) for _ in range(config.decoder_layers)
        )
        self.decoder_norm = nn.LayerNorm(width)
        self.action_head = nn.Linear(width, self.head.outputs(config.action_dim))
        self.shown = Shown(config.action_dim, width) if self.head.noisy else None
        self.prefix_proj = None
        if config.prefix_max:
            self.prefix_proj = nn.Linear(config.action_dim, width)
            self.prefix_position = nn.Parameter(torch.randn(config.prefix_max, width))
        self.ahead = None
        if config.future_max:
            self.ahead = nn.Embedding(config.future_max + 1, width)
        for module in (self.encoder, self.decoder):  # as DETR
            for parameter in module.parameters():
                if parameter.dim() > 1:
                    nn.init.xavier_uniform_(parameter)

    def forward(self, batch: dict[str, Any], eps: Tensor | None = None) -> ACTOutput:
        """Predict a chunk.

        Args:
            batch: normalised "qpos" (B, S); "env_state" (B, E) and "images"
                (B, N, 3, H, W), uint8 or float in [0, 1], where the config has them (a
                list of (B, 3, H, W) where cameras differ in size); where it has them,
                committed actions "prefix" (B, P, A), of which "prefix_size" (B,) count,
                or by how many ticks qpos is "ahead" (B,);
                for training also "action" (B, k, A) and "is_pad" (B, k) bool.
            eps: (B, Z) standard normal noise that draws z from the posterior; needed
                when the batch has "action" and the model a CVAE. Zeros give the
                posterior's mean. Without "action", z = 0 (the prior's mean).

        Returns:
            normalised actions (B, k, A), and the posterior where z came from it.

        Raises:
            ValueError: eps or noise is missing, or images are not of the config's
                shape.
        """
        ask, mu, logvar = self.asked(batch, eps)
        noise = batch["qpos"]  # which other heads do not read
        if self.head.samples:
            noise = self._given(batch, "noise")
        actions = self.head.answer(ask, noise, self.config.head_steps)
        return ACTOutput(actions, mu, logvar)

    def asked(
        self, batch: dict[str, Any], eps: Tensor | None = None
    ) -> tuple[Ask, Tensor | None, Tensor | None]:
        """The decoder, ready to be asked about a batch; mean and log variance of z."""
        qpos = batch["qpos"]
        mu = logvar = None
        if self.cvae is not None and "action" in batch:
            if eps is None:
                raise ValueError("eps is None, expected (B, Z) noise with 'action'")
            mu, logvar = self.cvae(qpos, batch["action"], batch["is_pad"])
            z = mu + (0.5 * logvar).exp() * eps
        else:
            z = qpos.new_zeros(qpos.shape[0], self.config.latent_dim)
        memory, key = self.encode(batch, z)
        mask = self.memory_mask(batch, memory.shape[1])
        return functools.partial(self.decode, memory, key, mask), mu, logvar

    def memory_mask(self, batch: dict[str, Any], tokens: int) -> Tensor | None:
        """(B, T) False at the tokens of committed actions that there are not."""
        if "prefix" not in batch:
            return None
        places = torch.arange(self.config.prefix_max, device=batch["prefix"].device)
        mask = places < batch["prefix_size"][:, None]  # (B, P), the last ones
        return F.pad(mask, (tokens - len(places), 0), value=True)

    def encode(self, batch: dict[str, Any], z: Tensor) -> tuple[Tensor, Tensor]:
        """Memory (B, T, D) and its keys, memory + positions (B, T, D)."""
        joints = self.qpos_proj(batch["qpos"])  # (B, D)
        if self.ahead is not None:
            joints = joints + self.ahead(batch["ahead"])
        tokens = [self.latent_proj(z), joints]
        if self.env_proj is not None:
            tokens.append(self.env_proj(batch["env_state"]))
        x, position = torch.stack(tokens, 1), self.position
        if self.cameras is not None:
            visual_tokens, visual_positions = self.cameras(batch["images"])
            x = torch.cat([x, visual_tokens], 1)  # (B, T, D)
            position = torch.cat([position, visual_positions])  # (T, D)
        if self.prefix_proj is not None and "prefix" in batch:
            x = torch.cat([x, self.prefix_proj(batch["prefix"])], 1)  # (B, T, D)
            position = torch.cat([position, self.prefix_position])  # (T, D)
        memory = self.encoder(x, position, self.memory_mask(batch, x.shape[1]))
        return memory, memory + position

    def decode(
        self,
        memory: Tensor,
        key: Tensor,
        mask: Tensor | None = None,
        x: Tensor | None = None,
        t: Tensor | None = None,
    ) -> Tensor:
        """What the head makes a chunk of, (B, k, O), from the memory; see heads.py."""
        if x is not None:
            assert self.shown is not None
            x = self.shown(x, t)  # (B, k, D)
        else:
            # The queries start as zeros and are the same for every sample until they
            # meet the memory: without dropout one row does for the whole batch.
            dropout = self.training and self.config.dropout > 0
            x = memory.new_zeros(memory.shape[0] if dropout else 1, *self.queries.shape)
        used = 1 if self.config.decoder_output == "first" else len(self.decoder)
        for layer in self.decoder[:used]:
            x = layer(x, self.queries, memory, key, mask)  # (B, k, D)
        return self.action_head(self.decoder_norm(x))

    def loss(
        self,
        batch: dict[str, Any],
        eps: Tensor | None = None,
        valid_count: Tensor | float | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """See `act_loss`; the batch has "action" and "is_pad", `eps` is as above.

        Heads but l1 have an error of their own, which is "error" among the parts. Those
        that show the decoder actions need "noise" (B, k, A) and "time" (B,).
        """
        without, action, config = uncounted(batch), batch["action"], self.config
        if config.head == "l1":
            output = self(batch, eps)
            return act_loss(output, action, without, config, valid_count)
        ask, *_ = self.asked(batch)
        noise = t = action  # which other heads do not read
        if self.head.noisy:
            noise, t = self._given(batch, "noise"), self._given(batch, "time")
        valid = (~without)[..., None]  # (B, k, 1)
        values = self.head.loss(ask, action, valid, noise, t)  # (B, k, A)
        found = masked_mean(values, without, config, valid_count)
        return found, {"error": found.detach()}

    def _given(self, batch: dict[str, Any], name: str) -> Tensor:
        if name not in batch:
            raise ValueError(
                f"the batch has no {name!r}, which a {self.config.head} reads"
            )
        return batch[name]

    @torch.no_grad()
    def attention_maps(self, batch: dict[str, Any]) -> list[Tensor]:
        """How much each action looks at each token: (B, heads, k, T) a decoder layer.

        Tokens: latent, qpos, env_state if used, then each camera's. z = 0.
        """
        layers = [x.cross_attn for x in self.decoder if isinstance(x, DecoderLayer)]
        for attention in layers:
            attention.keep_maps = True
        self({name: x for name, x in batch.items() if name != "action"})
        for attention in layers:
            attention.keep_maps = False
        return [attention.maps for attention in layers if attention.maps is not None]


def uncounted(batch: dict[str, Any]) -> Tensor:
    """(B, k) True at actions that the loss leaves out: padding, and what was told."""
    is_pad = batch["is_pad"]
    if "prefix_size" not in batch:
        return is_pad
    places = torch.arange(is_pad.shape[1], device=is_pad.device)
    return is_pad | (places < batch["prefix_size"][:, None])


def act_loss(
    output: ACTOutput,
    action: Tensor,
    is_pad: Tensor,
    config: ACTConfig,
    valid_count: Tensor | float | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Reconstruction plus kl_weight times KL, of normalised actions (B, k, A).

    Args:
        is_pad: (B, k) True beyond the episode's end.
        valid_count: what to divide by instead of this batch's number of valid steps
            (several processes: the global number / world size); "exclude" only.

    Returns:
        the loss, and its parts {"l1", "kl"} (detached; "l2" too where it is the loss).
    """
    error = output.actions - action
    parts = {"l1": masked_mean(error.abs(), is_pad, config, valid_count)}
    if config.loss == "l2":
        parts["l2"] = masked_mean(error.square(), is_pad, config, valid_count)
    kl = error.new_zeros(())
    if output.mu is not None and output.logvar is not None:
        kl = divergence(output.mu, output.logvar, config)
    loss = parts[config.loss] + config.kl_weight * kl
    parts["kl"] = kl
    return loss, {name: part.detach() for name, part in parts.items()}


def masked_mean(
    values: Tensor,
    is_pad: Tensor,
    config: ACTConfig,
    valid_count: Tensor | float | None = None,
) -> Tensor:
    """Mean of (B, k, A) over the steps that are not padding; see `act_loss`."""
    valid = (~is_pad)[..., None]  # (B, k, 1)
    total = (values * valid).sum()
    if config.padding_in_loss == "dilute":  # the original: padding counts as 0
        return total / values.numel()
    count = valid.sum().clamp(min=1) if valid_count is None else valid_count
    return total / (count * values.shape[-1])


def divergence(mu: Tensor, logvar: Tensor, config: ACTConfig) -> Tensor:
    """KL of the posterior from a standard normal prior, the batch's mean."""
    # Near the prior it is a small difference of numbers near 1: bf16, in which the
    # network may have run, would round it away.
    wide = torch.promote_types(mu.dtype, torch.float32)
    mu, logvar = mu.to(wide), logvar.to(wide)
    each = -0.5 * (1 + logvar - mu.square() - logvar.exp())  # (B, Z)
    return (each.sum(-1) if config.kl_reduction == "sum" else each.mean(-1)).mean()


class MLP(nn.Module):
    """Normalised [qpos, env_state, image features] to k normalised actions."""

    def __init__(self, config: MLPConfig) -> None:
        super().__init__()
        self.config = config
        inputs = config.state_dim + config.env_state_dim
        self.cameras = None
        if config.cameras:
            self.cameras = Cameras(config.act, pretrained_weights=False)
            inputs += len(config.cameras) * config.image_features
        layers: list[nn.Module] = []
        for _ in range(config.depth):
            layers += [nn.Linear(inputs, config.hidden), nn.GELU()]
            if config.dropout:
                layers.append(nn.Dropout(config.dropout))
            inputs = config.hidden
        outputs = config.chunk_size * config.action_dim
        self.layers = nn.Sequential(*layers, nn.Linear(inputs, outputs))

    def forward(self, batch: dict[str, Any], eps: Tensor | None = None) -> ACTOutput:
        """As `ACT.forward`; there is no latent, so `eps` is ignored."""
        parts = [batch["qpos"]]
        if self.config.env_state_dim:
            parts.append(batch["env_state"])
        if self.cameras is not None:
            features, position = self.cameras(batch["images"])  # (B, N, F), (N, F)
            parts.append((features + position).flatten(1))  # (B, N F)
        flat = self.layers(torch.cat(parts, dim=1))  # (B, k A)
        shape = (-1, self.config.chunk_size, self.config.action_dim)
        return ACTOutput(flat.view(shape), None, None)  # (B, k, A)

    def loss(
        self,
        batch: dict[str, Any],
        eps: Tensor | None = None,
        valid_count: Tensor | float | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """See `ACT.loss`."""
        output = self(batch, eps)
        action, is_pad = batch["action"], batch["is_pad"]
        return act_loss(output, action, is_pad, self.config.act, valid_count)
