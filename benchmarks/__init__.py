"""Scripts behind the numbers in data/results: run them with `python -m benchmarks.x`."""
