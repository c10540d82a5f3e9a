"""C8: L1 or L2, absolute targets or deltas, for ACT with k = 25.

uv run python -m benchmarks.claims.c08_loss_target --jobs 2
"""

from collections.abc import Iterator

import tyro

from benchmarks.claims.variants import Settings, job, run
from benchmarks.rollouts import Job


def jobs(settings: Settings) -> Iterator[Job]:
    """Both losses with both targets; a delta is relative to the joints as k begins."""
    for loss in ("l1", "l2"):
        for target in ("absolute", "delta"):
            for seed in settings.seeds:
                yield job(
                    f"c08_{loss}_{target}",
                    seed,
                    settings,
                    {"loss": loss, "target": target},
                    model={"loss": loss},
                    action_target=target,
                )


def main(settings: Settings) -> None:
    """Train, roll out, and write data/results/claims/C08.json."""
    about = {
        "claim": "L1 beats L2, and absolute joint targets beat deltas.",
        "published": "The paper's choice and its remark on its own trials; no table.",
    }
    run("C08", jobs(settings), settings, about)


if __name__ == "__main__":
    main(tyro.cli(Settings))
