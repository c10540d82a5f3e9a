import json
import os
import platform
import subprocess
import sys
import threading

import numpy as np
import pytest

from act_minimal.support import gl
from act_minimal.support.errors import UserError

from .. import programs

pytestmark = pytest.mark.quick
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="Linux chooses")

DRAW = """
import json
from act_minimal.support import gl
backend = gl.choose_gl_backend()
import mujoco
model = mujoco.MjModel.from_xml_string(
    "<mujoco><worldbody><light pos='0 0 3'/><geom size='1' rgba='1 0 0 1'/></worldbody>"
    "</mujoco>"
)
data = mujoco.MjData(model)
mujoco.mj_forward(model, data)
with gl.open_renderer(model, 24, 32) as renderer:
    renderer.update_scene(data)
    image = renderer.render()
red, green, blue = image.reshape(-1, 3).max(0).tolist()
print(json.dumps([backend, list(image.shape), red, green, blue]))
"""


def python(code: str, **environment: str) -> subprocess.CompletedProcess:
    """Run code in a fresh process in which nobody has chosen anything."""
    chosen = ("MUJOCO_GL", "PYOPENGL_PLATFORM", "DISPLAY", "WAYLAND_DISPLAY")
    clean = {k: v for k, v in os.environ.items() if k not in chosen}
    command = [sys.executable, "-W", "error", "-c", code]
    pipes = {"capture_output": True, "text": True, "timeout": 600}
    return subprocess.run(command, env=clean | environment, **pipes)


@pytest.fixture
def linux(monkeypatch):
    """A Linux on which nothing was chosen, MuJoCo is not imported, no library found."""
    monkeypatch.setattr(platform, "system", lambda: "Linux")
    for name in ("MUJOCO_GL", "DISPLAY", "WAYLAND_DISPLAY", "LP_NUM_THREADS"):
        monkeypatch.setenv(name, "")  # so that it is restored, whatever is set below
        monkeypatch.delenv(name)
    monkeypatch.setattr(gl, "_mujoco_is_imported", lambda: False)
    monkeypatch.setattr(gl, "_load", lambda name: None)
    for name in ("egl_works", "osmesa_works"):  # without what they remember
        monkeypatch.setattr(gl, name, getattr(gl, name).__wrapped__)
    return monkeypatch


@on_linux
def test_a_fresh_process_draws_a_red_ball():
    done = python(DRAW)
    assert done.returncode == 0, done.stderr
    backend, shape, red, green, blue = json.loads(done.stdout)
    assert backend in ("egl", "osmesa")
    assert shape == [24, 32, 3]
    assert red > 2 * max(green, blue) > 0  # a lit red ball, not an empty picture


@on_linux
def test_an_egl_without_driver_is_not_chosen():
    # The library is found and loads, but there is no vendor behind it.
    code = "from act_minimal.support import gl; "
    code += "print(gl.egl_works(), gl.choose_gl_backend())"
    done = python(code, __EGL_VENDOR_LIBRARY_DIRS="/nowhere")
    works, backend = done.stdout.split()
    assert works == "False"
    assert backend in ("osmesa", "disabled")


@on_linux
def test_mujoco_imported_first_is_explained():
    done = python("import mujoco\n" + DRAW)
    assert done.returncode == 1
    assert "mujoco was imported before act_minimal" in done.stderr


@on_linux
def test_without_any_opengl_mujoco_simulates_and_drawing_says_what_to_install():
    code = "from act_minimal.support import gl; gl._load = lambda name: None\n" + DRAW
    done = python(code)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("act_minimal.support.gl.GLError: Cannot draw camera images")
    assert gl.INSTALL_LINE in last


def test_nothing_found_switches_drawing_off(linux):
    assert gl.choose_gl_backend() == "disabled"
    assert os.environ["MUJOCO_GL"] == "disabled"
    with pytest.raises(gl.GLError, match=r"libEGL.so.1 was not found.*apt-get"):
        gl.open_renderer(None, 96, 128)  # pyright: ignore
    assert issubclass(gl.GLError, UserError)


def test_a_library_without_driver_is_told_apart_from_a_missing_one(linux):
    linux.setattr(gl, "_load", lambda name: "libEGL" in name or None)
    linux.setattr(gl, "egl_works", lambda: False)
    assert "opens no display (no driver)" in gl.missing_message()


@pytest.mark.parametrize("choice", ["egl", "osmesa", "glfw"])
def test_egl_comes_before_osmesa_before_a_display(linux, choice):
    linux.setattr(gl, "egl_works", lambda: choice == "egl")
    library = object() if choice == "osmesa" else None
    linux.setattr(gl, "_load", lambda name: library if "OSMesa" in name else None)
    if choice != "osmesa":
        linux.setenv("DISPLAY", ":0")
    for _ in range(2):  # and it stays
        assert gl.choose_gl_backend() == choice
        assert os.environ["MUJOCO_GL"] == choice


@pytest.mark.parametrize("value", ["egl", "osmesa", "glfw", "disabled", "off"])
def test_the_users_choice_stays(linux, value):
    linux.setenv("MUJOCO_GL", value)
    linux.setattr(gl, "egl_works", lambda: True)
    linux.setattr(gl, "osmesa_works", lambda: True)
    chosen = gl.choose_gl_backend()
    assert chosen == ("disabled" if value == "off" else value)
    assert os.environ["MUJOCO_GL"] == value


def test_drawing_switched_off_by_hand_says_so(linux):
    linux.setenv("MUJOCO_GL", "off")
    linux.setattr(gl, "egl_works", lambda: True)
    with pytest.raises(gl.GLError, match="MUJOCO_GL=off; unset MUJOCO_GL"):
        gl.open_renderer(None, 96, 128)  # pyright: ignore


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("metal", "'metal'.*egl, osmesa, glfw, glx or disabled"),
        ("cgl", "on Linux it may be"),
        ("egl", "does not work here.*libegl1"),
        ("osmesa", "does not work here.*libosmesa6"),
    ],
)
def test_a_choice_that_cannot_work_is_refused_before_mujoco_fails(
    linux, value, message
):
    linux.setenv("MUJOCO_GL", value)
    with pytest.raises(gl.GLError, match=message):
        gl.choose_gl_backend()


@pytest.mark.parametrize(("system", "own"), [("Darwin", "cgl"), ("Windows", "wgl")])
def test_other_systems_have_their_own(linux, system, own):
    linux.setattr(platform, "system", lambda: system)
    assert gl.choose_gl_backend() == own
    assert "MUJOCO_GL" not in os.environ


def test_software_drawing_gets_one_thread_unless_the_user_says_otherwise(linux):
    gl.choose_gl_backend()
    assert os.environ["LP_NUM_THREADS"] == "0"
    linux.setenv("LP_NUM_THREADS", "3")
    gl.choose_gl_backend()
    assert os.environ["LP_NUM_THREADS"] == "3"


@pytest.fixture
def scene():
    gl.choose_gl_backend()
    import mujoco

    model = mujoco.MjModel.from_xml_string(
        "<mujoco><worldbody><light/><geom size='1'/></worldbody></mujoco>"
    )
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    return model, data


def test_an_image_larger_than_the_buffer_is_not_blamed_on_opengl(scene):
    model, _ = scene
    with pytest.raises(ValueError, match="framebuffer"):
        gl.open_renderer(model, 4000, 4000)


def test_two_renderers_at_once_draw_the_same(scene):
    model, data = scene
    with gl.open_renderer(model, 24, 32) as a, gl.open_renderer(model, 24, 32) as b:
        a.update_scene(data)
        b.update_scene(data)
        np.testing.assert_array_equal(a.render(), b.render())


def test_torch_can_make_an_optimizer_after_drawing():
    # Mesa's LLVM used to crash triton's where torch is built with it.
    program = """
from act_minimal.sim import World, make_task
world = World(make_task("so100_pick_place"))
world.reset([0])
world.observe(("top",))
import torch
torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))])
import torch._dynamo
print("both")
"""
    result = programs.python("-c", program)
    assert result.stdout == "both\n", result.stderr


def test_a_picture_can_be_drawn_from_another_thread(scene):
    """JupyterLab serves sliders from a thread of their own."""
    model, data = scene
    renderer = gl.open_renderer(model, 48, 64)
    pictures = []

    def draw():
        renderer.update_scene(data)
        pictures.append(renderer.render())

    draw()
    for _ in range(3):
        thread = threading.Thread(target=draw)
        thread.start()
        thread.join()
    draw()
    renderer.close()
    assert len(pictures) == 5
    assert all((picture == pictures[0]).all() for picture in pictures)
    assert pictures[0].max() > 0
