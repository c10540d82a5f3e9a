"""Measure a claim about ACT, and write data/results/claims/<claim>.json.

    uv run python -m benchmarks.claims               # lists the claims
    uv run python -m benchmarks.claims C18 --help    # what can be changed
    uv run python -m benchmarks.claims C18 --jobs 2

Runs are kept in --runs and found again: a call that was stopped goes on.
"""

import sys

import tyro

from act_minimal.support.errors import UserError

from .claim import Claim
from .registry import MEASURED


def find(number: str) -> Claim:
    """A claim by its number, in capitals or not.

    Raises:
        UserError: there is none that can be measured; lists those that can.
    """
    known = {claim.number.lower(): claim for claim in MEASURED}
    if number.lower() not in known:
        numbers = ", ".join(claim.number for claim in MEASURED)
        raise UserError(f"no measurement of '{number}'; there are: {numbers}")
    return known[number.lower()]


def main(words: list[str]) -> None:
    """Measure the claim that the first word names; without one, list all."""
    if not words or words[0] in ("-h", "--help"):
        print(__doc__)
        for claim in MEASURED:
            print(f"{claim.number:9}{claim.text}")
        return
    try:
        claim = find(words[0])
        program = f"python -m benchmarks.claims {claim.number}"
        if claim.settings is None:

            def run() -> None:
                claim.run()

            tyro.cli(run, prog=program, description=claim.text, args=words[1:])
        else:
            settings = tyro.cli(
                type(claim.settings),
                prog=program,
                description=claim.text,
                default=claim.settings,
                args=words[1:],
            )
            claim.run(settings)
    except UserError as error:
        raise SystemExit(f"error: {error}") from None


if __name__ == "__main__":
    main(sys.argv[1:])
