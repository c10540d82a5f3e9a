"""`act` in tests: in this process, or as a program of its own."""

import contextlib
import io
import os
import subprocess
import sys

import pytest

from act_minimal.command import main as cli

PROGRAM = (sys.executable, "-m", "act_minimal.command.main")


def act(*words):
    """Run `act` and words, split at spaces, in this process: (exit code, out, err)."""
    out, err = io.StringIO(), io.StringIO()
    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        pytest.raises(SystemExit) as end,
    ):
        cli.main(" ".join(map(str, words)).split())
    return end.value.code, out.getvalue(), err.getvalue()


def run_program(folder, line, **options):
    """Run `act` and a line of words in a folder, to its end."""
    return subprocess.run(
        [*PROGRAM, *line.split()],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        **{"timeout": 900, "stdin": subprocess.DEVNULL} | options,
    )


def start_program(folder, line, **options):
    """Start `act` and a line of words in a folder."""
    return subprocess.Popen(
        [*PROGRAM, *line.split()],
        cwd=folder,
        text=True,
        **{"stdout": subprocess.PIPE} | options,
    )


def typed_at(terminal, process, answers):
    """Types, or calls, each answer when its question has come; returns all output."""
    said, waiting = "", list(answers)
    while True:
        try:
            said += os.read(terminal, 4096).decode(errors="replace")
        except OSError:  # the program has ended
            process.wait()
            return said
        if waiting and waiting[0][0] in said:
            answer = waiting.pop(0)[1]
            answer() if callable(answer) else os.write(terminal, answer)
