"""Lesson 03: reparametrisation, the KL divergence, and which beta the ELBO asks for."""

import math
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..toolkit.checks import Wrong, attempt, each_case, exercise, is_right, numbers

SIZES = "take B and Z from the tensors' shapes"
TO_TORCH = "compute in torch all the way, without detach, item, float or NumPy"


def _one_number(answer: Any, otherwise: str = "") -> float:
    values = numbers(answer)
    if values.size != 1:
        raise Wrong(f"one number is wanted; yours has shape {values.shape}{otherwise}")
    return float(values.ravel()[0])


def _check_gradients(total: Any, wanted: Mapping[str, tuple[Tensor, Any]]) -> None:
    """`Wrong` unless `total` has the right gradient with respect to each input.

    `wanted` has each input by its name, with the gradient by the formula.
    """
    if not isinstance(total, Tensor) or not total.requires_grad:
        raise Wrong(
            f"the value is right, but it is a {type(total).__name__} without a "
            f"gradient, so training could not use it: {TO_TORCH}"
        )
    leaves = [leaf for leaf, _ in wanted.values()]
    found = torch.autograd.grad(total, leaves, allow_unused=True)
    for (name, (_, right)), gradient in zip(wanted.items(), found, strict=True):
        if gradient is None:
            raise Wrong(
                f"the value is right, but no gradient reaches {name}: {TO_TORCH}"
            )
        if not np.allclose(gradient.numpy(), right, rtol=1e-4, atol=1e-8):
            raise Wrong(
                f"the value is right, but the gradient with respect to {name} is not: "
                f"part of the formula is cut off from it. So {TO_TORCH}"
            )


@exercise(
    "03.sample",
    minutes=5,
    hints=(
        "eps has mean 0 and deviation 1. What makes its deviation sigma, its mean mu?",
        "logvar is the logarithm of sigma squared, so sigma = exp(logvar / 2).",
        "mu + (0.5 * logvar).exp() * eps.",
    ),
    praise="The noise comes from outside, so gradients reach mu and logvar.",
)
def check_sample(function: Callable) -> None:
    """`function(mu, logvar, eps)`, all (B, Z), gives z (B, Z)."""
    each_case(
        {"B, Z = 4, 2": (4, 2), "B, Z = 6, 5": (6, 5)},
        lambda shape: _examine_sample(function, shape),
        SIZES,
    )


def _examine_sample(function: Callable, shape: tuple[int, int]) -> None:
    random = torch.Generator().manual_seed(5)
    mu, logvar, eps = torch.randn(3, *shape, generator=random, dtype=torch.float64)
    leaves = mu.clone().requires_grad_(), logvar.clone().requires_grad_()
    answer = attempt(function, *leaves, eps.clone())
    found = numbers(answer)
    if found.shape != shape:
        raise Wrong(f"z should have shape {shape} as mu has; yours has {found.shape}")
    m, v, e = mu.numpy(), logvar.numpy(), eps.numpy()
    right = np.array(  # one number at a time, with sigma = sqrt(variance)
        [m[at] + math.sqrt(math.exp(v[at])) * e[at] for at in np.ndindex(shape)]
    ).reshape(shape)
    mistakes = {
        "exp(logvar) is the variance; the noise is scaled by its square root, sigma": m
        + np.exp(v) * e,
        "logvar is used as if it were sigma; sigma is exp(logvar / 2)": m + v * e,
        "logvar / 2 is the logarithm of sigma: take exp of it": m + 0.5 * v * e,
        "the sign of logvar is lost": m + np.exp(-0.5 * v) * e,
        "eps is not used: this is always the mean": m,
        "mu is missing: the noise is scaled but not moved": np.exp(0.5 * v) * e,
        "sigma is not used: the noise keeps deviation 1": m + e,
        "mu is scaled by sigma as well": np.exp(0.5 * v) * (m + e),
    }
    if is_right(found, right, mistakes):
        total = answer.sum() if isinstance(answer, Tensor) else answer
        sigma_by_logvar = 0.5 * np.exp(0.5 * v)
        by_hand = (leaves[0], np.ones(shape)), (leaves[1], sigma_by_logvar * e)
        _check_gradients(total, dict(zip(("mu", "logvar"), by_hand, strict=True)))
        return
    again = numbers(attempt(function, mu.clone(), logvar.clone(), eps.clone()))
    if not np.allclose(found, again, equal_nan=True):
        raise Wrong("two calls differ: use the eps that is given, draw no other noise")
    raise Wrong(
        f"for mu = {m[0, 0]:.2f}, logvar = {v[0, 0]:.2f}, eps = {e[0, 0]:.2f} expected "
        f"{right[0, 0]:.3f}, found {found[0, 0]:.3f}"
    )


def _kl_by_integration(mu: float, logvar: float) -> float:
    """KL in nats from its definition, the integral of q log(q / p)."""
    sigma = math.exp(0.5 * logvar)
    z = np.linspace(mu - 12 * sigma, mu + 12 * sigma, 4001)
    log_q = -0.5 * ((z - mu) / sigma) ** 2 - math.log(sigma)
    log_p = -0.5 * z**2  # both without log sqrt(2 pi), which cancels
    q = np.exp(log_q) / math.sqrt(2 * math.pi)
    return float((q * (log_q - log_p)).sum() * (z[1] - z[0]))


@exercise(
    "03.kl",
    minutes=8,
    hints=(
        "First one dimension: what is the KL where mu = 0 and logvar = 0?",
        "Each dimension gives 0.5 * (mu ** 2 + exp(logvar) - 1 - logvar).",
        "Sum that over the last axis (Z), then average over the batch.",
    ),
    praise="In nats, summed over the latent dimensions, averaged over the batch.",
)
def check_kl(function: Callable) -> None:
    """`function(mu, logvar)`, both (B, Z), gives a number: sum over Z, mean over B."""
    each_case(
        {"B, Z = 5, 3": (5, 3), "B, Z = 7, 6": (7, 6)},
        lambda shape: _examine_kl(function, shape),
        SIZES,
    )


def _examine_kl(function: Callable, shape: tuple[int, int]) -> None:
    random = torch.Generator().manual_seed(6)
    mu, logvar = torch.randn(2, *shape, generator=random, dtype=torch.float64)
    leaves = mu.clone().requires_grad_(), logvar.clone().requires_grad_()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's, about float(): we say it below
        answer = attempt(function, *leaves)
    advice = ". Sum over the dimensions of z, then average over the batch"
    found = _one_number(answer, advice)
    m, v = mu.numpy(), logvar.numpy()
    each = np.vectorize(_kl_by_integration)(m, v)
    right = each.sum(1).mean()

    def total(each: np.ndarray) -> float:
        return 0.5 * each.sum(1).mean()

    mistakes = {
        "the sign is reversed: a KL is never negative": -right,
        "this averages over the dimensions of z too; sum over them. With Z dimensions "
        "that makes the KL Z times smaller": each.mean(),
        "this sums over the batch; average over it": each.sum(),
        "the axes have changed places: sum over Z, the last axis, and average over "
        "the batch, the first": each.sum(0).mean(),
        "the factor 1/2 is missing": 2 * right,
        "logvar and exp(logvar) have changed places": total(m**2 + v - 1 - np.exp(v)),
        "exp(logvar) is the variance; here stands the deviation sigma": total(
            m**2 + np.exp(0.5 * v) - 1 - v
        ),
        "mu is not squared": total(m + np.exp(v) - 1 - v),
        "the -1 of each dimension is missing: the KL of prior and prior is 0": right
        + shape[1] / 2,
        "the term -logvar is missing, so a narrow posterior would be free": total(
            m**2 + np.exp(v) - 1
        ),
    }
    if not is_right(found, right, mistakes, rtol=1e-4):
        raise Wrong(f"expected {right:.4f} nats, found {found:.4f}")
    by_hand = (leaves[0], m / len(m)), (leaves[1], 0.5 * (np.exp(v) - 1) / len(v))
    _check_gradients(answer, dict(zip(("mu", "logvar"), by_hand, strict=True)))


@exercise(
    "03.beta",
    minutes=6,
    hints=(
        "The likelihood adds up k times A errors; the package's loss averages them.",
        "The sum is k * A * l1 / b + KL. Divide by what stands before l1.",
        "beta = b / (k * A), and the best b is the mean error itself.",
    ),
    praise="An average over many numbers makes the same KL weigh much more.",
)
def check_beta(function: Callable) -> None:
    """`function(l1, k, joints)` gives the beta at which the loss is an ELBO."""
    cases = ((0.1, 50, 6), (0.2, 25, 7), (0.05, 100, 14))
    each_case(
        {f"l1 = {b}, k = {k} and {a} joints": (b, k, a) for b, k, a in cases},
        lambda case: _examine_beta(function, *case),
        "take all three from the arguments",
    )


def _examine_beta(function: Callable, b: float, k: int, a: int) -> None:
    found = _one_number(attempt(function, b, k, a))
    # By the definition: scale the ELBO until one mean L1 counts once.
    right = 1.0 / sum(1.0 / b for _ in range(k * a))
    mistakes = {
        "this is upside down: a long chunk makes beta small": k * a / b,
        "the number of joints is missing: each tick has A numbers": b / k,
        "the chunk size is missing: each joint has k numbers": b / a,
        "b is missing: the smaller the error, the more a mistake costs": 1 / (k * a),
        "multiplied where it should be divided": b * k * a,
        "divided by b where it should be multiplied": 1 / (k * a * b),
    }
    if not is_right(found, right, mistakes):
        raise Wrong(
            f"for l1 = {b}, k = {k} and {a} joints expected {right:.2g}, "
            f"found {found:.2g}"
        )
