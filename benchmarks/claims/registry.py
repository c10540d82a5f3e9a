"""Every claim: those of docs/results.md, and those that can be measured."""

from . import (
    changes,
    checkpoints,
    chunk_size,
    drift,
    gripper,
    last_action,
    latent,
    normalisation,
    pauses,
    push,
    rule,
    speed,
    tables,
    two_arms,
    two_modes,
    variants,
)

# On the page, in this order.
CLAIMS = (
    drift.C1,
    chunk_size.C2,
    chunk_size.C3,
    chunk_size.C4,
    chunk_size.C5,
    latent.C6,
    latent.C7,
    variants.C8,
    variants.C9,
    variants.C10,
    rule.C11,
    pauses.C12,
    last_action.C13,
    push.C14,
    two_modes.C15,
    gripper.C16,
    speed.C17,
    variants.C18,
    checkpoints.C19,
    normalisation.C20,
    changes.C21,
    variants.C22,
    tables.C25,
    two_arms.C28,
)
# The last two are quoted by a lesson only.
MEASURED = (*(claim for claim in CLAIMS if claim.measure), changes.C27)
MEASURED += (chunk_size.ABLATION,)
