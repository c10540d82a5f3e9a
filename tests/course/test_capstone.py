"""The learner's own ACT: what is kept, what stands in, training and execution."""

import errno
import re

import numpy as np
import pytest
import torch

from act_minimal.dataset import Windows
from act_minimal.execution import ExecutionConfig, make_executor
from act_minimal.support.errors import UserError
from course import capstone
from course.figures import lesson_05_parts as parts
from course.toolkit import own_file, runs
from course.toolkit.paths import ROOT

pytestmark = pytest.mark.quick


def split_heads(x, heads):
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def my_attend(query, key, value, mask=None):
    score = query @ key.mT / query.shape[-1] ** 0.5
    if mask is not None:
        score = score.masked_fill(~mask, -torch.inf)
    return score.softmax(-1) @ value


TURNED = 1


def my_unflatten(x, h):
    return x.unflatten(-1, (h, -1))


def needs_helpers(x, heads):
    return my_unflatten(x, heads).transpose(TURNED, 2)


def executed(chunks, h):
    t = np.arange(len(chunks))
    asked = t // h * h
    return chunks[asked, t - asked]


def by_choice(chunks, h):
    """The same as a sum over all chunks, of which one counts."""
    t = np.arange(len(chunks))
    made, step = np.eye(len(chunks))[t // h * h], np.eye(chunks.shape[1])[t % h]
    return np.einsum("tm,mka,tk->ta", made, chunks, step)


def average(predictions, m):
    weights = np.exp(-m * np.arange(len(predictions)))
    return weights @ predictions / weights.sum()


def test_right_answers_are_kept_and_found_by_another_kernel():
    assert capstone.check("05.split-heads", split_heads).state == "right"
    assert capstone.check("05.attend", my_attend).state == "right"  # of another name
    wrong = capstone.check("05.decode", lambda w, memory, key: memory)
    assert wrong.state == "wrong"
    found = capstone.pieces()
    assert found.yours == ("attend", "split_heads")
    assert found.attend is not my_attend  # it was read from the file
    x = torch.randn(2, 3, 8)
    torch.testing.assert_close(found.split_heads(x, 2), split_heads(x, 2))
    assert found.decode is parts.decode
    assert "yours: attend, split_heads\n" in str(found)
    assert "the course's: decode (not kept yet)" in str(found)


def test_a_better_answer_takes_the_place_of_an_older_one():
    capstone.check("05.split-heads", split_heads)
    capstone.check("05.attend", my_attend)
    before = capstone.my_file().read_text()
    capstone.keep("05.split-heads", parts.split_heads)
    text = capstone.my_file().read_text()
    assert "torch.stack(x.chunk(heads, -1), 1)" in text
    assert "unflatten" in before
    assert "unflatten" not in text
    assert capstone.pieces().yours == ("attend", "split_heads")


def test_a_kept_piece_is_checked_again():
    capstone.check("05.attend", my_attend)
    path = capstone.my_file()
    good = path.read_text()
    path.write_text(good + "\n# %% 05.attend\ndef attend(:\n")
    assert "SyntaxError" in capstone.pieces().missing["attend"]
    path.write_text(good + "\n# %% 05.sinusoid\nraise SystemExit(3)\n")
    assert "SystemExit: 3" in capstone.pieces().missing["sinusoid"]
    path.write_text(good + "\n# %% 05.sinusoid\nraise KeyboardInterrupt\n")
    with pytest.raises(KeyboardInterrupt):
        capstone.pieces()
    path.write_text("nothing")
    assert capstone.pieces().yours == ()


class Splitter:
    def __call__(self, x, heads):
        return split_heads(x, heads)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (lambda x, heads: split_heads(x, heads), "a lambda has no source of its own"),
        (Splitter(), "a Splitter has no source of its own"),
        (
            needs_helpers,
            "it uses `TURNED` and `my_unflatten`, which are defined outside the "
            "function; put them inside",
        ),
    ],
)
def test_a_right_answer_that_cannot_be_kept_says_so_at_once(answer, why):
    verdict = capstone.check("05.split-heads", answer)
    assert verdict.state == "right"
    assert f"It is right, but could not be kept: {why}" in verdict.message
    assert not capstone.my_file().exists()
    assert capstone.pieces().missing["split_heads"] == "not kept yet"


def test_what_has_no_source_is_not_kept():
    space = {}
    exec("def split_heads(x, h): return x.unflatten(-1, (h, -1)).mT", space)
    with pytest.raises(UserError, match="its source is not found"):
        capstone.keep("05.split-heads", space["split_heads"])


def test_what_the_learner_writes_around_the_pieces_stays_and_is_used():
    capstone.check("05.split-heads", split_heads)
    path = capstone.my_file()
    text = path.read_text().replace("\n# %% ", "\nTURNED = 1\n\n# %% ", 1)
    notes = "# %% notes\ndef my_unflatten(x, h):\n    return x.unflatten(-1, (h, -1))\n"
    path.write_text(f"{text}\n\n{notes}")
    verdict = capstone.check("05.split-heads", needs_helpers)
    assert "could not be kept" not in verdict.message
    capstone.check("05.attend", my_attend)
    text = path.read_text()
    assert text.startswith(own_file.HEADER)
    assert "\nTURNED = 1\n" in text
    assert "\n# %% notes\ndef my_unflatten" in text
    assert text.count("# %% 05.split-heads") == 1
    assert "def split_heads" not in text
    assert capstone.pieces().yours == ("attend", "split_heads")
    path.write_text(text.replace("TURNED = 1", "TURNED = 1 / 0"))
    why = capstone.pieces().missing["attend"]
    assert why == "above the first mark, ZeroDivisionError: division by zero"


def test_a_foreign_file_is_set_aside():
    path = capstone.my_file()
    path.parent.mkdir()
    path.with_name("my_act.py.bak").write_text("older")
    path.write_text("thesis = 1\n")
    verdict = capstone.check("05.attend", my_attend)
    assert "What my_act.py held before is in my_act.py.bak2." in verdict.message
    assert path.with_name("my_act.py.bak").read_text() == "older"
    assert path.with_name("my_act.py.bak2").read_text() == "thesis = 1\n"
    assert "thesis" not in path.read_text()
    assert "my_act.py.bak" not in capstone.check("05.attend", my_attend).message


def test_a_file_that_cannot_be_read_is_left_as_it_is():
    path = capstone.my_file()
    path.parent.mkdir()
    latin = "# %% 05.attend\n# für mich\n".encode("latin-1")
    path.write_bytes(latin)
    verdict = capstone.check("05.attend", my_attend)
    assert verdict.state == "right"
    assert re.search(r"could not be kept: \S+my_act\.py is not UTF-8", verdict.message)
    assert path.read_bytes() == latin
    assert "is not UTF-8" in capstone.pieces().missing["attend"]
    path.unlink()
    path.mkdir()
    verdict = capstone.check("05.attend", my_attend)
    assert verdict.state == "right"
    assert "could not be kept" in verdict.message
    assert "directory" in verdict.message


def test_a_folder_that_cannot_be_written_to_is_said(tmp_path, monkeypatch):
    def refused(path):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(runs, "FileLock", refused)
        verdict = capstone.check("05.attend", my_attend)
    assert verdict.state == "right"
    assert "my_act.py could not be written: Permission denied" in verdict.message
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ACT_MINIMAL_COURSE", str(tmp_path / "file" / "course"))
    verdict = capstone.check("05.attend", my_attend)
    assert verdict.state == "right"
    assert "could not be kept" in verdict.message
    assert capstone.pieces().missing["attend"] == "not kept yet"


def test_exercises_of_other_lessons_are_not_kept():
    capstone.check("06.ranks", lambda a, b: 0.0)
    right = capstone.check("06.updates", counted)
    assert right.state == "right"
    assert not capstone.my_file().exists()


def counted(epochs, episodes, frames, batch, share):
    return epochs * -(-round(share * episodes) // batch)


@pytest.fixture
def windows(demos):
    return Windows(demos, range(len(demos)), chunk_size=10)


def test_own_act_is_the_package_s_with_equal_weights(windows):
    policy = capstone.own_policy(windows, seed=3)
    batch, eps = next(capstone.batches(policy, windows, 1, size=4))
    found = policy.module(batch, eps)
    right = policy.module.weights(batch, eps)
    for a, b in zip(found, right, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)
    loss, parts = policy.module.loss(batch, eps)
    right, its = policy.module.weights.loss(batch, eps)
    torch.testing.assert_close(loss, right)
    torch.testing.assert_close(parts, its, atol=1e-5, rtol=1e-4)
    seen = {k: x for k, x in batch.items() if k in ("qpos", "env_state")}
    right = policy.module.weights(seen).actions
    torch.testing.assert_close(policy.module(seen).actions, right, atol=1e-5, rtol=1e-4)


def test_batches_are_normalised_and_repeat(windows):
    policy = capstone.own_policy(windows)
    many = [batch for batch, _ in capstone.batches(policy, windows, 12)]
    joints = torch.cat([batch["qpos"] for batch in many])
    assert joints.std(0).numpy() == pytest.approx(np.ones(6), abs=0.3)
    again, eps = next(capstone.batches(policy, windows, 1))
    torch.testing.assert_close(again["qpos"], many[0]["qpos"])
    assert eps.shape == (64, 16)
    assert again["is_pad"].dtype == torch.bool


def test_own_training_learns_and_says_whose_the_parts_are(windows):
    def not_yet(model, batches, optimizer, beta): ...

    capstone.check("05.attend", my_attend)
    run = capstone.train_own(windows, not_yet, steps=40, lr=4e-3)
    assert np.mean(run.losses[-10:]) < 0.8 * np.mean(run.losses[:10])
    said = str(run)
    assert "yours: attend\n" in said
    assert "loop: the course's" in said
    right = capstone.train_own(windows, capstone.train, steps=1, lr=4e-3)
    assert "loop: yours" in str(right)


def test_the_rate_rises_and_falls(windows):
    policy = capstone.own_policy(windows)
    optimizer = capstone.adamw(policy, 1.0, 100)
    rates = []
    for _ in range(100):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
    assert rates[9] == pytest.approx(10 / 50 * 0.5 * (1 + np.cos(np.pi * 0.09)))
    assert rates[60] == pytest.approx(0.5 * (1 + np.cos(np.pi * 0.6)))
    assert rates[-1] < 1e-3


@pytest.mark.parametrize(
    ("exercise", "function", "mode", "package"),
    [
        ("02.receding", executed, "OwnHorizon", ExecutionConfig()),
        ("02.receding", by_choice, "OwnHorizon", ExecutionConfig()),
        ("04.average", average, "OwnEnsemble", ExecutionConfig("ensemble")),
    ],
)
@pytest.mark.parametrize("k", [5, 1])
def test_own_executors_do_what_the_package_s_do(exercise, function, mode, package, k):
    name = capstone.EXECUTORS[exercise]
    whose = [words for words in capstone.ways() if f"your `{name}`" in words]
    assert whose == []
    assert capstone.check(exercise, function).state == "right"
    [words] = [words for words in capstone.ways() if f"your `{name}`" in words]
    way = capstone.ways()[words]
    assert way.mode == f"course.capstone:{mode}"
    own, right = make_executor(way, k), make_executor(package, k)
    rng = np.random.default_rng(0)
    for _ in range(2):  # the second episode knows nothing of the first
        own.reset()
        right.reset()
        for _ in range(13):
            assert own.needs_chunk() == right.needs_chunk()
            chunk = rng.normal(size=(3, k, 6)) if own.needs_chunk() else None
            np.testing.assert_allclose(own.step(chunk), right.step(chunk), atol=1e-6)


def test_own_policies_are_rolled_out(windows):
    policy = capstone.own_policy(windows).eval()
    for way in capstone.ways().values():
        found = capstone.roll_out(policy, way, n=2, seed=1)
        assert (found.n, found.successes) == (2, 0)  # it is untrained


def test_the_solved_edition_is_made_of_its_own_pieces():
    """Lessons 02, 04 and 05 were run before it, with the same folder."""
    text = (ROOT / "notebooks/solutions/06_training.ipynb").read_text(encoding="utf-8")
    assert f"yours: {', '.join(capstone.PIECES.values())}" in text
    assert "loop: yours" in text
    for name in capstone.EXECUTORS.values():
        assert f"(your `{name}`)" in text
