"""One script a claim: `uv run python -m benchmarks.claims.c01_drift`."""
