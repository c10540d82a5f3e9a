"""C15: two valid strategies. ACT with and without CVAE on the two ways around a post.

    uv run python -m benchmarks.claims.c15_two_modes

The toy of lesson 03 as a control problem: a point walks past a post in 20 ticks, sees
how far it has come and where it is, and demonstrations pass on either side. The network
is the package's ACT, small. z is 0, or drawn for every chunk. Flow matching is not in
the package yet, so the second half of the claim is not tested here.
"""

import time
from dataclasses import dataclass
from typing import Any

import torch
import tyro
from torch import Tensor

from act_minimal.course.latent import TICKS, passes, two_ways
from act_minimal.evaluation import wilson
from act_minimal.model import ACT, ACTConfig, act_loss
from benchmarks.results import write

START = 0.05  # m, deviation of where a path begins
WEIGHTS = (0.001, 0.01, 0.1, 1.0)
LABELS = ("variant", "kl_weight", "left", "z", "execute")


@dataclass
class Settings:
    """Sizes; the defaults are the committed result's."""

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


def fit(data: dict[str, Tensor], settings: Settings, seed: int, **choices: Any) -> ACT:
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


def main(settings: Settings) -> None:
    """Train, walk, and write data/results/claims/C15.json."""
    torch.set_num_threads(1)
    start, rows = time.perf_counter(), []
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
    write(
        "claims/C15",
        time.perf_counter() - start,
        {
            "claim": "ACT averages two valid strategies; diffusion and flow matching "
            "do not.",
            "published": "Articles.",
            "task": "two ways around a post (act_minimal.course.latent.two_ways)",
            "seeds": settings.seeds,
            "note": "Flow matching and diffusion are not in the package: that half of "
            "the claim is not tested.",
            "summary": summarise(rows),
            "runs": rows,
        },
    )


def summarise(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Over the seeds."""
    groups: dict[tuple, list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(tuple(row[key] for key in LABELS), []).append(row)
    summary = []
    for key, ours in groups.items():
        won, n = sum(r["successes"] for r in ours), sum(r["n"] for r in ours)
        kls = [r["kl"] for r in ours if r["kl"] is not None]
        summary.append(
            dict(zip(LABELS, key, strict=True))
            | {"success": won / n, "interval": wilson(won, n), "n": n}
            | {"seeds": [r["seed"] for r in ours]}
            | {"each_seed": [r["rate"] for r in ours]}
            | {"kl": sum(kls) / len(kls) if kls else None}
            | {"went_left": sum(r["went_left"] for r in ours) / n}
        )
    return summary


if __name__ == "__main__":
    main(tyro.cli(Settings))
