"""Text is UTF-8 wherever it is read or written, and files are written in one place."""

import ast
import re
from collections.abc import Iterator

import pytest

from .test_project import CODE, ROOT, modules

pytestmark = pytest.mark.quick


def reads_or_writes_text(call: ast.Call) -> bool:
    """Whether a call opens text without an encoding: the locale's would be taken."""
    given = {word.arg for word in call.keywords}
    name = call.func.attr if isinstance(call.func, ast.Attribute) else ""
    if isinstance(call.func, ast.Name):
        name = call.func.id
    if "encoding" in given:
        return False
    if name in ("read_text", "write_text"):
        # A path's; `files.write_text` writes UTF-8 itself.
        owner = ast.unparse(call.func).rpartition(".")[0]
        given_first = name == "read_text" and call.args
        return owner not in ("", "files") and not given_first
    if {"text", "universal_newlines"} & given:  # of subprocess
        return True
    if name not in ("open", "fdopen", "NamedTemporaryFile", "TextIOWrapper"):
        return False
    if name == "open" and isinstance(call.func, ast.Attribute):
        # A path's, if it has a mode; buses and cameras are opened, too.
        modes = [one for one in call.args[:1] if isinstance(one, ast.Constant)]
        if not modes or not re.fullmatch("[rwaxbt+]+", str(modes[0].value)):
            return False
    else:
        modes = [one for one in call.args[1:2] if isinstance(one, ast.Constant)]
    modes += [word.value for word in call.keywords if word.arg == "mode"]
    said = "".join(str(one.value) for one in modes if isinstance(one, ast.Constant))
    return "b" not in (said or ("w+b" if name == "NamedTemporaryFile" else "r"))


def test_text_is_utf8_whatever_the_locale():
    paths = [one for package in CODE for one in modules(ROOT / package).values()]
    paths += [ROOT / "notebooks/make.py"]
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            unsaid = isinstance(node, ast.Call) and reads_or_writes_text(node)
            assert not unsaid, f'{path}:{node.lineno} does not say encoding="utf-8"'


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("path.read_text()", True),
        ("path.read_text(encoding='utf-8')", False),
        ("path.write_text(text)", True),
        ("write_text(path, text)", False),
        ("open(path)", True),
        ("open(path, 'rb')", False),
        ("open(path, mode='a')", True),
        ("path.open('w')", True),
        ("path.open('rb')", False),
        ("bus.open()", False),
        ("av.open(str(path), 'w')", False),
        ("subprocess.run(command, text=True)", True),
        ("subprocess.run(command, encoding='utf-8')", False),
    ],
)
def test_text_without_an_encoding_would_be_found(code, expected):
    call = ast.parse(code, mode="eval").body
    assert isinstance(call, ast.Call)
    assert reads_or_writes_text(call) == expected


# What writes, moves or removes by itself although `support/files.py` could, and why.
WRITES_ITSELF = {
    ("act_minimal/checkpoint.py", "open"): "log.jsonl, which grows line by line",
    ("act_minimal/checkpoint.py", "SummaryWriter"): "a log, too: TensorBoard's",
    ("act_minimal/command/main.py", "open"): "the null device, for a closed output",
    ("act_minimal/datasets/edit.py", "rename"): "a repair: whenever it stops, all "
    "episodes are there under some name (test_edit.py kills it)",
    ("act_minimal/episodes.py", "write_bytes"): "in `atomic_file`, with its room first",
    ("act_minimal/episodes.py", "File"): "in `atomic_file`, with its room first",
    ("act_minimal/exchange/lerobot_files.py", "write_table"): "in `atomic_folder`",
    ("act_minimal/exchange/lerobot_write.py", "write_table"): "in `atomic_folder`",
    ("act_minimal/exchange/lerobot_write.py", "ParquetWriter"): "in `atomic_folder`",
    ("act_minimal/support/video.py", "open"): "in `atomic_file` or `atomic_folder`",
    (
        "benchmarks/notebooks/lab.py",
        "open",
    ): "a program's output, in a temporary folder",
    ("hardware/clock.py", "write_bytes"): "memory that programs share, while they run",
    ("hardware/clock.py", "open"): "memory that programs share, while they run",
    (
        "hardware/safety/stop.py",
        "open",
    ): "interventions.jsonl, which grows line by line",
    ("hardware/so100/emulator/service.py", "symlink_to"): "a port leads to a terminal",
}

OPENERS = {"fdopen", "open", "File", "TarFile", "ZipFile"}
WRITERS = {
    *("copy2", "copyfile", "copytree", "extractall", "hardlink_to", "imsave"),
    *("imwrite", "memmap", "open_memmap", "rename", "renames", "rmtree", "save_file"),
    *("savefig", "savetxt", "savez", "savez_compressed", "symlink_to", "tofile"),
    *("touch", "truncate", "write_table"),
    *("FileHandler", "ParquetWriter", "SummaryWriter"),
}
# As functions they are ours, or safetensors' `save`, which writes to memory.
METHODS = {"dump", "save", "write_bytes", "write_text"}
OF_SYSTEM = {"copy", "link", "mkfifo", "move", "removedirs", "replace", "symlink"}


def writes_itself(code: str) -> Iterator[tuple[int, str]]:
    """Line and name of every call that writes or moves files, or removes folders.

    One that speaks of a name that `atomic_file` or `atomic_folder` gave does not, and
    neither does one that writes to memory.
    """
    tree, fine = ast.parse(code), set()
    memory: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and "BytesIO(" in ast.unparse(node.value):
            memory |= {name for one in node.targets for name in names_in(one)}
        elif isinstance(node, ast.With):
            given: set[str] = set()
            for item in node.items:
                made = re.match(
                    r"(files\.)?atomic_\w+\(", ast.unparse(item.context_expr)
                )
                given |= names_in(item.optional_vars) if made else set()
            fine |= {call for call in ast.walk(node) if given & goes_to(call)}
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    for call in calls:
        if is_writer(call) and call not in fine and not memory & goes_to(call):
            yield call.lineno, ast.unparse(call.func).rpartition(".")[2]


def is_writer(call: ast.Call) -> bool:
    """Whether a call does that, as far as its words tell."""
    owner, _, name = ast.unparse(call.func).rpartition(".")
    if name in OPENERS and owner == "os":
        return "O_RDONLY" not in ast.unparse(call)
    if name in OPENERS:
        of_path = name == "open" and owner not in ("", "av", "h5py", "io", "tarfile")
        given = call.args[0 if of_path else 1 :][:1]
        given += [word.value for word in call.keywords if word.arg == "mode"]
        return any(
            not isinstance(one, ast.Constant)
            or re.fullmatch("[rbt]*[wxa+][wxarbt+]*", str(one.value))
            for one in given
        )
    if name in METHODS:
        return owner not in ("", "files")
    if name == "replace" and owner != "os":  # a path's; texts take two, records none
        return bool(owner) and len(call.args) == 1 and not call.keywords
    return owner in ("os", "shutil") if name in OF_SYSTEM else name in WRITERS


def goes_to(node: ast.AST) -> set[str]:
    """The names in a call that say where its files go."""
    if not isinstance(node, ast.Call):
        return set()
    owner, _, name = ast.unparse(node.func).rpartition(".")
    if name in ("write_bytes", "write_text"):
        return names_in(node.func)
    last = owner in ("os", "shutil") and node.args
    return names_in(node.args[-1] if last else node)


def names_in(node: ast.AST | None) -> set[str]:
    found = ast.walk(node) if node else ()
    return {one.id for one in found if isinstance(one, ast.Name)}


def test_files_are_written_in_one_place():
    paths = [one for package in CODE for one in modules(ROOT / package).values()]
    found = set()
    for path in (*paths, ROOT / "notebooks/make.py"):
        name = path.relative_to(ROOT).as_posix()
        if name == "act_minimal/support/files.py":
            continue
        for line, what in writes_itself(path.read_text(encoding="utf-8")):
            found.add((name, what))
            cure = "use act_minimal/support/files.py, or say why not in WRITES_ITSELF"
            assert (name, what) in WRITES_ITSELF, f"{name}:{line} calls {what}: {cure}"
    assert found == set(WRITES_ITSELF), "what no longer writes needs no explanation"


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("path.write_text(text, encoding='utf-8')", "write_text"),
        ("(folder / 'a').write_bytes(content)", "write_bytes"),
        ("write_text(path, text)", ""),
        ("files.write_json(path, content)", ""),
        ("open(path, 'w')", "open"),
        ("open(path, mode)", "open"),
        ("open(path, 'rb')", ""),
        ("open(path, encoding='utf-8')", ""),
        ("path.open(mode='x')", "open"),
        ("path.open('ab', buffering=0)", "open"),
        ("path.open('r+b')", "open"),
        ("bus.open()", ""),
        ("av.open(str(path), 'w')", "open"),
        ("os.open(path, os.O_WRONLY | os.O_CREAT)", "open"),
        ("os.open(folder, os.O_RDONLY)", ""),
        ("h5py.File(path, 'r')", ""),
        ("h5py.File(path, 'a')", "File"),
        ("zipfile.ZipFile(path, mode='w')", "ZipFile"),
        ("os.replace(one, other)", "replace"),
        ("os.rename(one, other)", "rename"),
        ("path.rename(other)", "rename"),
        ("path.replace(other)", "replace"),
        ("text.replace('a', 'b')", ""),
        ("dataclasses.replace(config, port=port)", ""),
        ("replace(config, port=port)", ""),
        ("shutil.rmtree(folder, ignore_errors=True)", "rmtree"),
        ("rmtree(folder)", "rmtree"),
        ("shutil.move(one, other)", "move"),
        ("shutil.copy(one, folder)", "copy"),
        ("words.copy()", ""),
        ("np.save(path, array)", "save"),
        ("np.savez(path, a=array)", "savez"),
        ("json.dump(content, file)", "dump"),
        ("json.dumps(content)", ""),
        ("save_file(tensors, path)", "save_file"),
        ("save(tensors)", ""),
        ("image.save(path)", "save"),
        ("buffer = io.BytesIO()\nimage.save(buffer, format='png')", ""),
        ("buffer = io.BytesIO()\npath.write_bytes(buffer.getvalue())", "write_bytes"),
        ("figure.savefig(path)", "savefig"),
        ("with atomic_file(path) as new: figure.savefig(new)", ""),
        ("with atomic_file(path) as new: figure.savefig(path)", "savefig"),
        ("with atomic_file(path) as new: pass\nnew.write_text(text)", "write_text"),
        ("with atomic_file(path) as new: open(new, 'wb')", ""),
        ("with atomic_folder(out) as new: shutil.copyfile(a, new / 'a')", ""),
        ("with atomic_folder(out) as new: shutil.copyfile(new / 'a', a)", "copyfile"),
        ("with atomic_folder(out) as new: (new / 'a').write_text(text)", ""),
        ("with atomic_folder(out) as new: path.write_text(new.name)", "write_text"),
    ],
)
def test_what_writes_by_itself_would_be_found(code, expected):
    assert "".join(name for _, name in writes_itself(code)) == expected
