"""C7: z = 0 at test, or z drawn from the prior for every chunk.

    uv run python -m benchmarks.claims.c07_prior --jobs 2

The policies of C6, found again (or trained), on the same scenes: whatever differs is
z. Rows with z = zero are C6's.
"""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import tyro

from act_minimal.course.latent import sampled
from act_minimal.evaluation import evaluate
from act_minimal.policy import load_policy
from benchmarks.claims import c06_beta
from benchmarks.claims.c06_beta import LABELS, Settings, with_means
from benchmarks.results import write
from benchmarks.rollouts import HALF, Job, pooled, rows_of


def run(job: Job, runs: Path) -> list[dict[str, Any]]:
    """C6's row, and one with z drawn."""
    [row] = c06_beta.run(job, runs)
    drawn = sampled(load_policy(runs / job.name), seed=job.seed)
    result = evaluate(
        drawn,
        execution=HALF,
        n=job.n,
        seed=job.seed,
        out=runs / job.name / "rows_c07" / "drawn",
        threads=1,
        progress=False,
    )
    print(job.name, "z drawn", result, flush=True)
    other = row | {"z": "drawn", "execute": asdict(HALF)} | result.to_json()
    other.pop("job_seconds", None)
    return [row, other]


def main(settings: Settings) -> None:
    """Roll out, and write data/results/claims/C07.json."""
    jobs = c06_beta.jobs(settings)
    todo = [job for job in jobs if job.labels["kl_weight"] != "none"]
    rows = rows_of(todo, settings.runs, settings.jobs, run)
    write(
        "claims/C07",
        sum(row["seconds"] for row in rows if row["z"] == "drawn"),
        {
            "claim": "At test time z = 0, or a sample of the prior.",
            "published": "Zhao et al.: z = 0; one article samples.",
            "task": "so100_pick_place",
            "seeds": settings.seeds,
            "summary": with_means(pooled(rows, LABELS), rows),
            "runs": rows,
        },
    )


if __name__ == "__main__":
    main(tyro.cli(Settings))
