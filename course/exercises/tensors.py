"""What checks of answers made of tensors share: values, shapes, gradients."""

from typing import Any

import torch
from torch import Tensor, nn

from ..figures.lesson_05_parts import Weights
from ..toolkit.checks import Wrong, is_right

CLOSE = {"atol": 1e-3}


def tensor(
    answer: Any, shape: tuple[int, ...], remark: str, *, of_any_kind: bool = False
) -> Tensor:
    """The learner's answer as float64, if it is a tensor of the right shape and type.

    `of_any_kind`: an array, or numbers of another type, will do.
    """
    if not (of_any_kind or isinstance(answer, Tensor)):
        raise Wrong(
            f"a tensor is wanted, this is {type(answer).__name__}: stay with torch, so "
            "that the gradient does not end here"
        )
    try:
        found = torch.as_tensor(answer).detach()
    except Exception:
        raise Wrong(f"a tensor is wanted, this is {type(answer).__name__}") from None
    if tuple(found.shape) != shape:
        raise Wrong(f"expected shape {shape}, found {tuple(found.shape)}: {remark}")
    if not (of_any_kind or found.dtype == torch.float32):
        raise Wrong(
            "a tensor of float32 is wanted, as the inputs and weights are; yours is "
            f"of {str(found.dtype).removeprefix('torch.')}, which other layers refuse"
        )
    return found.double()


def draw(*shape: int, seed: int) -> Tensor:
    """Random numbers that a gradient can reach."""
    drawn = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return drawn.requires_grad_()


def weights_of(network: nn.Module) -> Weights:
    """A network's weights by name, with their gradients."""
    return Weights(dict(network.named_parameters()))


def same_gradients(found: Any, right: Any, leaves: dict[str, Tensor]) -> None:
    """Compare the gradients of an answer that has the right values already."""
    found, right = (x if isinstance(x, tuple | list) else (x,) for x in (found, right))
    mixed = [draw(*x.shape, seed=20).detach() for x in right]

    def of(answer: Any) -> tuple[Tensor | None, ...]:
        total = sum((x * m).sum() for x, m in zip(answer, mixed, strict=True))
        assert isinstance(total, Tensor)
        if not total.requires_grad:
            return (None,) * len(leaves)
        return torch.autograd.grad(total, list(leaves.values()), allow_unused=True)

    try:
        own = of(found)
    except RuntimeError as error:
        raise Wrong(
            f"no gradient can be computed: {str(error).partition(':')[0]}. Write "
            "x = x + ..., which leaves the old x alone"
        ) from None
    for name, a, b in zip(leaves, own, of(right), strict=True):
        a, b = (torch.zeros(()) if g is None else g for g in (a, b))
        if not torch.allclose(a, b, rtol=1e-3, atol=1e-4):
            raise Wrong(
                f"the numbers are right, but the gradient with respect to {name} is "
                "not: something (detach, .data, no_grad, NumPy) cuts it off, and the "
                "network could not learn through it"
            )


def agrees(found: Any, right: Any, mistakes: dict[str, Any]) -> bool:
    """`checks.is_right` for values that may have gradients."""
    values = {words: _values(value) for words, value in mistakes.items()}
    return is_right(_values(found), _values(right), values, **CLOSE)


def _values(x: Any) -> Any:
    return tuple(map(_values, x)) if isinstance(x, tuple) else x.detach()
