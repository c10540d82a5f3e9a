"""Checks of how a policy was trained: its settings, its log, its latent."""

from collections.abc import Iterator

import numpy as np

from .evidence import Evidence
from .findings import Finding, Level, Outcome, Passed, Skipped
from .policy_checks import FITS

EPOCHS = 8.0  # times that training should see each frame at least
UNSEEN = 6.0  # error on held-out episodes over that on the others
OVER = 1.25  # validation loss at the end over its least
RATES = 10.0  # of two learning rates
LATENT = 1.5  # loss with z = 0 over that with the posterior's z
LONG = 0.7  # of an episode


def updates(e: Evidence) -> Iterator[Outcome]:
    """Was it trained for long enough?"""
    steps = e.policy.card.get("steps") or e.settings.get("steps")
    if not steps:
        yield Skipped("too_few_updates", "neither card nor log says how many updates")
        return
    level: Level
    said = f"{steps} updates"
    epochs = None
    if batch := e.settings.get("batch_size"):
        epochs = steps * batch / max(1, len(e.demos.action))
        said += f", each frame seen about {epochs:.1f} times"
    said += (
        f"; error {e.train_error:.2f} on what it was trained on (1: the mean action)"
    )
    short = epochs is not None and epochs < EPOCHS
    if short and e.train_error > FITS:
        level, rank = "wrong", e.train_error / FITS
    elif epochs is not None and epochs < EPOCHS / 2:
        level, rank = "suspect", EPOCHS / 2 / epochs
    else:
        yield Passed("too_few_updates", said)
        return
    yield Finding(
        "too_few_updates",
        level,
        rank,
        said,
        f"an error below {FITS}, and each frame at least {EPOCHS / 2:g} times",
        "likely" if level == "wrong" else "possible",
        "act train with more --steps (the rate's schedule needs a new --out)",
    )


def rates(e: Evidence) -> Iterator[Outcome]:
    """Are the learning rates in proportion?"""
    if not e.settings:
        yield Skipped("learning_rate", "no settings of the training run")
        return
    lr = e.settings.get("lr") or 0.0
    backbone = e.settings.get("backbone_lr")
    backbone = lr if backbone is None else backbone
    said = f"learning rate {lr:g}, of the backbone {backbone:g}"
    if e.policy.cameras and lr and backbone / lr > RATES:
        yield Finding(
            "learning_rate",
            "wrong",
            backbone / lr / RATES,
            said,
            f"the backbone's at most {RATES:g} x the other: the paper's is 1e-5 for "
            "both, and a tenth is usual for a pretrained one",
            "likely",
            f"act train again with --backbone-lr {lr:g}",
        )
    else:
        yield Passed("learning_rate", said)


def validation(e: Evidence) -> Iterator[Outcome]:
    """Did the loss on held-out episodes rise again, or is it much higher?"""
    if e.held_out_error is not None:
        apart = e.held_out_error / e.train_error
        said = (
            f"error {e.held_out_error:.2f} on episodes that training did not see, "
            f"{e.train_error:.2f} on those that it saw"
        )
        if apart > UNSEEN:
            yield Finding(
                "overfitted",
                "note",
                apart / UNSEEN,
                said,
                f"less than {UNSEEN:g} x; a state policy of 45 demonstrations that "
                "succeeds in 93 of 100 has 3.5",
                "possible",
                "more demonstrations (C22); success says whether it matters",
            )
        else:
            yield Passed("overfitted", said)
    curve = [(r["step"], r["val_l1"]) for r in e.log if "val_l1" in r]
    if len(curve) < 4:
        yield Skipped("overfitted", "fewer than four validations in the log")
        return
    least = min(curve, key=lambda x: x[1])
    ratio = curve[-1][1] / least[1]
    said = f"validation L1 {curve[-1][1]:.3f} at the end, {least[1]:.3f} at {least[0]}"
    if ratio > OVER:
        yield Finding(
            "overfitted",
            "suspect",
            ratio / OVER,
            said,
            f"less than {OVER} x; success often rises on while the validation loss "
            "does (C19), so this alone is no cause",
            "possible",
            "roll the checkpoints out: act eval --policy RUN/checkpoints/STEP; more "
            "demonstrations help more than fewer updates",
        )
    else:
        yield Passed("overfitted", said)


def latent(e: Evidence) -> Iterator[Outcome]:
    """Does the decoder need the z that only training gives it?"""
    if not e.policy.latent_dim:
        yield Skipped("leans_on_z", "the policy has no latent")
        return
    with_z = e.posterior_loss
    assert with_z is not None
    ratio = e.loss / with_z
    said = (
        f"L1 {e.loss:.3f} with z = 0, {with_z:.3f} with the z of training, which has "
        "seen the actions"
    )
    if ratio > LATENT:
        weight = getattr(e.policy.config, "kl_weight", None)
        yield Finding(
            "leans_on_z",
            "wrong" if ratio > 2 * LATENT else "suspect",
            ratio / LATENT,
            f"{said}; kl_weight is {weight}",
            f"less than {LATENT} x: policies that work have 1.0 to 1.2",
            "certain",
            "act train with --model kl_weight 1, or use_cvae False",
        )
    else:
        yield Passed("leans_on_z", said)


def chunk(e: Evidence) -> Iterator[Outcome]:
    """Is there anything left of an episode after a chunk?"""
    k, length = e.policy.chunk_size, float(np.median(e.demos.lengths))
    share = k / length
    by_index = np.nanmean(e.errors, axis=(0, 2))  # (k,)
    said = (
        f"k = {k}, episodes of {length:.0f} frames; error {by_index[0]:.2f} at the "
        f"first action of a chunk, {by_index[-1]:.2f} at the last"
    )
    if share > LONG:
        yield Finding(
            "chunk_length",
            "suspect" if share > 0.9 else "note",
            share / LONG,
            said,
            f"at most {LONG} of an episode; about a second works best (C2). In a scene "
            "that nobody disturbs such a policy may succeed all the same",
            "possible",
            f"act train with --chunk-size {max(1, round(e.demos.fps))}",
        )
    else:
        yield Passed("chunk_length", said)


CHECKS = (updates, rates, validation, latent, chunk)
