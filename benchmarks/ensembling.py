"""What temporal ensembling costs: one tick, at the paper's chunk of 100.

uv run python -m benchmarks.ensembling
"""

import time

import numpy as np

from act_minimal.execution import TemporalEnsemble

from .results import write

CHUNK, TICKS, ROUNDS = 100, 400, 7


def seconds_per_tick(n: int, actions: int) -> list[float]:
    """Sorted times of one tick, one for each round of TICKS ticks."""
    rng = np.random.default_rng(0)
    chunks = rng.normal(size=(16, n, CHUNK, actions)).astype(np.float32)
    executor = TemporalEnsemble(CHUNK, m=0.01)
    times = []
    for _ in range(ROUNDS):
        executor.reset()
        start = time.perf_counter()
        for t in range(TICKS):
            executor.step(chunks[t % 16])
        times.append((time.perf_counter() - start) / TICKS)
    return sorted(times)


def main() -> None:
    """Measure and write data/results/ensembling.json."""
    start = time.perf_counter()
    results = []
    for n, actions in ((1, 6), (1, 14), (50, 6), (50, 14)):
        milliseconds = [round(1e3 * t, 4) for t in seconds_per_tick(n, actions)]
        results.append(
            {
                "scenes": n,
                "actions": actions,
                "chunk_size": CHUNK,
                "ms_per_tick_median": milliseconds[ROUNDS // 2],
                "ms_per_tick_min": milliseconds[0],
                "ms_per_tick_max": milliseconds[-1],
            }
        )
    content = {"n": ROUNDS * TICKS, "seeds": [0], "results": results}
    write("ensembling", time.perf_counter() - start, content)


if __name__ == "__main__":
    main()
