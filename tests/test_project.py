"""The project itself: what is written twice agrees, and the rules of its structure."""

import ast
import io
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tokenize
import tomllib
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.version import Version

from act_minimal.command import main as cli
from act_minimal.command.doctor import read_constraints

pytestmark = pytest.mark.mostly_quick

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "act_minimal"
HARDWARE = ROOT / "hardware"
CODE = ("act_minimal", "course", "hardware", "benchmarks")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))

FILE_LINES = 400  # of code: blank lines, comments and docstrings are free
# The files that a reader of ACT comes for, in their order, and how much code they hold
# together: an afternoon's reading.
PATH = (
    *("episodes", "images", "dataset", "backbones", "model", "policy", "checkpoint"),
    *("settings", "training", "execution", "control", "evaluation"),
)
PATH_LINES = 3300
BESIDE = ("heads", "realtime", "residual", "sampling")  # the path
FOLDERS = ("command", "datasets", "diagnosis", "exchange", "sim", "support")

FILE_MB, REPOSITORY_MB = 20, 60

# Written in two halves, because this file is looked through like all others.
HOSTS = (
    "pypi" ".org",
    "python" "hosted.org",
    "npm" "js.org",
    "npm" "js.com",
    "download." "pytorch.org",
    "deb." "debian.org",
    "conda." "anaconda.org",
)  # fmt: skip
FORBIDDEN = (
    *HOSTS,
    "index" "-url",
    "find" "-links",
    "/wo" "rk/",
    "/ro" "ot/",
    "/tmp/te" "am",
    "shared/" "facts",
)  # fmt: skip


def tracked_files() -> list[Path]:
    """Files that git keeps, and those that it would (not ignored)."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("needs git and a clone: without them nobody knows what is tracked")
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    names = listed.stdout.decode().split("\0")
    return [ROOT / name for name in names if name and (ROOT / name).is_file()]


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def text_of(path: Path) -> str:
    """The text of a file; "" for pictures, films and tensors."""
    content = path.read_bytes()
    if b"\0" in content[:8192]:
        return ""
    return content.decode(errors="replace")


def requirements_of(texts: list[str]) -> dict[str, Requirement]:
    return {(asked := Requirement(text)).name: asked for text in texts}


def asked_for() -> dict[str, Requirement]:
    """Everything in pyproject.toml: the package's needs, its extras', its tests'."""
    extras = PROJECT["project"]["optional-dependencies"].values()
    texts = PROJECT["project"]["dependencies"] + PROJECT["dependency-groups"]["dev"]
    asked = requirements_of(texts + [text for extra in extras for text in extra])
    del asked[PROJECT["project"]["name"]]  # extras made of others
    return asked


def code_lines(source: str) -> int:
    """Lines that hold code: not blank, no comment, no docstring."""
    nothing = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT)
    nothing += (tokenize.DEDENT, tokenize.ENDMARKER)
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in nothing:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            lines.difference_update(range(node.lineno, node.end_lineno + 1))
    return len(lines)


def modules(package: Path) -> dict[str, Path]:
    """{"act_minimal.sim.so100.arm": path, ...}; a package goes by its folder's name."""
    found = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package.parent).with_suffix("").parts
        found[".".join(parts).removesuffix(".__init__")] = path
    return found


def imports(path: Path, name: str) -> Iterator[str]:
    """Everything that a file imports, in functions and for annotations, too.

    `from .a import b` gives "package.a.b".
    """
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = base_of(node, package)
            yield from (f"{base}.{alias.name}" for alias in node.names)


def base_of(node: ast.ImportFrom, package: str) -> str:
    """The module of `from ..a import b`, whole."""
    parts = package.split(".")
    above = parts[: len(parts) - node.level + 1] if node.level else []
    return ".".join([*above, *filter(None, [node.module])])


def module_of(imported: str, known: dict[str, Path]) -> str:
    """The module that an imported name comes from: "a.b.function" from "a.b"."""
    while imported and imported not in known:
        imported = imported.rpartition(".")[0]
    return imported


def find_circle(graph: dict[str, set[str]]) -> list[str]:
    """One circle of imports, or []."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def run_tool(*command: str) -> None:
    """Run a tool of this environment over the repository; what it finds, fails."""
    words, pipes = [sys.executable, "-m", *command], {"capture_output": True}
    done = subprocess.run(words, cwd=ROOT, encoding="utf-8", **pipes)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"


def test_conda_users_get_the_same_as_uv_users():
    content = yaml.safe_load(read("environment.yml"))
    [pip] = [entry["pip"] for entry in content["dependencies"] if type(entry) is dict]
    conda = [entry for entry in content["dependencies"] if type(entry) is str]
    assert f"python{PROJECT['project']['requires-python']}" in conda
    assert "--editable ." in pip  # act_minimal itself, and the `act` command
    said = requirements_of([entry for entry in pip if not entry.startswith("-")])
    assert {str(one) for one in said.values()} == {str(r) for r in asked_for().values()}


def test_known_good_versions_are_within_the_ranges():
    known = read_constraints(ROOT / "constraints.txt")
    asked = asked_for()
    assert set(known) == set(asked)
    for name, version in known.items():
        assert str(Version(version)) == version, f"{name}: not an exact public version"
        assert asked[name].specifier.contains(version), f"{name} {version}"


def test_ranges_are_ranges():
    for requirement in asked_for().values():
        assert {part.operator for part in requirement.specifier} == {">="}, requirement
        assert requirement.url is None


def test_licences_are_whole():
    code = read("LICENSE")
    lessons = read("LICENSE-lessons")
    assert "Apache License" in code
    assert "END OF TERMS AND CONDITIONS" in code
    assert "Creative Commons Attribution 4.0 International Public License" in lessons
    for section in range(1, 9):
        assert f"\nSection {section} -- " in lessons
    assert PROJECT["project"]["license"] == "Apache-2.0"


def test_the_citation_parses_and_names_this_version():
    cited = yaml.safe_load(read("CITATION.cff"))
    assert str(cited["cff-version"]) == "1.2.0"
    assert {"message", "title", "authors"} <= set(cited)
    assert cited["version"] == PROJECT["project"]["version"]
    assert cited["license"] == ["Apache-2.0", "CC-BY-4.0"]
    assert cited["references"][0]["authors"][0]["family-names"] == "Zhao"


def test_the_changelog_says_what_is_new():
    text = read("CHANGELOG.md")
    sections = re.findall(r"^## \[(.+?)\]", text, re.MULTILINE)
    assert sections[0] in ("Unreleased", PROJECT["project"]["version"])


def test_the_readme_opens_with_a_picture_and_the_two_commands():
    text = read("README.md")
    demo, tests = "pip install uv && uv run act demo", "pip install uv && uv run pytest"
    picture = re.search(r"!\[.*?\]\(|<img ", text)
    assert picture, "no picture"
    assert demo in text
    assert tests in text
    assert picture.start() < text.index(demo) < text.index(tests)


def test_the_readmes_commands_are_commands_and_write_under_runs():
    text = read("README.md")
    blocks = "\n".join(re.findall(r"```bash\n(.*?)```", text, re.DOTALL))
    lines = re.findall(r"uv run act (.+)", blocks.replace("\\\n", " "))
    lines += re.findall(r"`uv run act (.+?)`", text)
    assert len(lines) > 8
    for line in lines:
        name, *words = line.split()
        assert callable(cli._find(name, words, False)), line
        for flag in ("--out", "--calibration", "--port"):
            given = words[words.index(flag) + 1] if flag in words else "runs/"
            assert given.startswith("runs/") or given == "virtual", line
        if line.startswith("data convert"):
            assert words[2].startswith("runs/"), line


def test_a_source_distribution_holds_what_is_tracked():
    hatch = PROJECT["tool"]["hatch"]["build"]["targets"]["sdist"]
    tracked = {path.relative_to(ROOT).parts[0] for path in tracked_files()}
    beside = {".ci", ".github", ".gitignore", "pyproject.toml"}
    assert set(hatch["only-include"]) == tracked - beside


@pytest.mark.slow
def test_it_builds_beside_a_virtual_arms_port(tmp_path):
    """`uv build` where a virtual arm runs: a link to a terminal, a socket, a pipe."""
    uv = shutil.which("uv")
    if uv is None:
        pytest.skip("uv is not here")
    for path in tracked_files():
        target = tmp_path / "clone" / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix in (".md", ".py", ".toml") or path.name.startswith("LICENSE"):
            shutil.copy(path, target)
        else:
            target.touch()
    (tmp_path / "clone" / "arm").symlink_to("/dev/null")
    (tmp_path / "clone" / "runs").mkdir()
    (tmp_path / "clone" / "runs" / "arm").symlink_to("/dev/null")
    os.mkfifo(tmp_path / "clone" / "pipe")
    command = [uv, "build", "--out-dir", str(tmp_path / "dist")]
    pipes = {"capture_output": True, "encoding": "utf-8"}
    done = subprocess.run(command, cwd=tmp_path / "clone", **pipes)
    assert done.returncode == 0, done.stderr
    [packed] = (tmp_path / "dist").glob("*.tar.gz")
    with tarfile.open(packed) as archive:
        names = {name.split("/")[1] for name in archive.getnames() if "/" in name}
    assert "hardware" in names
    assert not names & {"arm", "pipe", "runs"}
    assert len(list((tmp_path / "dist").glob("*.whl"))) == 1


def test_ci_runs_the_command_of_the_readme():
    script = ROOT / ".ci" / "run"
    text = script.read_text(encoding="utf-8")
    assert "set -euo pipefail" in text
    assert "pip install --quiet uv" in text
    assert re.search(r"uv run pytest$", text, re.MULTILINE)
    workflow = yaml.safe_load(read(".github/workflows/ci.yml"))
    steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
    assert any(step.get("run") == "bash .ci/run" for step in steps)
    if sys.platform != "win32":
        assert script.stat().st_mode & 0o100, ".ci/run is not executable"
        subprocess.run(["bash", "-n", str(script)], check=True)


def test_links_between_pages_lead_somewhere():
    for page in (path for path in tracked_files() if path.suffix == ".md"):
        text = page.read_text(encoding="utf-8")
        text = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
        links = re.findall(r"\]\(([^)\s]+)\)|<img[^>]* src=\"([^\"]+)\"", text)
        for link in (a or b for a, b in links):
            if re.match(r"[a-z]+:", link) or link.startswith("#"):
                continue
            target = page.parent / link.partition("#")[0]
            assert target.exists(), f"{page.relative_to(ROOT)} leads to {link}"


def test_the_architecture_names_every_module():
    text = read("docs/architecture.md")
    for path in (*modules(PACKAGE).values(), *modules(HARDWARE).values()):
        assert path.name == "__init__.py" or f"`{path.name}`" in text, path


def test_nothing_of_a_private_machine_is_tracked():
    for path in tracked_files():
        text = text_of(path)
        for word in FORBIDDEN:
            assert word not in text, f"{path.relative_to(ROOT)} contains {word!r}"


def test_the_repository_stays_small():
    sizes = {path: path.stat().st_size / 2**20 for path in tracked_files()}
    for path, size in sizes.items():
        assert size <= FILE_MB, path
    assert sum(sizes.values()) <= REPOSITORY_MB


def keys_of(value: object) -> Iterator[str]:
    """Every key in a nest of dicts and lists."""
    if isinstance(value, dict):
        yield from value
        yield from itertools.chain.from_iterable(map(keys_of, value.values()))
    elif isinstance(value, list):
        yield from itertools.chain.from_iterable(map(keys_of, value))


@pytest.mark.parametrize(
    "path", sorted((ROOT / "data/results").rglob("*.json")), ids=lambda path: path.stem
)
def test_a_result_says_how_it_was_made(path: Path):
    result = json.loads(path.read_text(encoding="utf-8"))
    for key in ("command", "seconds", "versions"):
        assert key in result, f"{path.name} lacks {key!r} at its top"
    assert isinstance(result["versions"], dict)
    assert "python" in result["versions"]
    said = set(keys_of(result))
    assert said & {"n", "repetitions"}, f"{path.name} says neither n nor repetitions"
    if any(key.startswith("success") for key in said):
        assert said & {"seed", "seeds"}, f"{path.name} has success rates without seeds"
        assert any("interval" in key or "wilson" in key for key in said), path.name


def test_every_file_can_be_read_in_one_sitting():
    for path in (one for package in CODE for one in modules(ROOT / package).values()):
        lines = code_lines(path.read_text(encoding="utf-8"))
        name = path.relative_to(ROOT)
        assert lines <= FILE_LINES, f"{name} holds {lines} lines of code"


def test_the_package_shows_the_path_and_five_folders():
    files = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__", "__main__"}
    assert files == {*PATH, *BESIDE}
    folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert folders == set(FOLDERS)


def test_the_path_can_be_read_in_an_afternoon():
    lines = {name: code_lines(read(f"act_minimal/{name}.py")) for name in PATH}
    assert sum(lines.values()) <= PATH_LINES, lines


def test_the_model_knows_tensors_and_nothing_else():
    # Where ImageNet's weights come from is torchvision's affair.
    libraries = {"torch", "torchvision", "numpy"}
    files = {"pathlib", "os", "io", "json", "shutil", "tempfile", "subprocess"}
    mine = ("support.errors", "model", "heads", "backbones", "settings")
    for module in ("model", "heads", "backbones"):
        for name in imports(PACKAGE / f"{module}.py", f"act_minimal.{module}"):
            top = name.partition(".")[0]
            allowed = top in (libraries | set(sys.stdlib_module_names)) - files
            ours = name.startswith(tuple(f"act_minimal.{one}." for one in mine))
            assert allowed or ours, f"{module}.py imports {name}"


@pytest.mark.parametrize(
    ("package", "banned"),
    [
        ("act_minimal", ("hardware", "course", "benchmarks", "tests")),
        ("hardware", ("course", "benchmarks", "tests")),
        ("course", ("benchmarks", "tests")),
    ],
)
def test_packages_import_in_one_direction(package, banned):
    """The arms are found by entry points: see `support/plugins.py`."""
    for name, path in modules(ROOT / package).items():
        for imported in imports(path, name):
            assert imported.partition(".")[0] not in banned, f"{name}: {imported}"


def test_only_virtual_arms_import_the_simulator():
    """And the OpenArm's model, which computes gravity with MuJoCo."""
    for name, path in modules(HARDWARE).items():
        if ".emulator" in name or name.startswith("hardware.virtual."):
            continue
        for imported in imports(path, name):
            assert not imported.startswith("act_minimal.sim"), f"{name}: {imported}"
            model = name == "hardware.openarm.model"
            assert imported.partition(".")[0] != "mujoco" or model, name


def import_graph() -> dict[str, set[str]]:
    """Module -> the modules that it imports, of all packages."""
    known = {k: v for package in CODE for k, v in modules(ROOT / package).items()}
    return {
        name: ({module_of(one, known) for one in imports(path, name)} & set(known))
        - {name}
        for name, path in known.items()
    }


def test_imports_form_no_circle():
    # An import inside a function counts: it hides a circle and does not break it.
    assert find_circle(import_graph()) == []


def test_a_circle_would_be_found():
    assert set(find_circle({"a": {"b"}, "b": {"c"}, "c": {"b"}})) == {"b", "c"}
    assert find_circle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []
    graph = import_graph()
    assert "act_minimal.settings" in graph["act_minimal.backbones"]  # an annotation's
    assert "hardware.virtual.client" in graph["hardware.robots"]  # in a function


def test_nothing_unpickles():
    for name, path in (modules(PACKAGE) | modules(HARDWARE)).items():
        banned = {"pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}
        found = {one.partition(".")[0] for one in imports(path, name)} & banned
        assert not found, f"{name} imports {found}"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute):
                said = ast.unparse(node)
                assert said not in ("torch.load", "torch.save"), f"{name}: {said}"
            if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
                assert ast.unparse(node.value) == "False", f"{name}: allow_pickle"


def test_no_test_depends_on_how_fast_the_machine_is():
    """Upper bounds on the computer's clock are red wherever it is busy."""
    bound = re.compile(r"assert .*time\.(?:monotonic|perf_counter)\(\).*<=? *([\d.]+)")
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for line in path.read_text(encoding="utf-8").splitlines():
            found = bound.search(line)
            cure = "move time by hand, wait for it, or measure again (tests/clocks.py)"
            assert not found or float(found[1]) >= 30, f"{path}: '{line}': {cure}"


def names_used(path: Path) -> Iterator[str]:
    """Every name that a test file gets from a module and then uses.

    "act_minimal.model.ACT" where it says `ACT`, or imports the module and says
    `model.ACT`; names in strings, which are patched or run as programs, too.
    """
    tree = ast.parse(path.read_text(encoding="utf-8"))
    package = ".".join(path.relative_to(ROOT).parent.parts)
    known: dict[str, str] = {}  # name here -> where it comes from
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            base = base_of(node, package)
            for one in node.names:
                known[one.asname or one.name] = f"{base}.{one.name}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id in known:
            yield known[node.id]
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if node.value.id in known:
                yield f"{known[node.value.id]}.{node.attr}"
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            packages = r"\b(?:act_minimal|hardware|course)(?:\.\w+)+"
            yield from re.findall(packages, node.value)


# Modules whose work is seen through another's: which tests would fail without them.
TESTED_THROUGH = {
    "act_minimal.command.train": "command/test_flags.py",
    "act_minimal.exchange.lerobot_normalisation": "exchange/test_lerobot_policy.py",
    "act_minimal.sim.env": "sim/test_so100.py",
    "course.exercises": "course/test_toolkit.py",
    "course.exercises.lesson_05_layers": "course/test_lesson_05.py",
    "course.exercises.lesson_06_train": "course/test_lesson_06.py",
    "course.exercises.tensors": "course/test_lesson_05.py",
    "course.figures.lesson_01_drift": "course/test_lesson_01.py",
    "course.toolkit.questions": "course/test_toolkit.py",
    "hardware.chain": "hardware/test_so100_kinematics.py",
    "hardware.openarm.bodies": "hardware/test_guard.py",
    "hardware.so100.emulator.arm": "hardware/test_so100_servo.py",
    "hardware.virtual.faults": "hardware/test_so100_bus.py",
    "hardware.virtual.scene": "hardware/test_openarm_client.py",
    "hardware.virtual.service": "hardware/test_so100_bus.py",
}


@pytest.mark.slow
def test_every_module_is_tested():
    """Tests use something that it defines: importing it is not enough."""
    tests = [*modules(ROOT / "tests").values()]
    used = {name for path in tests for name in names_used(path)}
    untested = []
    for package in ("act_minimal", "hardware", "course"):
        for name, path in modules(ROOT / package).items():
            defined = set()
            for node in ast.parse(path.read_text(encoding="utf-8")).body:
                if isinstance(node, ast.FunctionDef | ast.ClassDef):
                    defined.add(node.name)
                elif isinstance(node, ast.Assign):
                    defined |= {ast.unparse(target) for target in node.targets}
            of_its_name = f"test_{name.rpartition('.')[2]}.py"
            if (
                defined
                and not any(f"{name}.{one}" in used for one in defined)
                and of_its_name not in {path.name for path in tests}
            ):
                untested.append(name)
    assert sorted(untested) == sorted(TESTED_THROUGH)
    for test in TESTED_THROUGH.values():
        assert (ROOT / "tests" / test).exists(), test


def test_the_code_is_formatted():
    run_tool("ruff", "format", "--check", ".")


def test_the_linter_finds_nothing():
    run_tool("ruff", "check", ".")


@pytest.mark.slow
def test_the_type_checker_finds_nothing():
    run_tool("pyright", "--pythonpath", sys.executable)
