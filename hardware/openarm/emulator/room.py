"""A virtual OpenArm in a process of its own, and its room.

The room is asked as the SO-100's is: `Room(port).look()`, `.put(state)`, `.lay(scene)`,
`.faults(right={"silent": 4})`, `.ask(power={"left": False})`.
"""

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

from act_minimal.errors import UserError

from ...so100.emulator.door import room_path
from ...so100.emulator.room import Room
from .service import GREETING, VirtualOpenArmConfig


class VirtualOpenArmProcess:
    """A virtual OpenArm in another process, for as long as the `with` block lasts.

    Args:
        config: which, and where; its buses have to reach across processes.

    Raises:
        UserError: it did not start; with what it said.
    """

    def __init__(self, config: VirtualOpenArmConfig):
        self.config = config
        self.port = str(config.port)

    def __enter__(self) -> "VirtualOpenArmProcess":
        code = (
            "import json, sys; from pathlib import Path; "
            "from hardware.openarm.emulator.service import VirtualOpenArmConfig, serve;"
            "c = json.loads(sys.argv[1]); c['port'] = Path(c['port']); "
            "serve(VirtualOpenArmConfig(**c))"
        )
        content = json.dumps(asdict(self.config) | {"port": self.port})
        self._process = subprocess.Popen(
            [sys.executable, "-c", code, content],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        assert self._process.stdout
        said = ""
        for line in self._process.stdout:  # ends when the process does
            if line.startswith(GREETING):
                self.room = Room(self.port)
                return self
            said += line
        self._process.wait()
        self._process.stdout.close()
        raise UserError(f"the virtual OpenArm did not start: {said.strip()}")

    def __exit__(self, *_: object) -> None:
        self.room.close()
        self._process.terminate()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout:
            self._process.stdout.close()
        # Ended by a signal, it could not clean up itself.
        Path(self.port).unlink(missing_ok=True)
        room_path(Path(self.port)).unlink(missing_ok=True)


__all__ = ["Room", "VirtualOpenArmProcess"]
