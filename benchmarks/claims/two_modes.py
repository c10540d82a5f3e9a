"""C15: ACT with and without CVAE on the two ways around a post.

Lesson 03's toy as a control problem: a point walks past a post in 20 ticks, and sees
how far it has come and where it is. Flow and diffusion are claim C29.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from act_minimal.model import ACT, act_loss
from act_minimal.settings import ACTConfig
from course.figures.lesson_03 import TICKS, passes, two_ways

from ..rollouts import Row, grouped, total
from .claim import Claim, Extension

START = 0.05  # m, deviation of where a path begins
WEIGHTS = (0.0001, 0.001, 0.01, 0.1, 1.0, 10.0, 100.0, 1000.0)
LABELS = ("variant", "kl_weight", "left", "z", "execute")


@dataclass
class ToySizes:
    """Sizes of C15."""

    seeds: tuple[int, ...] = (0, 1, 2)
    """Of demonstrations, weights and starts."""
    n: int = 100
    """Walks a seed."""
    steps: int = 600
    """Updates of every policy."""
    demonstrations: int = 250


def demonstrate(n: int, left: float, seed: int) -> tuple[Tensor, Tensor]:
    """Starts (n,) and paths (n, TICKS) past the post, in m to its left."""
    random = torch.Generator().manual_seed(1000 + seed)
    start = START * torch.randn(n, generator=random)
    fade = 1 - torch.linspace(0, 1, TICKS)
    return start, two_ways(n, left, seed) + start[:, None] * fade


def see(tick: Tensor, place: Tensor) -> Tensor:
    """What the policy sees: progress from -1 to 1, and the place, (B, 2)."""
    return torch.stack([2 * tick / TICKS - 1, place], -1)


def windows(start: Tensor, paths: Tensor) -> dict[str, Tensor]:
    """All windows: qpos (n T, 2), action (n T, T, 1), is_pad (n T, T)."""
    n = len(paths)
    before = torch.cat([start[:, None], paths[:, :-1]], 1)  # (n, T)
    t = torch.arange(TICKS)
    at = t[:, None] + t  # (T, T): window, then tick of the chunk
    is_pad = at >= TICKS
    action = paths[:, at.clamp(max=TICKS - 1)]  # (n, T, T)
    qpos = see(t.float().expand(n, -1), before)  # (n, T, 2)
    return {
        "qpos": qpos.flatten(0, 1),
        "action": action.flatten(0, 1)[..., None],
        "is_pad": is_pad.expand(n, -1, -1).flatten(0, 1),
    }


def fit(data: dict[str, Tensor], settings: ToySizes, seed: int, **choices: Any) -> ACT:
    """A small ACT, trained on windows."""
    torch.manual_seed(seed)
    config = ACTConfig(
        state_dim=2,
        action_dim=1,
        chunk_size=TICKS,
        width=32,
        feedforward=64,
        encoder_layers=1,
        latent_dim=4,
        **choices,
    )
    act, random = ACT(config), torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(act.parameters(), lr=2e-3, weight_decay=1e-4)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, settings.steps)
    for _ in range(settings.steps):
        rows = torch.randint(len(data["qpos"]), (64,), generator=random)
        batch = {key: x[rows] for key, x in data.items()}
        eps = torch.randn(64, 4, generator=random)
        output = act(batch, eps if config.use_cvae else None)
        loss, _ = act_loss(output, batch["action"], batch["is_pad"], config)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        decay.step()
    return act.eval()


@torch.no_grad()
def nats(act: ACT, data: dict[str, Tensor]) -> float | None:
    """KL of the chunks that begin at the start, where the way is still open."""
    if act.cvae is None:
        return None
    first = {key: x[::TICKS] for key, x in data.items()}
    mu, logvar = act.cvae(first["qpos"], first["action"], first["is_pad"])
    each = 0.5 * (mu.square() + logvar.exp() - 1 - logvar)
    return float(each.sum(-1).mean())


@torch.no_grad()
def walk(act: ACT, n: int, execute: int, seed: int, drawn: bool) -> Tensor:
    """Paths (n, TICKS) of n walks, `execute` actions of each chunk executed."""
    random = torch.Generator().manual_seed(2000 + seed)
    place, path = START * torch.randn(n, generator=random), []
    for tick in range(TICKS):
        if tick % execute == 0:
            qpos = see(torch.full((n,), float(tick)), place)
            z = torch.zeros(n, 4)
            if drawn:
                z = torch.randn(n, 4, generator=random)
            chunk = act.decode(*act.encode({"qpos": qpos}, z))[..., 0]  # (n, T)
        place = chunk[:, tick % execute]
        path.append(place)
    return torch.stack(path, 1)


def variants() -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Labels, and the choices of the network."""
    found: list[tuple[dict[str, Any], dict[str, Any]]] = [
        ({"variant": loss, "kl_weight": None}, {"use_cvae": False, "loss": loss})
        for loss in ("l1", "l2")
    ]
    for weight in WEIGHTS:
        found.append(({"variant": "cvae", "kl_weight": weight}, {"kl_weight": weight}))
    return found


def measure(settings: ToySizes) -> Row:
    """Train and walk."""
    torch.set_num_threads(1)
    rows = []
    for left in (0.5, 0.6):
        for seed in settings.seeds:
            data = windows(*demonstrate(settings.demonstrations, left, seed))
            for labels, choices in variants():
                act = fit(data, settings, seed, **choices)
                kl = nats(act, data)
                for execute in (1, 5, 20):
                    for z in ("zero", "drawn") if kl is not None else ("zero",):
                        paths = walk(act, settings.n, execute, seed, z == "drawn")
                        won = passes(paths)
                        on_left = won & (paths[:, TICKS // 2] > 0)
                        rows.append(
                            labels
                            | {"left": left, "seed": seed, "z": z, "execute": execute}
                            | {"successes": int(won.sum()), "n": settings.n}
                            | {"rate": float(won.float().mean()), "kl": kl}
                            | {"went_left": int(on_left.sum())}
                        )
                print(rows[-1], flush=True)
    return {
        "task": "two ways around a post (course.figures.lesson_03.two_ways)",
        "seeds": settings.seeds,
        "summary": summarise(rows),
        "runs": rows,
    }


def summarise(rows: list[Row]) -> list[Row]:
    """Over the seeds."""
    summary = []
    for label, group in grouped(rows, LABELS):
        kls = [r["kl"] for r in group if r["kl"] is not None]
        row = label | total(group)
        row["kl"] = sum(kls) / len(kls) if kls else None
        row["went_left"] = sum(r["went_left"] for r in group) / row["n"]
        summary.append(row)
    return summary


C15 = Claim(
    "C15",
    "ACT averages two valid strategies; diffusion and flow matching do not.",
    "Articles.",
    measure,
    ToySizes(),
    ("claims/C29",),
    ours="Two ways around a post, half of the demonstrators go left; whole chunks of "
    "20. Without a CVAE: L2 {{variant=l2 left=0.5 execute=20 z=zero}}, L1 {{variant=l1 "
    "left=0.5 execute=20 z=zero}}; with one and z drawn: KL weight 1: {{variant=cvae "
    "kl_weight=1.0 left=0.5 execute=20 z=drawn}}, 0.1 ({{variant=cvae kl_weight=0.1 "
    "left=0.5 execute=20 z=drawn -> kl 1}} nats): {{variant=cvae kl_weight=0.1 "
    "left=0.5 execute=20 z=drawn}}; with z = 0, as the paper has it, {{variant=cvae "
    "kl_weight=1.0 left=0.5 execute=20 z=zero}} and {{variant=cvae kl_weight=0.1 "
    "left=0.5 execute=20 z=zero}}. One action at a time, L2 passes in {{variant=l2 "
    "left=0.5 execute=1 z=zero}}.",
    verdict="under a condition",
    line="L2 averages two ways if whole chunks are executed; L1 mostly takes one. A "
    "flow keeps both (C29).",
    why="The mean of two ways hits the post. L1, ACT's loss, takes the median; with "
    "equal shares that may be in between, too. A latent that carries a nat does better "
    "still if z is drawn, and not with z = 0.",
    extension=Extension(
        "KL weights of 0.0001, 10, 100 and 1000",
        "Other KL weights, z drawn: 0.0001: {{variant=cvae kl_weight=0.0001 left=0.5 "
        "execute=20 z=drawn}}, 10: {{variant=cvae kl_weight=10.0 left=0.5 execute=20 "
        "z=drawn}}, 1000: {{variant=cvae kl_weight=1000.0 left=0.5 execute=20 "
        "z=drawn}}.",
    ),
)
