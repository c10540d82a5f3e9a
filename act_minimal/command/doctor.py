"""What this machine has, what is missing, and the exact line that installs it.

Nothing is installed, moved or switched on. Only *missing* stops ``act demo``. A
*warning* is something that will fail or be slow later (a serial port that may not be
opened, a nearly full disk), and *info* is a fact, or something optional.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ..support import extras, gl
from ..support.console import make_console
from ..support.plugins import plugin
from ..support.results import Result
from . import devices

if TYPE_CHECKING:
    from rich.console import Console

Status = Literal["ok", "missing", "warning", "info"]

SLOW_FRAME_MS = 10.0  # a 96 x 128 frame takes below 1 ms in software on a laptop
DEMO_DISK_GB = 1.0  # what `act demo` writes, with room to spare
VISION_DISK_GB = 10.0  # 200 demonstrations with two cameras, and their cache
DEMO_MEMORY_GB = 2.0  # PyTorch, the dataset in memory and ten scenes


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        status: "missing" stops ``act demo``; "warning" stops something else or makes
            it slow; "ok" and "info" stop nothing.
        fix: The line to type, or one sentence where no line would do; "" if nothing
            is to be mended.
    """

    name: str
    status: Status
    found: str
    fix: str = ""


def diagnose() -> list[Check]:
    """Look at everything, in the order in which it matters.

    Takes about three seconds, most of it importing PyTorch and MuJoCo. A check that
    fails in an unforeseen way becomes a warning: nothing keeps it from ending.
    """
    looks: tuple[Callable[[], Check | list[Check]], ...] = (
        check_python,
        check_system,
        check_disk,
        check_packages,
        check_torch,
        check_drawing,
        check_display,
        check_ffmpeg,
        check_cameras,
        check_serial_ports,
        check_can,
        check_browser,
        check_uv,
    )
    checks: list[Check] = []
    for look in looks:
        try:
            found = look()
        except Exception as error:
            name = look.__name__.removeprefix("check_").replace("_", " ")
            said = str(error) or type(error).__name__
            found = Check(name, "warning", f"could not be looked at: {said}")
        checks += found if isinstance(found, list) else [found]
    return checks


def is_ready(checks: list[Check]) -> bool:
    """Whether everything that ``act demo`` needs is here (exit code 0, else 1)."""
    return all(check.status != "missing" for check in checks)


def result(checks: list[Check]) -> Result:
    """The findings: {"ready": bool, "checks": [{...}, ...]}, or a table with fixes."""
    ready = is_ready(checks)
    content = {"ready": ready, "checks": [asdict(check) for check in checks]}
    console = make_console()
    with console.capture() as said:
        render(checks, console)
    return Result(content, said.get().removesuffix("\n"), code=0 if ready else 1)


def render(checks: list[Check], console: Console) -> None:
    """Print a table, then each line that mends something, unbroken, ready to copy."""
    from rich.markup import escape
    from rich.table import Table

    look = {"ok": "green", "missing": "bold red", "warning": "yellow", "info": "dim"}
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for check in checks:
        mark = f"[{look[check.status]}]{check.status}[/]"
        table.add_row(mark, escape(check.name), escape(check.found))
    console.print(table)
    fixes = [check for check in checks if check.fix]
    if fixes:
        console.print("\nTo mend or add:")
    for check in fixes:
        line = f"  {check.name}: {check.fix}"
        console.print(line, soft_wrap=True, markup=False, highlight=False)
    missing = [check.name for check in checks if check.status == "missing"]
    console.print()
    if missing:
        console.print(f"Missing for `act demo`: {', '.join(missing)}.", markup=False)
    else:
        console.print("Everything that `act demo` needs is here: uv run act demo")


def check_python() -> Check:
    """Python itself."""
    found = f"{platform.python_version()} at {sys.executable}"
    if sys.version_info < (3, 11):  # noqa: UP036  an old Python may run this file
        return Check("python", "missing", found, "uv python install 3.12")
    return Check("python", "ok", found)


def check_system() -> list[Check]:
    """Operating system, cores and memory."""
    import psutil

    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count()
    memory = psutil.virtual_memory()
    total, free = memory.total / 2**30, memory.available / 2**30
    enough = free >= DEMO_MEMORY_GB
    return [
        Check("system", "info", f"{platform.platform()}, {platform.machine()}"),
        Check("cores", "info", f"{cores}"),
        Check(
            "memory",
            "ok" if enough else "warning",
            f"{free:.1f} of {total:.1f} GB free",
            "" if enough else f"close programs: `act demo` wants {DEMO_MEMORY_GB} GB",
        ),
    ]


def check_disk(folder: Path | None = None) -> Check:
    """Room for demonstrations and runs, where the user stands."""
    folder = folder or Path.cwd()
    free = shutil.disk_usage(folder).free / 2**30
    found = f"{free:.1f} GB free in {folder}"
    if free < DEMO_DISK_GB:
        fix = f"free at least {DEMO_DISK_GB} GB, or choose another disk with --out"
        return Check("disk", "missing", found, fix)
    if free < VISION_DISK_GB:
        fix = f"`act demo --vision` wants {VISION_DISK_GB} GB; choose a disk with --out"
        return Check("disk", "warning", found, fix)
    return Check("disk", "ok", found)


def check_packages(constraints: Path | None = None) -> list[Check]:
    """Installed versions against the ranges asked for and the known-good versions.

    `act demo` needs the package's own libraries and the simulator's; those of other
    extras may be missing. The known-good are by default the repository's.
    """
    asked = {one.name: one for one in extras.requirements()}
    extra_of: dict[str, extras.Extra] = {}
    for extra in extras.MODULES:  # the first that has it: course has sim's, too
        for one in extras.requirements(extra):
            asked.setdefault(one.name, one)
            extra_of.setdefault(one.name, extra)
    constraints = constraints or Path(__file__).parents[2] / "constraints.txt"
    known_good = read_constraints(constraints) if constraints.exists() else {}
    checks, as_known, others = [], [], []
    lacking: dict[extras.Extra, list[str]] = {}
    for requirement in asked.values():
        extra = extra_of.get(requirement.name)
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            if extra:
                lacking.setdefault(extra, []).append(requirement.name)
                continue
            fix = extras.install_line()
            checks.append(Check(requirement.name, "missing", "not installed", fix))
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            found = f"{version}, but {requirement.specifier} is needed"
            fix = extras.upgrade_line(requirement)
            stops: Status = "missing" if extra in (None, "sim") else "warning"
            checks.append(Check(requirement.name, stops, found, fix))
        elif known_good.get(requirement.name) not in (None, version.split("+")[0]):
            others.append(f"{requirement.name} {version}")
        else:
            as_known.append(f"{requirement.name} {version}")
    if as_known:
        checks.insert(0, Check("packages", "ok", ", ".join(as_known)))
    if others:
        found = f"{', '.join(others)} (in range; constraints.txt names other versions)"
        checks.append(Check("other versions", "info", found))
    for extra, names in lacking.items():
        status: Status = "missing" if extra == "sim" else "info"  # of `act demo`
        found = f"not installed: {', '.join(names)}"
        fix = extras.install_line(extra)
        checks.append(Check(f"extra {extra}", status, found, fix))
    return checks


def read_constraints(path: Path) -> dict[str, str]:
    """Read ``name==version`` lines into {name: version}."""
    lines = (
        line.split("#")[0].strip()
        for line in path.read_text(encoding="utf-8").splitlines()
    )
    pairs = (line.split("==") for line in lines if line)
    return {name.strip(): version.strip() for name, version in pairs}


def check_torch() -> Check:
    """The device that trains: CUDA, Apple's GPU, or the processor."""
    import torch

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        has_cuda = torch.cuda.is_available()
    if has_cuda:
        gpu = torch.cuda.get_device_properties(0)
        more = torch.cuda.device_count() - 1
        found = f"CUDA: {gpu.name}, {gpu.total_memory / 2**30:.0f} GB"
        return Check("device", "ok", found + (f" and {more} more" if more else ""))
    if torch.backends.mps.is_available():
        return Check("device", "ok", "MPS (Apple GPU)")
    found = f"CPU, {torch.get_num_threads()} threads"
    if shutil.which("nvidia-smi"):
        reason = str(said[0].message) if said else f"torch {torch.__version__} has none"
        found += f"; an NVIDIA driver is here, but PyTorch cannot use it: {reason}"
        return Check("device", "warning", found, "update the NVIDIA driver")
    return Check("device", "ok", found + " (enough for the demo)")


def check_drawing() -> Check:
    """Draw real frames with MuJoCo, in another process: a bad driver may crash it."""
    code = "import json; from act_minimal.command.doctor import measure_frame as m; "
    command = [sys.executable, "-c", code + "print(json.dumps(m()))"]
    if not extras.is_here("mujoco"):
        fix = extras.install_line("sim")
        return Check("drawing", "missing", "MuJoCo is not installed", fix)
    fix = gl.INSTALL_LINE if platform.system() == "Linux" else "update the GPU driver"
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=120,
        )
    except subprocess.TimeoutExpired:
        return Check("drawing", "missing", "a frame took more than 120 s", fix)
    try:
        frame = json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        found = f"drawing a frame ended with code {done.returncode}: {last}"
        return Check("drawing", "missing", found, fix)
    if "error" in frame:
        if "unset MUJOCO_GL" in frame["error"]:
            fix = "unset MUJOCO_GL"
        return Check("drawing", "missing", frame["error"], fix)
    found = f"{frame['backend']} ({frame['renderer']}), {frame['ms']:.2f} ms a frame"
    if frame["contrast"] == 0:
        return Check("drawing", "missing", f"{found}, but the picture is empty", fix)
    if frame["ms"] > SLOW_FRAME_MS:
        return Check("drawing", "warning", f"{found}: slow for two cameras at 30 Hz")
    return Check("drawing", "ok", found)


def measure_frame(height: int = 96, width: int = 128, frames: int = 30) -> dict:
    """Draw a small scene and time it.

    Returns:
        {"backend", "renderer", "ms" (median), "contrast" (standard deviation of the
        pixels; 0 is an empty picture)}, or {"error": one sentence}.
    """
    try:
        backend = gl.choose_gl_backend()
        import mujoco

        model = mujoco.MjModel.from_xml_string(_SCENE)
        data = mujoco.MjData(model)
        mujoco.mj_forward(model, data)
        with gl.open_renderer(model, height, width) as renderer:
            seconds = []
            for _ in range(frames):
                start = time.perf_counter()
                renderer.update_scene(data, camera="top")
                image = renderer.render()  # (H, W, 3) uint8
                seconds.append(time.perf_counter() - start)
            name = _renderer_name()
    except gl.GLError as error:
        return {"error": str(error)}
    return {
        "backend": backend,
        "renderer": name,
        "ms": 1000 * sorted(seconds)[frames // 2],
        "contrast": float(image.std()),
    }


_SCENE = """
<mujoco>
  <visual><quality shadowsize="0" offsamples="0"/></visual>
  <worldbody>
    <light pos="0 0 2" castshadow="false"/>
    <camera name="top" pos="0 0 1"/>
    <geom type="plane" size="1 1 0.1"/>
    <geom type="box" size="0.1 0.1 0.1" pos="0.1 0 0.1" rgba="1 0 0 1"/>
  </worldbody>
</mujoco>
"""


def _renderer_name() -> str:
    try:
        from OpenGL.GL import GL_RENDERER, glGetString

        return glGetString(GL_RENDERER).decode()  # pyright: ignore
    except Exception:  # only a name: PyOpenGL may be unable to tell on this system
        return "unnamed"


def check_display() -> Check:
    """A screen for live windows."""
    if platform.system() != "Linux" or gl.has_display():
        return Check("display", "ok", "windows can be opened")
    return Check("display", "info", "none: films and pictures are written to files")


def check_ffmpeg() -> Check:
    """The library that reads and writes films."""
    import av

    return Check(
        "ffmpeg", "ok", f"{av.ffmpeg_version_info}, inside av {av.__version__}"
    )


def check_cameras() -> list[Check]:
    """Cameras that hand out a picture, by name."""
    if platform.system() != "Linux":
        said = f"not looked for on {platform.system()}, which would ask for permission"
        return [Check("cameras", "info", said)]
    checks = []
    for camera in devices.find_cameras():
        if camera.group:
            checks.append(_no_permission("camera", camera))
        elif camera.size:
            found = f"{camera}, {camera.size[0]} x {camera.size[1]}"
            checks.append(Check("camera", "ok", found))
        else:
            found = f"{camera}: no picture within {devices.CAMERA_TIMEOUT_S:.0f} s"
            fix = "close other programs that use it, or plug it into another port"
            checks.append(Check("camera", "warning", found, fix))
    return checks or [Check("cameras", "info", "none (only a real arm needs them)")]


def check_serial_ports() -> list[Check]:
    """Serial ports that may be an arm's servo bus: may we open them, who answers?"""
    if not extras.is_here("serial"):
        return [Check("serial ports", "info", "not looked for: pyserial is missing")]
    checks = []
    for port in devices.find_serial_ports():
        if port.group:
            checks.append(_no_permission("serial port", port))
            continue
        checkup = plugin("servo_ports")
        status: Status = "ok"
        said = str(port)
        if port.vendor == checkup.SERVO_BOARDS:
            status, answer = checkup.look_at_servos(str(port.path))
            said = f"{port}: {answer}"
        fix = "" if status == "ok" else f"act health --port {port.path}"
        checks.append(Check("serial port", status, said, fix))
    return checks or [Check("serial ports", "info", "none (only a real arm needs one)")]


def check_can() -> list[Check]:
    """CAN interfaces, as an OpenArm's adapter gives them (Linux)."""
    if not extras.is_here("can"):
        return [Check("CAN", "info", "not looked for: python-can is missing")]
    checks = []
    for name, up in devices.find_can_interfaces():
        rates = "bitrate 1000000 dbitrate 5000000 fd on"
        fix = "" if up else f"sudo ip link set {name} up type can {rates}"
        found = f"{name} is {'up' if up else 'down'}"
        checks.append(Check("CAN", "ok" if up else "warning", found, fix))
    return checks or [Check("CAN", "info", "none (only an OpenArm needs it)")]


def check_browser() -> Check:
    """A browser for the tests of the notebooks' pages."""
    for name in ("chromium", "chromium-browser", "google-chrome", "chrome"):
        path = shutil.which(name)
        if path:
            return Check("browser", "ok", path)
    fix = "sudo apt-get install -y chromium" if platform.system() == "Linux" else ""
    return Check("browser", "info", "no Chromium (only browser tests need it)", fix)


def check_uv() -> Check:
    """The program that runs everything here."""
    path = shutil.which("uv")
    if path is None:
        return Check("uv", "info", "not found on PATH", "pip install uv")
    said = subprocess.run(
        [path, "--version"], capture_output=True, encoding="utf-8", errors="replace"
    )
    return Check("uv", "ok", f"{said.stdout.strip()} at {path}")


def _no_permission(name: str, device: devices.Device) -> Check:
    fix = f"sudo usermod -aG {device.group} $USER"
    return Check(name, "warning", f"{device}: no permission (then log in again)", fix)
