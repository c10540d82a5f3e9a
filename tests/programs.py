"""Programs that tests start: run to their end, or killed in the middle."""

import os
import subprocess
import sys
import time
from collections.abc import Callable


def python(*words: object, **environment: str) -> subprocess.CompletedProcess:
    """`python WORDS`, with what it said."""
    return subprocess.run(
        [sys.executable, *map(str, words)],
        env=os.environ | environment,
        capture_output=True,
        encoding="utf-8",
        timeout=900,
    )


def kill(*words: object, ready: Callable[[], bool] | None = None, delay=0.0) -> None:
    """Start `python WORDS`, and kill -9 it when it says "ready", or `ready()` is so."""
    command, pipe = [sys.executable, *map(str, words)], subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as child:
        try:
            if ready is None:
                assert child.stdout is not None
                assert child.stdout.readline() == "ready\n"
            until = time.monotonic() + 600
            while ready is not None and not ready() and time.monotonic() < until:
                assert child.poll() is None, "ended before it could be killed"
                time.sleep(0.002)
            time.sleep(delay)
        finally:
            child.kill()
