"""C18: learning rates over four decades, the same number of updates.

uv run python -m benchmarks.claims.c18_rate --jobs 2
"""

from collections.abc import Iterator

import tyro

from benchmarks.claims.variants import Settings, job, run
from benchmarks.rollouts import Job

RATES = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2)


def jobs(settings: Settings) -> Iterator[Job]:
    """Every rate with every seed; warm-up and cosine as in all our runs."""
    for lr in RATES:
        for seed in settings.seeds:
            yield job(f"c18_{lr:g}", seed, settings, {"lr": lr}, lr=lr)


def main(settings: Settings) -> None:
    """Train, roll out, and write data/results/claims/C18.json."""
    about = {
        "claim": "A learning rate of 1e-5 is right; 1e-4 is unstable, 1e-6 too slow.",
        "published": "A tuning guide, for the paper's network and a batch of 8.",
    }
    run("C18", jobs(settings), settings, about)


if __name__ == "__main__":
    main(tyro.cli(Settings))
