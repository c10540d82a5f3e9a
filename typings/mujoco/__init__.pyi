# MuJoCo 4 ships no type stubs beside its compiled modules; without this file the type
# checker believes that `mujoco.MjModel` and its like do not exist.
from typing import Any

def __getattr__(name: str) -> Any: ...
