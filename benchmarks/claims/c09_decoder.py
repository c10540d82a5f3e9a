"""C9: one decoder layer, seven of which the first is used (the original), seven.

uv run python -m benchmarks.claims.c09_decoder --jobs 2

Training time is a result, too: all policies train on one thread, `--jobs` at a time.
"""

from collections.abc import Iterator

import tyro

from benchmarks.claims.variants import Settings, job, run
from benchmarks.rollouts import Job

VARIANTS = ((1, "last"), (7, "first"), (7, "last"))


def jobs(settings: Settings) -> Iterator[Job]:
    """Every decoder with every seed."""
    # Seed by seed, so that all variants meet the same load of the machine.
    for seed in settings.seeds:
        for layers, output in VARIANTS:
            yield job(
                f"c09_{layers}_{output}",
                seed,
                settings,
                {"layers": layers, "output": output},
                model={"decoder_layers": layers, "decoder_output": output},
            )


def main(settings: Settings) -> None:
    """Train, roll out, and write data/results/claims/C09.json."""
    about = {
        "claim": "ACT has seven decoder layers.",
        "published": "The paper's table says seven; the original code returns the "
        "first one's output, and LeRobot builds one.",
    }
    run("C09", jobs(settings), settings, about)


if __name__ == "__main__":
    main(tyro.cli(Settings))
