"""Scripts behind the numbers in data/results: `python -m benchmarks.simulation` etc."""

from act_minimal.support.console import prepare_output

prepare_output()  # their tables print anywhere, too
