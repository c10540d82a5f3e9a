"""Lesson 03: two ways around a post, the latent z, and what it does to ACT's chunks."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn

from act_minimal.dataset import Demonstrations, Windows
from act_minimal.model import ACT, ACTOutput
from act_minimal.policy import Policy

from ..toolkit.plots import COLOURS, figure, label, still_layout, style
from ..toolkit.results import load_result
from ..toolkit.widgets import Explorer, slider, steps

TICKS = 20  # of a path around the post
POST = 0.4  # half width of the post, which stands in the middle of the way
JOINT, FPS = 1, 30  # shoulder lift, which moves most; ticks a second


# --- two ways around a post -----------------------------------------------------------


def two_ways(n: int, left: float = 0.5, seed: int = 0) -> Tensor:
    """Paths (n, TICKS): how far to the left of the post, in metres, tick by tick.

    A share of `left` passes on the left: exactly, not at random.
    """
    random = torch.Generator().manual_seed(seed)
    side = torch.where(torch.arange(n) < round(left * n), 1.0, -1.0)
    swing = 0.8 + 0.4 * torch.rand(n, generator=random)  # 0.8 to 1.2 m
    bow = torch.sin(torch.pi * torch.linspace(0, 1, TICKS))
    return (side * swing)[:, None] * bow


def passes(paths: Tensor) -> Tensor:
    """(n,) whether each path (n, TICKS) misses the post, halfway."""
    middle = paths[:, TICKS // 2 - 1 : TICKS // 2 + 1]
    return (middle.abs() > POST).all(1)


def fit_one_path(paths: Tensor, loss: str = "l1") -> Tensor:
    """The path (TICKS,) that a policy without z learns: one for all demonstrations.

    Stochastic gradient descent as in training, batches of 64, Adam.
    """
    random = torch.Generator().manual_seed(0)
    path = torch.zeros(TICKS, requires_grad=True)
    optimizer = torch.optim.Adam([path], lr=0.02)
    for _ in range(600):
        batch = paths[torch.randint(len(paths), (64,), generator=random)]
        error = batch - path
        one = error.abs() if loss == "l1" else error.square()
        optimizer.zero_grad()
        one.mean().backward()
        optimizer.step()
    return path.detach()


def sample(mu: Tensor, logvar: Tensor, eps: Tensor) -> Tensor:
    """Draw z of the posterior, from standard normal noise: the reparametrisation."""
    return mu + (0.5 * logvar).exp() * eps


def kl(mu: Tensor, logvar: Tensor) -> Tensor:
    """KL(N(mu, exp(logvar)) || N(0, 1)) in nats: sum over Z, mean over the batch."""
    each = 0.5 * (mu.square() + logvar.exp() - 1 - logvar)  # (B, Z)
    return each.sum(-1).mean()


def networks() -> tuple[nn.Module, nn.Module]:
    """An encoder from a path to (mu, logvar), a decoder from z (n, 1) to a path."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        encoder = nn.Sequential(nn.Linear(TICKS, 32), nn.Tanh(), nn.Linear(32, 2))
        decoder = nn.Sequential(nn.Linear(1, 32), nn.Tanh(), nn.Linear(32, TICKS))
    return encoder, decoder


@dataclass(frozen=True)
class Toy:
    """A small CVAE that was trained on the two ways.

    Attributes:
        decoder: from z (n, 1) to paths (n, TICKS).
        mu: (n,) posterior means of the demonstrations.
        sigma: (n,) posterior deviations.
        kl: in nats, mean over the demonstrations.
    """

    decoder: nn.Module
    mu: np.ndarray
    sigma: np.ndarray
    kl: float

    @torch.no_grad()
    def path(self, z: float) -> Tensor:
        """The path (TICKS,) of one z."""
        return self.decoder(torch.tensor([[z]]))[0]

    @torch.no_grad()
    def passing(self) -> float:
        """Share of 1000 paths past the post, z drawn from the prior."""
        z = torch.randn(1000, 1, generator=torch.Generator().manual_seed(0))
        return float(passes(self.decoder(z)).float().mean())


def fit_toy(paths: Tensor, beta: float, steps: int = 1000) -> Toy:
    """Train encoder and decoder: L1 summed over the path, plus beta times the KL."""
    encoder, decoder = networks()
    random = torch.Generator().manual_seed(0)
    parameters = [*encoder.parameters(), *decoder.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=5e-3)
    for _ in range(steps):
        batch = paths[torch.randint(len(paths), (64,), generator=random)]
        mu, logvar = encoder(batch).chunk(2, -1)
        z = sample(mu, logvar, torch.randn(mu.shape, generator=random))
        loss = (decoder(z) - batch).abs().sum(-1).mean() + beta * kl(mu, logvar)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return as_toy(encoder, decoder, paths)


@torch.no_grad()
def as_toy(encoder: nn.Module, decoder: nn.Module, paths: Tensor) -> Toy:
    """What a trained encoder and decoder make of the demonstrations."""
    mu, logvar = encoder(paths).chunk(2, -1)
    sigma = (0.5 * logvar).exp()
    return Toy(decoder, mu[:, 0].numpy(), sigma[:, 0].numpy(), float(kl(mu, logvar)))


def _post(axes: Axes, paths: Tensor) -> None:
    for path in paths:
        axes.plot(range(TICKS), path, color="black", lw=0.5, alpha=0.25)
    box = [TICKS / 2 - 1, TICKS / 2], [-POST, -POST], [POST, POST]
    axes.fill_between(*box, color="0.5", label="the post")
    axes.set_ylim(-1.6, 1.6)
    label(axes, "tick", "left of the post, m")


def ways_figure(paths: Tensor, found: Mapping[str, Tensor]) -> Figure:
    """Demonstrations in black, what was learned from them in colour."""
    fig, axes = figure()
    drawn = paths[:: max(1, len(paths) // 32)]
    _post(axes, drawn)
    for i, (name, path) in enumerate(found.items()):
        axes.plot(path, **style(i), lw=2.5, label=name)
    axes.set_title(f"n = {len(paths)} demonstrations, {len(drawn)} drawn", loc="left")
    fig.legend(loc="outside right center", fontsize=9)
    return fig


def toy_explorer(toys: Mapping[float, Toy], paths: Tensor) -> Explorer:
    """A slider for z and a choice of beta: the path, and where posteriors lie.

    It opens on the beta nearest 1, where z = 0 hits the post and most others do not.
    """
    fig, (left, right) = figure(2, height=3.0)
    _post(left, paths[:: max(1, len(paths) // 16)])
    (line,) = left.plot([], [], color=COLOURS[1], lw=3, label="decoded")
    left.legend(loc="upper right", fontsize=9)
    grid = np.linspace(-4, 4, 161)
    prior = np.exp(-(grid**2) / 2) / np.sqrt(2 * np.pi)
    right.plot(grid, prior, color="black", ls="--", label="prior")
    (posterior,) = right.plot([], [], color=COLOURS[0], label="all posteriors")
    (here,) = right.plot([], [], "v", color=COLOURS[1], ms=9, label="your z")
    right.set_ylim(0, 1.3)
    label(right, "z", "density")
    right.legend(loc="upper left", fontsize=9)
    still_layout(fig)
    # Computed once: a slider must answer at once.
    spread = {beta: _mixture(toy, grid) for beta, toy in toys.items()}
    passing = {beta: toy.passing() for beta, toy in toys.items()}

    def draw(z: float, beta: float) -> tuple[Figure, str]:
        toy = toys[beta]
        path = toy.path(z)
        line.set_data(range(TICKS), path)
        posterior.set_data(grid, np.minimum(spread[beta], 1.3))
        here.set_data([z], [0.03])
        middle = float(path[TICKS // 2])
        through = "misses the post" if passes(path[None])[0] else "hits the post"
        return fig, (
            f"beta = {beta:g}: KL {toy.kl:.2f} nats. z = {z:.1f} goes {middle:+.2f} m "
            f"to the left and {through}; with z drawn from the prior, "
            f"{100 * passing[beta]:.0f} % of paths miss it (n = 1000)."
        )

    return Explorer(
        "For which beta does every z lead past the post? For which does z do nothing?",
        draw,
        z=slider("z", -3.0, 3.0, 0.0, 0.1),
        beta=steps("beta", list(toys), min(toys, key=lambda beta: abs(beta - 1))),
    )


def _mixture(toy: Toy, grid: np.ndarray) -> np.ndarray:
    """Density of the posteriors of all demonstrations together."""
    sigma = np.maximum(toy.sigma, 0.03)[:, None]  # narrower than a pixel is not seen
    score = (grid - toy.mu[:, None]) / sigma
    each = np.exp(-(score**2) / 2) / (sigma * np.sqrt(2 * np.pi))
    return each.mean(0)


# --- ACT's own z ----------------------------------------------------------------------


@dataclass(frozen=True)
class Posterior:
    """What ACT's CVAE encoder says about demonstrated chunks.

    Attributes:
        mu: (n, Z).
        logvar: (n, Z).
        l1: error of chunks decoded from mu, normalised units.
        l1_prior: the same from z = 0, as the robot gets it.
    """

    mu: Tensor
    logvar: Tensor
    l1: float
    l1_prior: float

    @property
    def per_dimension(self) -> Tensor:
        """(Z,) KL in nats, mean over chunks."""
        mu, logvar = self.mu, self.logvar
        return 0.5 * (mu.square() + logvar.exp() - 1 - logvar).mean(0)

    @property
    def nats(self) -> float:
        """KL, summed over Z."""
        return float(self.per_dimension.sum())

    def __str__(self) -> str:
        return (
            f"KL {self.nats:.2g} nats; L1 {self.l1:.3f} with the posterior's z, "
            f"{self.l1_prior:.3f} with z = 0"
        )


@torch.no_grad()
def posterior(policy: Policy, demos: Demonstrations, n: int = 512) -> Posterior:
    """The posterior of `n` random chunks, of an ACT with a CVAE, without cameras."""
    windows = Windows(demos, np.arange(len(demos)), policy.chunk_size)
    n = min(n, len(windows))
    chosen = np.random.default_rng(0).choice(len(windows), n, replace=False)
    batch = windows.batch(chosen)
    act = _act(policy)
    qpos = policy.scale("qpos").normalise(batch["qpos"])
    target = policy.scale("action").normalise(batch["action"])
    assert act.cvae is not None
    mu, logvar = act.cvae(qpos, target, batch["is_pad"])
    _, parts = policy.loss(batch, eps=torch.zeros_like(mu))
    prior = float(policy.validation_loss(batch)[0])
    return Posterior(mu, logvar, float(parts["l1"]), prior)


@torch.no_grad()
def decode(policy: Policy, observation: Mapping[str, np.ndarray], z: Tensor) -> Tensor:
    """Chunks (n, k, A), rad, of one observation (1, ...) for latents z (n, Z)."""
    act = _act(policy)
    inputs = {}
    for key in ("qpos", "env_state") if policy.uses_env_state else ("qpos",):
        one = torch.as_tensor(observation[key], dtype=torch.float32)
        inputs[key] = policy.scale(key).normalise(one).expand(len(z), -1)
    return policy.scale("action").restore(act.decode(*act.encode(inputs, z)))


def _act(policy: Policy) -> ACT:
    if not isinstance(policy.module, ACT):
        raise TypeError(f"an ACT policy is wanted, not {policy.name}")
    return policy.module


class SampledLatent(nn.Module):
    """ACT that draws z from the prior at every prediction, times `scale`.

    The buffer `draw` makes it another policy to everything that knows policies by
    their weights, as the cache of rollouts does.
    """

    draw: Tensor

    def __init__(self, act: ACT, seed: int = 0, scale: float = 1.0):
        super().__init__()
        self.act, self.config = act, act.config
        self.register_buffer("draw", torch.tensor([float(seed), scale]))
        self.random = torch.Generator().manual_seed(seed)

    def forward(self, batch: dict[str, Tensor], eps: Tensor | None = None) -> ACTOutput:
        """As `ACT.forward` without actions, but with a z that is drawn."""
        size = (len(batch["qpos"]), self.config.latent_dim)
        z = torch.randn(size, generator=self.random) * self.draw[1]
        return ACTOutput(self.act.decode(*self.act.encode(batch, z)), None, None)


def sampled(policy: Policy, seed: int = 0, scale: float = 1.0) -> Policy:
    """The same policy, with z drawn from N(0, scale²) for every chunk."""
    twin = copy.copy(policy)
    twin._modules = dict(policy._modules)
    # Not a copy of the weights: the twin shares them.
    twin._modules["module"] = SampledLatent(_act(policy), seed, scale)
    return twin


def first_sight(scene: int = 0) -> dict[str, np.ndarray]:
    """What a policy sees at the start of a scene, n = 1."""
    from act_minimal.sim import make_task
    from act_minimal.sim.world import World

    world = World(make_task("so100_pick_place"), 1)
    world.reset([scene])
    seen = world.observe()
    world.close()
    return {key: seen[key] for key in ("qpos", "env_state")}


def latent_explorer(
    policies: Mapping[float, Policy],
    found: Mapping[float, Posterior],
    observation: Mapping[str, np.ndarray],
) -> Explorer:
    """Sliders along the two widest directions of the posteriors, and for kl_weight.

    Policies and their posteriors go by kl_weight; all see the same observation, n = 1.
    It opens where z does most: at the smallest kl_weight, two deviations from 0.
    """
    axis, along, chunks = {}, {}, {}
    grid = np.round(np.arange(-3, 3.01, 0.25), 2)
    for beta, one in found.items():
        _, _, vh = torch.linalg.svd(one.mu - one.mu.mean(0), full_matrices=False)
        axis[beta] = vh[:2] * torch.sign(vh[:2].sum(1, keepdim=True))  # (2, Z)
        along[beta] = (one.mu @ axis[beta].T).numpy()
        pairs = torch.tensor([[a, b] for a in grid for b in grid], dtype=torch.float32)
        all_chunks = decode(policies[beta], observation, pairs @ axis[beta])
        size = (len(grid), len(grid), *all_chunks.shape[1:])
        chunks[beta] = all_chunks.numpy().reshape(size)
    fig, (left, right) = figure(2, height=3.0)
    every = np.concatenate([c[..., JOINT].ravel() for c in chunks.values()])
    k = next(iter(chunks.values())).shape[2]
    seconds = np.arange(k) / FPS
    (zero,) = left.plot([], [], color="black", ls="--", label="z = 0")
    (line,) = left.plot([], [], color=COLOURS[1], lw=2.5, label="your z")
    left.set_xlim(0, k / FPS)
    left.set_ylim(every.min() - 0.1, every.max() + 0.1)
    label(left, "time, s", "shoulder lift, rad", "one chunk, one observation")
    left.legend(loc="upper left", fontsize=9)
    n = len(next(iter(found.values())).mu)
    (dots,) = right.plot([], [], ".", color=COLOURS[0], ms=3, label=f"posteriors ({n})")
    (here,) = right.plot([], [], "v", color=COLOURS[1], ms=9, label="your z")
    right.set_xlim(-4, 4)
    right.set_ylim(-4, 5.5)  # room for the legend
    label(right, "z, widest direction", "z, second direction")
    right.legend(loc="upper left", fontsize=9)
    still_layout(fig)

    def draw(first: float, second: float, kl_weight: float) -> tuple[Figure, str]:
        i, j = (int(np.abs(grid - x).argmin()) for x in (first, second))
        middle = len(grid) // 2
        ours, base = chunks[kl_weight][i, j], chunks[kl_weight][middle, middle]
        zero.set_data(seconds, base[:, JOINT])
        line.set_data(seconds, ours[:, JOINT])
        dots.set_data(*along[kl_weight].T)
        here.set_data([first], [second])
        apart = float(np.abs(ours - base)[:, :5].max())
        return fig, (
            f"kl_weight {kl_weight:g}: KL {found[kl_weight].nats:.2g} nats; this z "
            f"moves a joint by up to {apart:.2g} rad against z = 0."
        )

    return Explorer(
        "Which kl_weight lets z change the chunk, and what does it change: where the "
        "arm goes, or when?",
        draw,
        first=slider("z, widest direction", -3.0, 3.0, 2.0, 0.25),
        second=slider("z, second direction", -3.0, 3.0, 0.0, 0.25),
        kl_weight=steps("kl_weight", list(policies), min(policies)),
    )


# --- success and KL against kl_weight, as measured ------------------------------------


def by_weight(task: str) -> str:
    """A table: KL and success for each kl_weight, "pick and place" or "post".

    From the claims C6 and C7, with k = 25; and from C15, where half of the
    demonstrators go left and whole chunks are executed.
    """
    if task == "post":
        rows = load_result("claims/C15")["summary"]
        kept = {"left": 0.5, "execute": TICKS}
        rows = [r for r in rows if r["variant"] != "l2" and kept.items() <= r.items()]
    else:
        rows = [r for i in (7, 6) for r in load_result(f"claims/C0{i}")["summary"]]
        rows = [r for r in rows if r["reduction"] != "mean"]
    table = {(_weight(row), row["z"]): row for row in rows}
    lines = [f"{task:14} {'KL, nats':>8}  {'z = 0':16} z drawn (n = {rows[0]['n']})"]
    for weight in sorted({weight for weight, _ in table}):
        zero, drawn = table[weight, "zero"], table.get((weight, "drawn"))
        name = f"kl_weight {weight:g}" if weight >= 0 else "no CVAE"
        nats = f"{zero['kl']:.2g}" if weight >= 0 else ""
        words = f"{name:16} {nats:>7}  {_rate(zero):16} {_rate(drawn) if drawn else ''}"
        lines.append(words.rstrip())
    return "\n".join(lines)


def _weight(row: Mapping) -> float:
    """-1 where there is no CVAE."""
    return -1.0 if row["kl_weight"] in (None, "none") else row["kl_weight"]


def _rate(row: Mapping) -> str:
    low, high = row["interval"]
    return f"{100 * row['success']:.0f} % ({100 * low:.0f}-{100 * high:.0f} %)"


def ablation() -> str:
    """A table: success with and without a CVAE, and what it gains, by C5."""
    found, lines = load_result("claims/C05"), []
    for who in ("human", "scripted"):
        rows = {r["cvae"]: r for r in found["summary"] if r["demonstrator"] == who}
        [gain] = [
            one
            for one in found["differences"]
            if one["demonstrator"] == who and "k" not in one
        ]
        low, high = (100 * x for x in gain["interval"])
        lines.append(
            f"{who:9} with {_rate(rows[True])}, without {_rate(rows[False])}: gain "
            f"{100 * gain['difference']:+.1f} points ({low:+.1f} to {high:+.1f}), "
            f"n = 2 x {rows[True]['n']}"
        )
    return "\n".join(lines)
