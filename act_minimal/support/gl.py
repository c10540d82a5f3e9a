"""Which OpenGL draws the cameras, decided before MuJoCo is imported.

MuJoCo reads ``MUJOCO_GL`` once, while it is being imported, and without a display its
own default (GLFW) fails at the first frame. So every file that imports MuJoCo calls
`choose_gl_backend` first, and takes its renderers from `open_renderer`.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import platform
import sys
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import UserError

if TYPE_CHECKING:
    import mujoco

INSTALL_LINE = "sudo apt-get install -y libegl1 libgl1 libgl1-mesa-dri"
"""What a bare Debian or Ubuntu needs to draw in software or on its GPU."""

DISABLED = "disabled"
"""The value of ``MUJOCO_GL`` with which MuJoCo simulates but cannot draw."""

_OFF = (DISABLED, "disable", "off", "false", "0")
_ON = ("", "enable", "enabled", "on", "true", "1")
_VALID = {
    "Linux": ("egl", "osmesa", "glfw", "glx"),
    "Darwin": ("cgl", "glfw"),
    "Windows": ("wgl", "glfw"),
}
_EGL_PLATFORM_DEVICE = 0x313F  # EGL_EXT_platform_device


class GLError(UserError):
    """No OpenGL to draw with: says what is missing and how to install it."""


def choose_gl_backend() -> str:
    """Choose the OpenGL backend and tell MuJoCo through ``MUJOCO_GL``.

    A value that the user has set stays. Otherwise, on Linux: EGL if a display can be
    opened on it (GPU or software, no X server needed), else OSMesa (software), else
    the desktop's own GLX, else "disabled": physics works, drawing raises `GLError`.
    macOS and Windows have a backend of their own.

    Raises:
        GLError: ``MUJOCO_GL`` holds a value that MuJoCo would not accept, or names a
            library that is not here (importing MuJoCo would fail, less clearly).
    """
    # Mesa's software rasteriser starts one thread per core by default. Drawing a
    # small image, handing tiles to threads costs more than they save: 96 x 128 takes
    # 0.48 instead of 0.66 ms on 2 cores, with the same pixels. Real GPUs ignore it.
    os.environ.setdefault("LP_NUM_THREADS", "0")
    _load_triton_first()
    system = platform.system()
    chosen = os.environ.get("MUJOCO_GL", "").lower().strip()
    if chosen not in _ON:
        _check_choice(chosen, system)
        return DISABLED if chosen in _OFF else chosen
    if system != "Linux":
        return {"Darwin": "cgl", "Windows": "wgl"}.get(system, "glfw")
    if _mujoco_is_imported():  # too late to choose: MuJoCo has settled on GLFW
        return "glfw"
    if egl_works():
        chosen = "egl"
    elif osmesa_works():
        chosen = "osmesa"
    elif has_display():
        chosen = "glfw"
    else:
        chosen = DISABLED
    os.environ["MUJOCO_GL"] = chosen
    return chosen


def require_gl() -> None:
    """GLError at once, for what would need pictures later."""
    if choose_gl_backend() == DISABLED:
        raise GLError(missing_message())


def open_renderer(model: mujoco.MjModel, height: int, width: int) -> mujoco.Renderer:
    """A renderer of images (height, width, 3) uint8, within the model's buffer."""
    require_gl()
    backend = choose_gl_backend()

    try:
        return _renderer_type(backend)(model, height, width, max_geom=1000)
    except ValueError:
        raise  # the image is larger than the scene's buffer: not OpenGL's fault
    except Exception as error:
        # The bindings raise anything here: ImportError, RuntimeError, AttributeError,
        # mujoco.FatalError and PyOpenGL's own errors all mean "no OpenGL".
        raise GLError(_failure_message(backend, error)) from error


@lru_cache
def _renderer_type(backend: str) -> type[mujoco.Renderer]:
    """MuJoCo's renderer, which holds its context only while it draws.

    A context that stays current belongs to one thread, and no other may draw with it.
    JupyterLab serves sliders from a thread of their own.
    """
    import mujoco

    class Renderer(mujoco.Renderer):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            _let_go(backend)

        def render(self, *, out: Any = None) -> Any:
            try:
                return super().render(out=out)
            finally:
                _let_go(backend)

    return Renderer


def _let_go(backend: str) -> None:
    """Make no context current in this thread, where one would be held by it."""
    if backend == "egl":
        import mujoco.egl
        from OpenGL import EGL

        nothing = (EGL.EGL_NO_SURFACE, EGL.EGL_NO_SURFACE, EGL.EGL_NO_CONTEXT)
        EGL.eglMakeCurrent(mujoco.egl.EGL_DISPLAY, *nothing)
    elif backend in ("glfw", "glx", "wgl"):
        import glfw

        glfw.make_context_current(None)  # pyright: ignore[reportArgumentType]


def missing_message() -> str:
    """Say in one sentence what drawing lacks and the line that installs it."""
    if egl_works() or osmesa_works():
        return (
            f"Camera images are switched off by MUJOCO_GL="
            f"{os.environ.get('MUJOCO_GL', '')}; unset MUJOCO_GL to draw them."
        )
    lacking = "libEGL.so.1 was not found"
    if _load("libEGL.so.1") is not None:
        lacking = "libEGL.so.1 is here but opens no display (no driver)"
    return (
        f"Cannot draw camera images: {lacking}, libOSMesa was not found and there is "
        f"no display; install OpenGL with: {INSTALL_LINE}"
    )


def has_display() -> bool:
    """Whether an X server or Wayland compositor is named in the environment."""
    return any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))


@lru_cache(maxsize=1)
def egl_works() -> bool:
    """Whether EGL can be loaded and opens a display without any window system.

    Imports the standard library only, as it also runs before anything is installed.

    libEGL alone proves nothing: without a driver behind it, MuJoCo would fail at
    the first frame. Opening a display takes some ten milliseconds, once a process.
    """
    _load_triton_first()
    egl = _load("libEGL.so.1")
    if egl is None:
        return False
    try:
        address = egl.eglGetProcAddress
        address.restype, address.argtypes = ctypes.c_void_p, [ctypes.c_char_p]
        query = address(b"eglQueryDevicesEXT")
        get_display = address(b"eglGetPlatformDisplayEXT")
        egl.eglInitialize.argtypes = [ctypes.c_void_p] * 3
        egl.eglTerminate.argtypes = [ctypes.c_void_p]
    except AttributeError:  # some other library of that name
        return False
    if not query or not get_display:
        return False
    pointer, integer = ctypes.c_void_p, ctypes.c_int
    query_devices = ctypes.CFUNCTYPE(integer, integer, pointer, pointer)(query)
    platform_display = ctypes.CFUNCTYPE(pointer, integer, pointer, pointer)(get_display)
    devices, found = (pointer * 10)(), integer()
    if not query_devices(len(devices), devices, ctypes.byref(found)):
        return False
    for device in devices[: found.value]:
        display = platform_display(_EGL_PLATFORM_DEVICE, device, None)
        if display and egl.eglInitialize(display, None, None):
            egl.eglTerminate(display)  # MuJoCo opens its own when it draws
            return True
    return False


@lru_cache(maxsize=1)
def osmesa_works() -> bool:
    """Whether Mesa's off-screen library (software only) can be loaded."""
    return any(_load(f"libOSMesa.so{end}") is not None for end in ("", ".8", ".6"))


def _check_choice(chosen: str, system: str) -> None:
    valid = _VALID.get(system, ("glfw",))
    if chosen not in (*valid, *_OFF):
        raise GLError(
            f"The environment variable MUJOCO_GL is {chosen!r}; on {system} it may be "
            f"{', '.join(valid)} or {DISABLED}, or unset."
        )
    works = {"egl": egl_works, "osmesa": osmesa_works}.get(chosen)
    if works is not None and not works():
        package = "libosmesa6" if chosen == "osmesa" else "libegl1 libgl1-mesa-dri"
        raise GLError(
            f"The environment variable MUJOCO_GL is {chosen!r}, but that library does "
            f"not work here; install it with: sudo apt-get install -y {package}"
        )


def _failure_message(backend: str, error: Exception) -> str:
    reason = str(error).strip().rstrip(".") or type(error).__name__
    what = f"Cannot draw camera images with {backend}: {reason}"
    if platform.system() != "Linux":
        return f"{what}."
    if backend == "glfw" and os.environ.get("MUJOCO_GL", "") in _ON:
        return (
            "Cannot draw camera images: mujoco was imported before act_minimal and "
            "chose a window system that is not here; import act_minimal.sim first, "
            "or set MUJOCO_GL=egl."
        )
    if backend in ("glfw", "glx") and not has_display():
        return f"{what}; unset MUJOCO_GL to draw without a display."
    return f"{what}; install OpenGL with: {INSTALL_LINE}"


@lru_cache(maxsize=1)
def _load_triton_first() -> None:
    """Keep Mesa's software rasteriser and PyTorch's compiler from crashing each other.

    Both bring LLVM. Mesa's lets every library loaded after it use its symbols, so that
    importing triton, which torch does when it makes an optimizer, ends in a
    segmentation fault. Loaded first, triton uses its own. It takes under 0.1 s, and
    nothing is run.
    """
    found = importlib.util.find_spec("triton") if platform.system() == "Linux" else None
    for folder in (found and found.submodule_search_locations) or ():
        library = Path(folder, "_C", "libtriton.so")
        if library.exists():
            _load(str(library))


def _mujoco_is_imported() -> bool:
    return "mujoco.rendering.classic.gl_context" in sys.modules


def _load(name: str) -> ctypes.CDLL | None:
    try:
        return ctypes.CDLL(name)
    except OSError:
        return None
