"""`act`, and `python -m act_minimal`: Ctrl-C ends it quietly from the start."""

import sys


def main() -> None:
    """Run the `act` command; see `act_minimal.command.main`."""
    try:
        from .command import main as cli
    except KeyboardInterrupt:
        sys.exit(130)
    cli.main()


if __name__ == "__main__":
    main()
