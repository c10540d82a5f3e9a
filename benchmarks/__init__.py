"""Scripts behind the numbers in data/results: `python -m benchmarks.simulation` etc."""
