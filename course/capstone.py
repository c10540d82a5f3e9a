"""The learner's own ACT: the pieces of lesson 05, kept in a file, trained in lesson 06.

`runs/course/my_act.py` holds every piece that its check called right, under a line such
as `# %% 05.attend`, and what the learner writes around them. Where a piece is missing,
or wrong by now, the course's is used.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from act_minimal.dataset import Windows, indices_for_step
from act_minimal.evaluation import Evaluation, evaluate
from act_minimal.execution import ExecutionConfig
from act_minimal.model import ACT, ACTOutput, act_loss
from act_minimal.policy import Policy, make_policy
from act_minimal.settings import ACTConfig
from act_minimal.support.errors import UserError
from act_minimal.training import mix

from .figures import lesson_05_parts as parts
from .toolkit import checks, own_file
from .toolkit.paths import folder
from .toolkit.runs import TASK, alone

PIECES = {
    "05.sinusoid": "sinusoid",
    "05.attend": "attend",
    "05.split-heads": "split_heads",
    "05.encoder-layer": "encoder_layer",
    "05.posterior": "posterior",
    "05.image-tokens": "image_tokens",
    "05.decode": "decode",
    "05.act": "act",
}
EXECUTORS = {"02.receding": "executed", "04.average": "average"}
KEPT = PIECES | EXECUTORS | {"06.train": "train"}


# --- the file -------------------------------------------------------------------------


def my_file() -> Path:
    """Where the pieces are kept."""
    return folder() / "my_act.py"


def check(name: str, *answers: Any) -> checks.Verdict:
    """`checks.check`; a right answer that belongs to the learner's ACT is kept.

    Where it could not be kept, the verdict says so, and why.
    """
    verdict = checks.check(name, *answers)
    if verdict.state == "right" and name in KEPT:
        try:
            note = keep(name, answers[0])
        except UserError as error:
            note = f"It is right, but could not be kept: {error}."
        return replace(verdict, message=f"{verdict.message} {note}".strip())
    return verdict


def keep(name: str, function: Callable) -> str:
    """Write a function's source into the file; returns what else there is to say.

    Raises:
        UserError: it could not be kept, and why.
    """
    path = my_file()
    with alone(path):
        return own_file.put(path, name, function, KEPT)


def kept(*names: str) -> tuple[dict[str, Callable], dict[str, str]]:
    """Functions from the file by their names, and why the others are not there.

    Each is checked again: the file may have been edited.
    """
    wanted = {key: KEPT[key] for key in names or KEPT}
    try:
        above, *sections = own_file.split(own_file.read(my_file()), KEPT)
    except UserError as error:
        return {}, dict.fromkeys(wanted.values(), str(error))
    space: dict[str, Any] = {"__name__": "my_act"}
    exec(own_file.HEADER, space)
    faults = {}
    for key, text in [above, *sections] if sections else []:
        place = "" if key else "above the first mark, "
        faults[key] = _run(text, space, place)
    found: dict[str, Callable] = {}
    missing: dict[str, str] = {}
    for key, name in wanted.items():
        if key not in faults:
            missing[name] = "not kept yet"
        elif fault := faults[key] or faults[""]:
            missing[name] = fault
        else:
            verdict = checks.check(key, space.get(name))
            if verdict.state == "right":
                found[name] = space[name]
            else:
                missing[name] = verdict.message
    return found, missing


def _run(text: str, space: dict[str, Any], place: str) -> str:
    """Run a part of the file; what it raised and where, or ""."""
    try:
        exec(compile(text, str(my_file()), "exec"), space)
    except (Exception, SystemExit) as error:  # of whatever kind: it is their own code
        return f"{place}{type(error).__name__}: {error}"
    return ""


# --- the network ----------------------------------------------------------------------


def pieces() -> parts.Pieces:
    """The learner's pieces where they are right, the course's elsewhere."""
    found, missing = kept(*PIECES)
    return parts.Pieces(**found, yours=tuple(found), missing=missing)


class OwnACT(nn.Module):
    """ACT made of `pieces`; its weights have the package's names and first values."""

    def __init__(self, config: ACTConfig, made_of: parts.Pieces):
        super().__init__()
        self.config, self.made_of = config, made_of
        self.weights = ACT(config)

    def forward(self, batch: dict[str, Tensor], eps: Tensor | None = None) -> ACTOutput:
        """As `ACT.forward`."""
        named = dict(self.weights.named_parameters())
        w = parts.Weights(named, self.config.heads, self.made_of)
        return ACTOutput(*self.made_of.act(w, batch, eps))

    def loss(
        self, batch: dict[str, Tensor], eps: Tensor | None = None, count: Any = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """As `ACT.loss`."""
        action, is_pad = batch["action"], batch["is_pad"]
        return act_loss(self(batch, eps), action, is_pad, self.config, count)


def own_policy(windows: Windows, seed: int = 0) -> Policy:
    """An untrained policy around the learner's ACT, for these demonstrations."""
    demos = windows.demos
    assert demos.env_state is not None
    torch.manual_seed(seed)
    policy = make_policy(
        "act",
        windows.statistics(),
        state_dim=demos.qpos.shape[1],
        action_dim=demos.action.shape[1],
        env_state_dim=demos.env_state.shape[1],
        chunk_size=windows.chunk_size,
    )
    policy.module = OwnACT(policy.module.config, pieces())
    return policy


# --- its training ---------------------------------------------------------------------


def batches(
    policy: Policy, windows: Windows, steps: int, size: int = 64, seed: int = 0
) -> Iterator[tuple[dict[str, Tensor], Tensor]]:
    """Normalised batches and the noise eps (B, Z), with a progress bar.

    Joints and cube get noise of 0.02 deviations, as in the package's runs here.
    """
    for step in tqdm(range(steps), desc="own training", leave=False):
        raw = windows.batch(indices_for_step(len(windows), size, step, seed))
        random = torch.Generator().manual_seed(mix(seed, step + 1))
        batch = {"is_pad": raw.pop("is_pad")}
        for key, x in raw.items():
            batch[key] = policy.scale(key).normalise(x)
            if key != "action":
                batch[key] += 0.02 * torch.randn(x.shape, generator=random)
        yield batch, torch.randn(size, policy.latent_dim, generator=random)


def adamw(policy: Policy, lr: float, steps: int) -> torch.optim.Optimizer:
    """AdamW whose rate rises for 50 steps, then falls to 0 along a cosine."""
    optimizer = torch.optim.AdamW(policy.module.parameters(), lr, fused=True)

    def rate(step: int) -> float:
        share = min(1.0, step / steps)
        return min(1.0, (step + 1) / 50) * 0.5 * (1 + math.cos(math.pi * share))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    optimizer.register_step_post_hook(lambda *_: schedule.step())
    return optimizer


def train(model: Any, batches: Any, optimizer: Any, beta: float) -> list[float]:
    """The loop that stands in for the learner's: L1 of each step."""
    history = []
    for batch, eps in batches:
        actions, mean, logvar = model(batch, eps)
        valid = ~batch["is_pad"][..., None]  # (B, k, 1)
        error = (actions - batch["action"]).abs() * valid
        l1 = error.sum() / (valid.sum() * actions.shape[-1])
        kl = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).sum(-1).mean()
        (l1 + beta * kl).backward()
        optimizer.step()
        optimizer.zero_grad()
        history.append(float(l1.detach()))
    return history


@dataclass(frozen=True)
class OwnRun:
    """What the learner's training left: the policy, L1 of each step, whose parts."""

    policy: Policy
    losses: list[float]
    loop: str
    made_of: parts.Pieces = field(repr=False)

    def __str__(self) -> str:
        last = np.mean(self.losses[-50:])
        return f"{self.made_of}\nloop: {self.loop}\nL1 of the last steps {last:.3f}"


def train_own(windows: Windows, loop: Callable, *, steps: int, lr: float) -> OwnRun:
    """Train the learner's ACT with their loop; where it is not right, the course's."""
    right = check("06.train", loop).state == "right"
    policy = own_policy(windows).train()
    chosen = loop if right else train
    losses = chosen(
        policy.module, batches(policy, windows, steps), adamw(policy, lr, steps), 1.0
    )
    whose = "yours" if right else "the course's"
    return OwnRun(policy.eval(), list(losses), whose, policy.module.made_of)


# --- its rollouts ---------------------------------------------------------------------


class OwnHorizon:
    """The learner's `executed` of lesson 02 as an executor: half of each chunk.

    See `act_minimal.execution.Executor`.
    """

    def __init__(self, chunk_size: int):
        self.executed = kept("02.receding")[0]["executed"]
        self.h = max(1, chunk_size // 2)
        self.reset()

    def reset(self) -> None:
        self.chunks: list[np.ndarray] = []  # (k, n A) each, since the last look

    def needs_chunk(self) -> bool:
        return len(self.chunks) % self.h == 0

    def step(self, chunk: np.ndarray | None) -> np.ndarray:
        if chunk is not None:
            self.n = len(chunk)
            self.chunks = [_side_by_side(chunk)]
        else:  # nothing was predicted at this tick
            self.chunks.append(np.zeros_like(self.chunks[0]))
        action = np.asarray(self.executed(np.stack(self.chunks), self.h))[-1]
        return action.reshape(self.n, -1)


class OwnEnsemble:
    """The learner's `average` of lesson 04 as an executor: the paper's m = 0.01."""

    def __init__(self, chunk_size: int):
        self.average = kept("04.average")[0]["average"]
        self.chunk_size = chunk_size
        self.reset()

    def reset(self) -> None:
        self.chunks: list[np.ndarray] = []  # the last k, oldest first

    def needs_chunk(self) -> bool:
        return True

    def step(self, chunk: np.ndarray | None) -> np.ndarray:
        assert chunk is not None
        self.chunks = [*self.chunks, _side_by_side(chunk)][-self.chunk_size :]
        ages = range(len(self.chunks) - 1, -1, -1)
        now = np.stack([c[age] for c, age in zip(self.chunks, ages, strict=True)])
        return np.asarray(self.average(now, 0.01)).reshape(len(chunk), -1)


def _side_by_side(chunk: np.ndarray) -> np.ndarray:
    """Chunks (n, k, A) of n scenes as one of (k, n A)."""
    return np.swapaxes(chunk, 0, 1).reshape(chunk.shape[1], -1)


def ways() -> dict[str, ExecutionConfig]:
    """Two ways to execute chunks, the learner's where they kept them."""
    found, _ = kept(*EXECUTORS)
    package = ExecutionConfig(), ExecutionConfig("ensemble")
    names = "half of each chunk", "ensemble, m = 0.01"
    owns = OwnHorizon, OwnEnsemble
    chosen = {}
    rows = zip(EXECUTORS.values(), names, owns, package, strict=True)
    for key, name, own, theirs in rows:
        if key in found:
            way = ExecutionConfig(f"{__name__}:{own.__name__}")
            chosen[f"{name} (your `{key}`)"] = way
        else:
            chosen[f"{name} (the package's)"] = theirs
    return chosen


def roll_out(policy: Policy, way: ExecutionConfig, n: int, seed: int) -> Evaluation:
    """`evaluate`, kept nowhere: the next training makes another policy."""
    return evaluate(policy, TASK, way, n=n, seed=seed, progress=False)
