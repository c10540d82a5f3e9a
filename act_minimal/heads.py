"""What turns ACT's memory into a chunk of actions, in one pass or in several.

The decoder answers `ask(x, t)`, (B, k, O) numbers for the k queries. Without x it is
ACT's. Heads that ask again show it actions x (B, k, A) and how far these are on the way
t (B,) from noise (0) to a demonstration (1).

Each head has the number of `outputs` O, a `loss` of every action, (B, k, A), and an
`answer`, (B, k, A). Where several chunks are right, the answer depends on the `noise`
(B, k, A), standard normal. Actions are normalised. M components, n steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Ask = Callable[..., Tensor]  # ask() or ask(x, t)


class Head:
    """L1, which is ACT: one pass, whose error is the absolute one.

    Where ways part that is their median.
    """

    noisy = False  # whether training shows the decoder actions with noise
    samples = False  # whether the answer depends on the noise

    def outputs(self, actions: int) -> int:
        return actions

    def loss(
        self, ask: Ask, action: Tensor, valid: Tensor, noise: Tensor, t: Tensor
    ) -> Tensor:
        return (ask() - action).abs()

    def answer(self, ask: Ask, noise: Tensor, steps: int) -> Tensor:
        return ask()


class Mip(Head):
    """Two supervised passes: the second reads the first's answer (2512.01809).

    In training it reads the demonstration with noise of 1 - T. Errors are absolute
    here, as ACT's; the authors square them over T and over 1 - T.
    """

    noisy = True
    T = 0.9

    def loss(
        self, ask: Ask, action: Tensor, valid: Tensor, noise: Tensor, t: Tensor
    ) -> Tensor:
        near = action + (1 - self.T) * noise
        first, second = ask(), ask(near, torch.full_like(t, self.T))
        return (first - action).abs() / self.T + (second - action).abs() / (1 - self.T)

    def answer(self, ask: Ask, noise: Tensor, steps: int) -> Tensor:
        first = ask()  # (B, k, A)
        return ask(first, first.new_full((first.shape[0],), self.T))


class Flow(Head):
    """Flow matching: a velocity that leads from noise to a chunk, in n Euler steps."""

    noisy = samples = True

    def loss(
        self, ask: Ask, action: Tensor, valid: Tensor, noise: Tensor, t: Tensor
    ) -> Tensor:
        way = t[:, None, None]
        velocity = ask((1 - way) * noise + way * action, t)
        return (velocity - (action - noise)).square()

    def answer(self, ask: Ask, noise: Tensor, steps: int) -> Tensor:
        x = noise
        for i in range(steps):
            x = x + ask(x, x.new_full((x.shape[0],), i / steps)) / steps
        return x


class L1Flow(Head):
    """A flow that predicts the chunk itself, with the absolute error (2511.17898).

    Two evaluations: half of the way to the first, then the second.
    """

    noisy = samples = True

    def loss(
        self, ask: Ask, action: Tensor, valid: Tensor, noise: Tensor, t: Tensor
    ) -> Tensor:
        way = t[:, None, None]
        return (ask((1 - way) * noise + way * action, t) - action).abs()

    def answer(self, ask: Ask, noise: Tensor, steps: int) -> Tensor:
        t = noise.new_zeros(noise.shape[0])
        middle = noise + 0.5 * (ask(noise, t) - noise)
        return ask(middle, t + 0.5)


class Diffusion(Head):
    """Denoising diffusion (2303.04137), at test by DDIM with n steps (2010.02502).

    The decoder says v = a noise - b action, where a and b are the shares of action and
    noise in x (2202.00512): from nearly pure noise the action itself can be told no
    better than by a guess, and a noise that is off by little would lead far astray.
    """

    noisy = samples = True
    LEVELS = 100

    def __init__(self) -> None:
        # "squaredcos_cap_v2": how much of the demonstration is left at each level.
        at = torch.arange(self.LEVELS + 1) / self.LEVELS
        kept = torch.cos((at + 0.008) / 1.008 * math.pi / 2).square()
        beta = (1 - kept[1:] / kept[:-1]).clamp(max=0.999)
        self.alpha = torch.cumprod(1 - beta, 0)  # (LEVELS,)

    def shares(self, level: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """Of action and noise at levels (B,), (B, 1, 1) each; at -1 all is action."""
        alpha = torch.cat([self.alpha, torch.ones(1)]).to(like)
        alpha = alpha[level.to(like.device)][:, None, None]
        return alpha.sqrt(), (1 - alpha).sqrt()

    def loss(
        self, ask: Ask, action: Tensor, valid: Tensor, noise: Tensor, t: Tensor
    ) -> Tensor:
        level = ((1 - t) * self.LEVELS).long().clamp(max=self.LEVELS - 1)  # (B,)
        a, b = self.shares(level, action)
        said = ask(a * action + b * noise, 1 - level / self.LEVELS)
        return (said - (a * noise - b * action)).square()

    def answer(self, ask: Ask, noise: Tensor, steps: int) -> Tensor:
        x, rows = noise, noise.shape[0]
        levels = torch.linspace(self.LEVELS - 1, 0, steps).round().long()
        after = torch.cat([levels[1:], torch.tensor([-1])])
        for level, next_level in zip(levels, after, strict=True):
            a, b = self.shares(level.expand(rows), x)
            said = ask(x, (1 - level / self.LEVELS).to(x).expand(rows))
            action, noise = a * x - b * said, b * x + a * said
            a, b = self.shares(next_level.expand(rows), x)
            x = a * action + b * noise
        return x


class Mdn(Head):
    """A mixture of M chunks, each a Gaussian; the answer is the mean of one of them."""

    samples = True
    M = 5

    def outputs(self, actions: int) -> int:
        return self.M * (2 * actions + 1)

    def parts(self, ask: Ask) -> tuple[Tensor, Tensor, Tensor]:
        """Means and log deviations (B, M, k, A), and log weights (B, M)."""
        out = ask().unflatten(-1, (self.M, -1)).transpose(1, 2)  # (B, M, k, 2 A + 1)
        mean, scale = out[..., :-1].chunk(2, -1)
        weight = out[..., -1].mean(-1).log_softmax(-1)
        return mean, scale.clamp(-4, 2), weight

    def loss(
        self, ask: Ask, action: Tensor, valid: Tensor, noise: Tensor, t: Tensor
    ) -> Tensor:
        mean, scale, weight = self.parts(ask)
        apart = (action[:, None] - mean) / scale.exp()
        each = -0.5 * apart.square() - scale - 0.5 * math.log(2 * math.pi)
        whole = (each * valid[:, None]).sum((2, 3))  # (B, M) of the chunk as a whole
        surprise = -(weight + whole).logsumexp(-1)  # (B,)
        count = valid.sum((1, 2)).clamp(min=1) * action.shape[-1]
        return (surprise / count)[:, None, None].expand_as(action)

    def answer(self, ask: Ask, noise: Tensor, steps: int) -> Tensor:
        mean, _, weight = self.parts(ask)
        chance = uniform(noise.mean((1, 2)) * math.sqrt(noise[0].numel()))  # (B,)
        passed = weight.exp().cumsum(-1) < chance[:, None]
        which = passed.sum(-1).clamp(max=self.M - 1)  # (B,)
        return mean[torch.arange(mean.shape[0]), which]  # (B, k, A)


class Bins(Head):
    """The likelihood of each of N bins, as RT-1 has them (2212.06817).

    Each number is drawn by itself, so a chunk's actions need not agree.
    """

    samples = True
    N, REACH = 64, 4.0  # bins; deviations from the mean that they cover

    def outputs(self, actions: int) -> int:
        return self.N * actions

    def loss(
        self, ask: Ask, action: Tensor, valid: Tensor, noise: Tensor, t: Tensor
    ) -> Tensor:
        scores = ask().unflatten(-1, (-1, self.N))  # (B, k, A, N)
        place = (action / self.REACH + 1) / 2 * self.N
        target = place.long().clamp(0, self.N - 1)
        return F.cross_entropy(scores.movedim(-1, 1), target, reduction="none")

    def answer(self, ask: Ask, noise: Tensor, steps: int) -> Tensor:
        scores = ask().unflatten(-1, (-1, self.N))
        passed = scores.softmax(-1).cumsum(-1) < uniform(noise)[..., None]
        which = passed.sum(-1).clamp(max=self.N - 1)  # (B, k, A)
        broken = 0 * scores.sum(-1)  # NaN stays NaN: no bin may hide it
        return ((which + 0.5) / self.N * 2 - 1) * self.REACH + broken


HEADS: dict[str, type[Head]] = {
    "l1": Head,
    "mip": Mip,
    "flow": Flow,
    "l1_flow": L1Flow,
    "diffusion": Diffusion,
    "mdn": Mdn,
    "bins": Bins,
}


def uniform(noise: Tensor) -> Tensor:
    """Standard normal numbers as uniform ones between 0 and 1."""
    return 0.5 * (1 + torch.erf(noise / math.sqrt(2)))


class Shown(nn.Module):
    """Shows the decoder actions x (B, k, A) and how far they are, t (B,): (B, k, D)."""

    def __init__(self, actions: int, width: int):
        super().__init__()
        self.action = nn.Linear(actions, width)
        self.time = nn.Sequential(
            nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width)
        )
        rates = torch.logspace(math.log10(4.0), math.log10(4e-3), width // 2)
        self.register_buffer("rates", 2 * math.pi / rates, persistent=False)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        turns = t[:, None] * self.get_buffer("rates")  # (B, D / 2)
        waves = torch.cat([turns.sin(), turns.cos()], -1)  # (B, D)
        return self.action(x) + self.time(waves)[:, None]
