"""`act`, and `python -m act_minimal`: Ctrl-C ends it quietly from the start."""

import sys


def main() -> None:
    """Run the `act` command; see `act_minimal.cli`."""
    try:
        from act_minimal import cli
    except KeyboardInterrupt:
        sys.exit(130)
    cli.main()


if __name__ == "__main__":
    main()
