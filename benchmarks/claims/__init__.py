"""Claims about ACT, measured: `uv run python -m benchmarks.claims`."""
