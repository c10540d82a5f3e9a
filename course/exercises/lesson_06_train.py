"""Lesson 06: the training loop, tried on a network whose gradients are known."""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from act_minimal.model import ACTOutput, act_loss
from act_minimal.settings import ACTConfig

from ..toolkit.checks import Wrong, attempt, each_case, exercise, is_right, numbers

RATE = 0.05


@dataclass(frozen=True)
class Case:
    """What a training is tried with."""

    beta: float
    batches: int
    rows: int  # B
    k: int
    actions: int  # A
    latent: int  # Z


CASES = Case(0.4, 3, 5, 4, 2, 3), Case(1.5, 7, 6, 5, 3, 4)


class Toy(nn.Module):
    """The smallest network with ACT's outputs: its gradients are easy to follow."""

    def __init__(self, case: Case) -> None:
        super().__init__()
        k, a, z = case.k, case.actions, case.latent
        draw = torch.Generator().manual_seed(3)
        self.chunk = nn.Parameter(torch.randn(k, a, generator=draw))
        self.mean = nn.Parameter(torch.randn(z, generator=draw))
        self.logvar = nn.Parameter(torch.randn(z, generator=draw))
        self.mix = torch.randn(z, k * a, generator=draw)

    def forward(self, batch: dict[str, Tensor], eps: Tensor | None = None) -> ACTOutput:
        if eps is None:
            raise TypeError("the noise is missing: model(batch, eps)")
        rows = len(batch["qpos"])
        mean, logvar = (x.expand(rows, -1) for x in (self.mean, self.logvar))
        z = mean + (0.5 * logvar).exp() * eps
        reached = self.chunk + (z @ self.mix).view(rows, *self.chunk.shape)
        return ACTOutput(reached * batch["qpos"][:, None, :1], mean, logvar)

    def numbers(self) -> Tensor:
        return torch.cat([p.detach().flatten() for p in self.parameters()])


def _toy_batches(case: Case) -> list[tuple[dict[str, Tensor], Tensor]]:
    draw, b, k = torch.Generator().manual_seed(4), case.rows, case.k
    ends = torch.tensor([[k], [k], [3], [2], [1], [4]])[:b]
    found = []
    for _ in range(case.batches):
        batch = {
            "qpos": 1 + torch.rand(b, 2, generator=draw),
            "action": torch.randn(b, k, case.actions, generator=draw),
            "is_pad": torch.arange(k) >= ends,
        }
        found.append((batch, torch.randn(b, case.latent, generator=draw)))
    return found


def _loss(
    case: Case, output: ACTOutput, batch: dict[str, Tensor], **config: Any
) -> Any:
    """The package's loss, and its L1."""
    settings: dict[str, Any] = {"kl_weight": case.beta, "latent_dim": case.latent}
    settings |= {"chunk_size": case.k, "action_dim": case.actions} | config
    about = ACTConfig.of_size("small", state_dim=2, **settings)
    loss, parts = act_loss(output, batch["action"], batch["is_pad"], about)
    return loss, parts["l1"]


def _trained(
    case: Case, loss_of: Callable, batches: Any, *, zero: bool = True
) -> Tensor:
    """The toy's numbers after gradient descent on this loss."""
    toy = Toy(case)
    optimizer = torch.optim.SGD(toy.parameters(), RATE)
    for batch, eps in batches:
        loss_of(toy(batch, eps), batch).backward()
        optimizer.step()
        if zero:
            optimizer.zero_grad()
    return toy.numbers()


def _wrong_losses(case: Case) -> dict[str, Callable]:
    beta = case.beta

    def error(output: ACTOutput, batch: dict[str, Tensor]) -> Tensor:
        return (output.actions - batch["action"]).abs()

    def kl(output: ACTOutput) -> Tensor:
        mu, logvar = output.mu, output.logvar
        assert mu is not None
        assert logvar is not None
        return -0.5 * (1 + logvar - mu.square() - logvar.exp())  # (B, Z)

    def whole(o: ACTOutput, b: dict[str, Tensor], **config: Any) -> Tensor:
        return _loss(case, o, b, **config)[0]

    def l1(o: ACTOutput, b: dict[str, Tensor]) -> Tensor:
        return whole(o, b, kl_weight=0.0)

    return {
        "padded actions count here: average the error where not is_pad": (
            lambda o, b: error(o, b).mean() + beta * kl(o).sum(-1).mean()
        ),
        "padding is set to 0, but still counted: divide by what is not padded": (
            lambda o, b: whole(o, b, padding_in_loss="dilute")
        ),
        "the mask is upside down: the error of the padding is trained on": (
            lambda o, b: error(o, b)[b["is_pad"]].mean() + beta * kl(o).sum(-1).mean()
        ),
        "the KL has the wrong sign: the loss is L1 + beta KL": (
            lambda o, b: 2 * l1(o, b) - whole(o, b)
        ),
        "the KL has no part in the loss: backward() of L1 + beta KL": l1,
        "beta is not used: L1 + beta KL": lambda o, b: whole(o, b, kl_weight=1.0),
        "the KL is averaged over the Z numbers; add them up": (
            lambda o, b: whole(o, b, kl_reduction="mean")
        ),
        "the KL is added up over the batch; take the mean over samples": (
            lambda o, b: l1(o, b) + beta * kl(o).sum()
        ),
        "the KL is twice what it should be: the factor 1 / 2 is missing": (
            lambda o, b: whole(o, b, kl_weight=2 * beta)
        ),
        "this is the squared error; ACT's loss is L1": (
            lambda o, b: whole(o, b, loss="l2")
        ),
        "L1 is added up, not averaged, over the numbers that are not padded": (
            lambda o, b: error(o, b)[~b["is_pad"]].sum() + beta * kl(o).sum(-1).mean()
        ),
        "only the KL is trained on; add L1": lambda o, b: beta * kl(o).sum(-1).mean(),
        "the loss is climbed, not descended: its sign is reversed": (
            lambda o, b: -whole(o, b)
        ),
    }


@exercise(
    "06.train",
    minutes=15,
    hints=(
        "The error is (actions - batch['action']).abs(), (B, k, A); [~batch['is_pad']] "
        "keeps what was demonstrated, and .mean() is L1.",
        "KL = 0.5 * (mean**2 + logvar.exp() - 1 - logvar), added up over the last "
        "axis, then the mean over the batch.",
        "(l1 + beta * kl).backward(), optimizer.step(), optimizer.zero_grad(), in this "
        "order; history.append(l1.item()) keeps a number, not a graph.",
    ),
    praise="Forward, loss, backward, step, zero: the same five train any network.",
)
def check_train(function: Callable) -> None:
    """`function(model, batches, optimizer, beta)` trains; returns L1 of each step."""
    each_case(
        {f"beta = {case.beta} and Z = {case.latent}": case for case in CASES},
        lambda case: _examine_training(function, case),
        "take beta from the argument, and all sizes from the tensors",
    )


def _examine_training(function: Callable, case: Case) -> None:
    batches, toy = _toy_batches(case), Toy(case)
    optimizer = torch.optim.SGD(toy.parameters(), RATE)
    handed: Iterator = iter(copy.deepcopy(batches))
    history = attempt(function, toy, handed, optimizer, case.beta, in_place=True)
    found, start = toy.numbers(), Toy(case).numbers()
    if torch.equal(found, start):
        raise Wrong(
            "the weights are as before: backward() computes gradients, then "
            "optimizer.step() uses them; zero_grad() comes after the step, or before "
            "backward()"
        )

    def right(output: ACTOutput, batch: dict[str, Tensor]) -> Tensor:
        return _loss(case, output, batch)[0]

    mistakes = {
        words: _trained(case, loss, batches)
        for words, loss in _wrong_losses(case).items()
    }
    mistakes |= {
        "gradients add up from step to step: zero_grad() is missing": _trained(
            case, right, batches, zero=False
        ),
        "only the first batch was trained on: does `return` stand inside the loop?": (
            _trained(case, right, batches[:1])
        ),
        "only the last batch was trained on: the step belongs inside the loop": (
            _trained(case, right, batches[-1:])
        ),
        "two steps are made for each batch": _trained(
            case, right, [one for one in batches for _ in range(2)]
        ),
    }
    if not is_right(found, _trained(case, right, batches), mistakes, atol=1e-5):
        raise Wrong(
            f"after {len(batches)} batches the weights differ from those of L1 + beta "
            "KL and gradient descent; compare each line with the formula"
        )
    _check_history(history, batches, case)


def _check_history(history: Any, batches: list, case: Case) -> None:
    if not isinstance(history, list | tuple | np.ndarray | Tensor):
        raise Wrong(f"a list of L1 is wanted, this is {type(history).__name__}")
    if any(isinstance(x, Tensor) and x.requires_grad for x in history):
        raise Wrong(
            "the history holds tensors with their graphs, which fill the memory; keep "
            "numbers: l1.item()"
        )
    shape = np.shape(numbers(history))
    if shape != (len(batches),):
        raise Wrong(
            f"the history should hold one number a step, ({len(batches)},) here; "
            f"found {shape}"
        )
    toy = Toy(case)
    optimizer = torch.optim.SGD(toy.parameters(), RATE)
    l1s, losses = [], []
    for batch, eps in batches:
        loss, l1 = _loss(case, toy(batch, eps), batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        l1s.append(float(l1))
        losses.append(float(loss.detach()))
    mistakes = {
        "the history should hold L1 alone; this is L1 + beta KL": np.array(losses)
    }
    if not is_right(numbers(history), l1s, mistakes, atol=1e-5):
        raise Wrong(
            f"the weights are right, the history is not: L1 of the first step is "
            f"{l1s[0]:.4f}, found {float(history[0]):.4f}"
        )
