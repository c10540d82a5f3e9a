"""The file of the learner's own functions: what is replaced in it, and what stays."""

import re

import pytest

from course import capstone
from course.toolkit import own_file
from course.toolkit.paths import ROOT
from course.toolkit.stubs import split_exercise

pytestmark = pytest.mark.quick

NAMES = {"99.double": "double", "99.half": "half"}


HALF = '''
def half(x):
    """Half of it.

    # %% 99.half
    """
    y = x
# %% the rest of it
    return y / 2
'''
MARKED = """
def half(x):
    return (
# %% 99.double
        x / 2
    )
"""


def twice(x):
    return x + x


@pytest.fixture
def path(tmp_path):
    return tmp_path / "own.py"


@pytest.fixture
def half(tmp_path):
    """Makes a function of its source, as a cell does."""

    def make(source):
        cell = tmp_path / "cell.py"
        cell.write_text(source)
        space = {}
        exec(compile(source, str(cell), "exec"), space)
        return space["half"]

    return make


def run(path):
    space = {}
    exec(path.read_text(encoding="utf-8"), space)
    return space


def test_a_text_is_parted_at_its_own_marks_and_put_together_again():
    text = "a\n# %% 99.half\n\n# %% notes\nb = '\x0c'\n# %% 99.double \n"
    sections = own_file.split(text, NAMES)
    assert sections == [
        ("", "a"),
        ("99.half", "\n# %% notes\nb = '\x0c'"),
        ("99.double", ""),
    ]
    assert own_file.join(sections) == text.replace("double ", "double")


def test_a_mark_inside_a_function_does_not_cut_it(path, half):
    for name, function in (("half", half(HALF)), ("double", twice)) * 2:
        own_file.put(path, f"99.{name}", function, NAMES)
    assert HALF in path.read_text()
    assert (run(path)["double"](3), run(path)["half"](3)) == (6, 1.5)


def test_a_line_that_is_a_mark_is_refused(path, half):
    with pytest.raises(own_file.NotKept, match="holds a mark of a piece"):
        own_file.put(path, "99.half", half(MARKED), NAMES)
    assert not path.exists()


@pytest.mark.parametrize(
    "before",
    [
        "def double(x):\n    return 3 * x",
        "@str\n@repr\ndef double(x):\n    return 3 * x",
        "def triple(x):\n    return 3 * x\n\n\ndouble = triple",
        "double = lambda x: 3 * x",
        "",
    ],
)
def test_only_the_definition_is_replaced(path, before):
    above = own_file.HEADER + "\nMINE = 1\n"
    path.write_text(f"{above}\n# %% 99.double\n# a\n{before}\n\n# %% b\nc = 2\n")
    assert own_file.put(path, "99.double", twice, NAMES) == ""
    text = path.read_text()
    assert text.startswith(above)
    assert "3 * x" not in text
    assert "# a\n" in text
    assert "# %% b\nc = 2\n" in text
    assert text.count("double = twice") == 1
    assert run(path)["double"](4) == 8
    own_file.put(path, "99.double", twice, NAMES)
    assert path.read_text() == text


@pytest.mark.parametrize("section", ["def double(:", "m = 2; double = m; double = 4"])
def test_a_section_that_cannot_be_told_apart_is_set_aside(path, section):
    before = f"{own_file.HEADER}\n# %% 99.double\n{section}\n# %% 99.half\nz = 1\n"
    path.write_text(before)
    said = own_file.put(path, "99.double", twice, NAMES)
    assert said == "What own.py held before is in own.py.bak."
    assert path.with_name("own.py.bak").read_text() == before
    assert run(path)["z"] == 1
    assert run(path)["double"](4) == 8


def test_a_function_around_it_is_not_kept(path):
    count = 0

    def double(x):
        nonlocal count
        count += 1
        return 2 * x

    with pytest.raises(own_file.NotKept, match="needs the function around it"):
        own_file.put(path, "99.double", double, NAMES)


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("def f(x):\n    return f(len(x))", set()),
        ("def f(x, m=M):\n    return [a + b for a in x]", {"M", "b"}),
        ("def f(x: T):\n    import g\n    return g.h(lambda y: y + x + z)", {"T", "z"}),
    ],
)
def test_names_from_outside_are_found(source, names):
    assert own_file.outside(source) == names


def test_the_solutions_of_the_pieces_need_nothing_from_outside():
    found = 0
    for path in (ROOT / "notebooks" / "src").glob("0[2456]_*.py"):
        for cell in re.split(r"^# %%.*$", path.read_text("utf-8"), flags=re.M):
            for key, name in capstone.KEPT.items():
                if f'check("{key}", {name})' in cell:
                    teacher = split_exercise(cell)[1]
                    source = teacher[: teacher.index("check(")]
                    known = own_file.outside(own_file.HEADER + source)
                    assert known == set(), key
                    found += 1
    assert found == len(capstone.KEPT)
