"""What installs without the simulator, and the lines that install what is missing."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from act_minimal.episodes import save_episode
from act_minimal.support import extras
from act_minimal.support.extras import MissingExtra, install_line, require

from .. import programs
from ..made_up import random_episode

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
PROJECT = tomllib.loads(TEXT)["project"]

# In another process, from which the extras' libraries are taken away.
WITHOUT = """
import sys
from act_minimal.support.extras import MODULES
for extra in MODULES.values():
    for module in extra:
        sys.modules[module] = None
"""
POLICY_SIDE = """
from pathlib import Path
import numpy as np
from act_minimal.control import run
from act_minimal.dataset import Demonstrations
from act_minimal.execution import ExecutionConfig, make_executor
from act_minimal.checkpoint import load_policy
from act_minimal.training import TrainConfig, train
import act_minimal.command.main, act_minimal.datasets.edit, act_minimal.datasets.inspect
import act_minimal.exchange.lerobot_policy, hardware.safety.safe_robot
import hardware.command.checklist, hardware.deployment

data, out = Path(sys.argv[1]), Path(sys.argv[2])
assert len(Demonstrations.load(data)) == 2
settings = dict(chunk_size=4, steps=2, batch_size=4, threads=1, tensorboard=False)
train(TrainConfig(data, out, **settings, val_fraction=0), progress=False)
policy = load_policy(out)

class Robot:
    n, fps, action_dim, cameras = 1, 30.0, 6, ()
    acted = []
    def observe(self, cameras=()):
        return {"qpos": np.zeros((1, 6), np.float32)}
    def act(self, action):
        self.acted.append(action)

run(Robot(), policy, make_executor(ExecutionConfig(), 4), 5)
assert len(Robot.acted) == 5
assert act_minimal.datasets.inspect.inspect_dataset(data, progress=False).episodes == 2
for name in ("mujoco", "gymnasium", "jupyterlab", "serial", "can"):
    assert sys.modules[name] is None
print("done")
"""


@pytest.fixture
def episodes(tmp_path):
    for i in range(2):
        save_episode(
            tmp_path / f"demos/episode_{i}.hdf5", random_episode(20, i, env_state=None)
        )
    return tmp_path / "demos"


def python(code: str, *words: object) -> subprocess.CompletedProcess:
    return programs.python("-c", WITHOUT + code, *words)


def test_the_policy_side_needs_no_extra(episodes, tmp_path):
    done = python(POLICY_SIDE, episodes, tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "done\n"


@pytest.mark.parametrize(
    ("words", "module", "extra"),
    [
        ("record --out {} --n 1", "mujoco", "sim"),
        ("demo --out {}", "mujoco", "sim"),
        ("virtual --port {}", "mujoco", "sim"),
        ("course", "jupyterlab", "course"),
        ("ports", "serial", "arms"),
        ("health --port {}", "serial", "arms"),
        ("health --port {} --robot openarm", "serial", "arms"),
        ("export-onnx --policy {policy} --out {}.onnx", "onnx", "onnx"),
    ],
)
def test_a_missing_extra_is_one_sentence_with_a_line(tmp_path, words, module, extra):
    policy = ROOT / "data/checkpoints/so100_pick_place_state"
    words = words.format(tmp_path / "new", policy=policy).split()
    done = python("from act_minimal.command.main import main; main()", *words)
    assert done.returncode == 1, done.stderr
    assert done.stdout == ""
    assert f"act: {module} is not installed; install it with: " in done.stderr
    assert done.stderr.strip().endswith(install_line(extra))
    assert len(done.stderr.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.quick
def test_the_simulator_says_so_in_python_too(monkeypatch):
    monkeypatch.setitem(sys.modules, "mujoco", None)
    with pytest.raises(ImportError, match="mujoco is not installed; install it with"):
        require("sim")


@pytest.mark.quick
def test_another_simulators_mujoco_is_told_from_ours(monkeypatch):
    real = extras.metadata.version
    other = {"mujoco": "2.3.7"}
    monkeypatch.setattr(
        *(extras.metadata, "version"), lambda name: other.get(name) or real(name)
    )
    with pytest.raises(MissingExtra, match=r"mujoco 2.3.7 is installed, >=4.0 is need"):
        require("sim")


@pytest.mark.quick
def test_every_extra_is_known_with_its_modules():
    optional = PROJECT["optional-dependencies"]
    assert set(optional) == {*extras.MODULES, "all"}
    for extra in extras.MODULES:
        require(extra)  # here everything is installed
        named = {
            one.name for one in map(Requirement, optional[extra]) if not one.extras
        } - {"act-minimal"}
        said = {one.name for one in extras.requirements(extra)}
        assert named <= said
    [everything] = optional["all"]
    assert Requirement(everything).extras == set(extras.MODULES)
    plain = {Requirement(one).name for one in PROJECT["dependencies"]}
    assert {one.name for one in extras.requirements()} == plain
    assert not plain & {"mujoco", "gymnasium", "mink", "openarm-mujoco", "jupyterlab"}


@pytest.mark.quick
def test_the_line_is_one_that_works_from_where_the_user_stands(tmp_path, monkeypatch):
    python = sys.executable
    pip = {True: f"{python} -m pip install", False: f"uv pip install --python {python}"}
    real = extras.is_here
    for has_pip, install in pip.items():
        monkeypatch.setattr(
            extras, "is_here", lambda m, p=has_pip: p if m == "pip" else real(m)
        )
        # A clone in an environment of one's own, from inside and from outside.
        monkeypatch.setattr(sys, "prefix", "/somewhere/else")
        monkeypatch.chdir(ROOT)
        assert install_line("sim") == f"{install} -e '.[sim]'"
        assert install_line() == f"{install} -e ."
        monkeypatch.chdir(tmp_path)
        assert install_line("onnx") == f"{install} -e '{ROOT}[onnx]'"
        # A wheel: the libraries are on the index, the package is not.
        monkeypatch.setattr(extras, "ROOT", tmp_path)
        line = install_line("arms")
        assert line == f"{install} 'pyserial>=3.5' 'python-can[multicast]>=4.6'"
        assert extras.NAME not in install_line("sim")
        monkeypatch.setattr(extras, "ROOT", ROOT)
    # uv's own environment of the clone.
    monkeypatch.setattr(sys, "prefix", str(ROOT / ".venv"))
    assert install_line("sim") == f"uv sync --project {ROOT} --extra sim"
    monkeypatch.chdir(ROOT)
    assert install_line("sim") == "uv sync --extra sim"
    assert install_line() == "uv sync"
    numpy = Requirement("numpy>=99")
    assert extras.upgrade_line(numpy) == "uv sync --upgrade-package numpy"
    monkeypatch.setattr(sys, "prefix", "/somewhere/else")
    ends = ("install 'numpy>=99'", f"--python {python} 'numpy>=99'")
    assert extras.upgrade_line(numpy).endswith(ends)


@pytest.mark.quick
def test_no_line_names_an_index_that_it_is_not_on():
    for folder in ("act_minimal", "hardware", "docs", "notebooks/src"):
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in (".py", ".md") and path.name != "extras.py":
                text = path.read_text(encoding="utf-8")
                assert "install act-minimal" not in text, path
                assert "install 'act-minimal" not in text, path
