import io
import json
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from packaging.requirements import Requirement
from rich.console import Console

from act_minimal.command import devices, doctor
from act_minimal.command.doctor import Check
from act_minimal.support import gl, processes
from act_minimal.support.extras import install_line

ROOT = Path(__file__).parents[2]


def fake_run(monkeypatch, stdout="", stderr="", code=0, error=None):
    """Let the process that draws a frame end as told."""

    def run(command, **options):
        if error is not None:
            raise error
        return subprocess.CompletedProcess(command, code, stdout, stderr)

    monkeypatch.setattr(doctor.subprocess, "run", run)


def asking_for(monkeypatch, *requirements: str) -> None:
    """Let the package ask for these, and its extras for nothing."""
    asked = [Requirement(text) for text in requirements]
    monkeypatch.setattr(
        doctor.extras, "requirements", lambda extra=None: [] if extra else asked
    )


def printed(checks: list[Check], width: int = 60) -> str:
    console = Console(width=width, file=io.StringIO())
    doctor.render(checks, console)
    return console.file.getvalue()  # pyright: ignore


def test_this_machine_is_looked_at_from_top_to_bottom():
    checks = doctor.diagnose()
    names = [check.name for check in checks]
    expected = "python cores memory disk packages device drawing display ffmpeg browser"
    assert {*expected.split(), "uv"} <= set(names)
    assert any(name.startswith("camera") for name in names)
    assert any(name.startswith("serial port") for name in names)
    # This process runs the tests, so whatever it runs on can run the demo too.
    assert doctor.is_ready(checks), [c for c in checks if c.status == "missing"]
    drawing = next(check for check in checks if check.name == "drawing")
    assert "ms a frame" in drawing.found
    assert {"torch", "mujoco"} <= set(" ".join(c.found for c in checks).split())
    assert not [check for check in checks if "could not be looked at" in check.found]


@pytest.mark.quick
def test_only_missing_things_stop_the_demo():
    fine = [Check("a", "ok", ""), Check("b", "warning", ""), Check("c", "info", "")]
    assert doctor.is_ready(fine)
    assert not doctor.is_ready([*fine, Check("d", "missing", "")])


@pytest.mark.quick
def test_machines_get_json():
    disk = {"name": "disk", "status": "missing", "found": "0 GB", "fix": "free some"}
    report = doctor.result([Check(**disk), Check("uv", "ok", "1.0")]).content
    report = json.loads(json.dumps(report))
    assert report["ready"] is False
    assert report["checks"][0] == disk


@pytest.mark.quick
def test_the_line_that_mends_is_never_broken():
    fix = "sudo apt-get install -y " + " ".join(f"package-{i}" for i in range(30))
    text = printed([Check("drawing", "missing", "[none]", fix)], width=40)
    assert f"  drawing: {fix}\n" in text
    assert "[none]" in text  # square brackets are text, not markup
    assert "Missing for `act demo`: drawing." in text


@pytest.mark.quick
def test_a_healthy_machine_is_told_what_to_type():
    assert "uv run act demo" in printed([Check("python", "ok", "3.11")])


@pytest.mark.quick
def test_a_check_that_fails_does_not_stop_the_others(monkeypatch):
    def check_disk():
        raise OSError("the disk is on fire")

    for name in ("check_torch", "check_drawing", "check_cameras"):
        monkeypatch.setattr(doctor, name, lambda: Check("x", "ok", ""))
    monkeypatch.setattr(doctor, "check_disk", check_disk)
    checks = doctor.diagnose()
    [disk] = [check for check in checks if check.name == "disk"]
    assert disk.status == "warning"
    assert "the disk is on fire" in disk.found
    assert checks[-1].name == "uv"


@pytest.mark.quick
@pytest.mark.parametrize(
    ("free_gb", "status"), [(0.5, "missing"), (5, "warning"), (50, "ok")]
)
def test_disk(monkeypatch, tmp_path, free_gb, status):
    usage = SimpleNamespace(free=free_gb * 2**30)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    check = doctor.check_disk(tmp_path)
    assert check.status == status
    assert str(tmp_path) in check.found
    assert bool(check.fix) == (status != "ok")


@pytest.mark.quick
def test_a_package_that_is_missing_or_too_old_says_so(tmp_path, monkeypatch):
    asking_for(monkeypatch, "numpy>=99", "no-such-package>=1", "rich>=1")
    checks = {c.name: c for c in doctor.check_packages(tmp_path / "none.txt")}
    assert set(checks) == {"numpy", "no-such-package", "packages"}
    assert checks["numpy"].status == "missing"
    assert f"{metadata.version('numpy')}, but >=99" in checks["numpy"].found
    assert checks["numpy"].fix == "uv sync --upgrade-package numpy"
    assert checks["no-such-package"].found == "not installed"
    assert checks["packages"].found == f"rich {metadata.version('rich')}"


@pytest.mark.quick
def test_extras_that_are_missing_are_told_with_one_line_each(monkeypatch):
    real = metadata.version

    def version(name):
        if name in ("mujoco", "mink", "jupyterlab"):
            raise metadata.PackageNotFoundError(name)
        return "1.0" if name == "pyserial" else real(name)

    monkeypatch.setattr(metadata, "version", version)
    checks = {c.name: c for c in doctor.check_packages()}
    sim, course = checks["extra sim"], checks["extra course"]
    assert (sim.status, course.status) == ("missing", "info")
    assert sim.found == "not installed: mink, mujoco"
    assert course.found == "not installed: jupyterlab"
    assert (sim.fix, course.fix) == (install_line("sim"), install_line("course"))
    assert checks["pyserial"].status == "warning"
    assert not {"mujoco", "mink", "jupyterlab"} & set(checks)
    assert not doctor.is_ready(list(checks.values()))


@pytest.mark.quick
def test_versions_other_than_the_known_good_are_told_but_allowed(tmp_path, monkeypatch):
    asking_for(monkeypatch, "numpy", "rich")
    constraints = tmp_path / "constraints.txt"
    rich = metadata.version("rich")
    constraints.write_text(f"# known\nnumpy==0.0.1\nrich=={rich}  # a comment\n")
    packages, others = doctor.check_packages(constraints)
    assert packages.found == f"rich {rich}"
    assert others.status == "info"
    assert others.found.startswith(f"numpy {metadata.version('numpy')} ")


@pytest.mark.quick
def test_a_local_build_counts_as_its_version(tmp_path, monkeypatch):
    (tmp_path / "constraints.txt").write_text("torch==2.15.0\n")
    monkeypatch.setattr(doctor.metadata, "version", lambda name: "2.15.0+cpu")
    asking_for(monkeypatch, "torch>=2.9")
    [check] = doctor.check_packages(tmp_path / "constraints.txt")
    assert (check.name, check.found) == ("packages", "torch 2.15.0+cpu")


def test_drawing_switched_off_is_missing_and_says_how_to_switch_it_on(monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "disabled")
    check = doctor.check_drawing()
    assert check.status == "missing"
    assert check.fix == "unset MUJOCO_GL"


@pytest.mark.quick
@pytest.mark.parametrize(
    ("frame", "status", "said"),
    [
        ({"ms": 0.5, "contrast": 9.0}, "ok", "egl (llvmpipe), 0.50 ms a frame"),
        ({"ms": 40.0, "contrast": 9.0}, "warning", "slow for two cameras"),
        ({"ms": 0.5, "contrast": 0.0}, "missing", "the picture is empty"),
        ({"error": "Cannot draw: no driver"}, "missing", "no driver"),
    ],
)
def test_what_a_frame_tells(monkeypatch, frame, status, said):
    frame = {"backend": "egl", "renderer": "llvmpipe"} | frame
    fake_run(monkeypatch, stdout="a library's chatter\n" + json.dumps(frame))
    check = doctor.check_drawing()
    assert check.status == status
    assert said in check.found
    if sys.platform == "linux" and status == "missing":
        assert check.fix == gl.INSTALL_LINE


@pytest.mark.quick
def test_a_driver_that_crashes_or_hangs_does_not_take_the_doctor_along(monkeypatch):
    fake_run(monkeypatch, stderr="boring\nSegmentation fault", code=-11)
    check = doctor.check_drawing()
    assert check.status == "missing"
    assert "code -11: Segmentation fault" in check.found
    fake_run(monkeypatch, error=subprocess.TimeoutExpired("python", 30))
    assert "more than 120 s" in doctor.check_drawing().found


@pytest.mark.quick
def test_devices_become_checks(monkeypatch):
    monkeypatch.setattr(doctor.platform, "system", lambda: "Linux")
    port = devices.Device(Path("/dev/ttyACM0"), "Feetech", group="dialout")
    monkeypatch.setattr(devices, "find_serial_ports", lambda: [port])
    cameras = [
        devices.Device(Path("/dev/video0"), "Wrist", size=(640, 480)),
        devices.Device(Path("/dev/video2"), "Top"),
        devices.Device(Path("/dev/video4"), "Side", group="video"),
    ]
    monkeypatch.setattr(devices, "find_cameras", lambda: cameras)
    [serial] = doctor.check_serial_ports()
    assert serial.status == "warning"
    assert serial.fix == "sudo usermod -aG dialout $USER"
    good, silent, closed = doctor.check_cameras()
    assert (good.status, good.found) == ("ok", "/dev/video0 (Wrist), 640 x 480")
    assert silent.status == "warning"
    assert "no picture" in silent.found
    assert closed.fix == "sudo usermod -aG video $USER"


@pytest.mark.quick
def test_a_gpu_driver_that_pytorch_cannot_use_is_a_warning(monkeypatch):

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    assert doctor.check_torch().status == "warning"
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert doctor.check_torch().status == "ok"
    assert doctor.check_torch().found.startswith("CPU")
    assert doctor.check_browser().fix or sys.platform != "linux"
    assert doctor.check_uv().fix == "pip install uv"


@pytest.mark.quick
@pytest.mark.parametrize(
    ("there", "chosen"),
    [("cuda", "cuda"), ("cuda mps", "cuda"), ("mps", "mps"), ("", "cpu")],
)
def test_auto_trains_on_what_the_doctor_finds(monkeypatch, there, chosen):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: "cuda" in there)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: "mps" in there)
    assert processes.choose_device("auto").type == chosen
    if chosen != "cuda":  # of which the doctor asks the name
        assert chosen.upper() in doctor.check_torch().found
