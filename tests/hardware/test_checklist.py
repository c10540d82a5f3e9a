"""Bad demonstrations of a real arm, each spoiled in one way, each found by name."""

import numpy as np
import pytest

from act_minimal.episodes import Episode, episode_path, save_episode
from hardware.command.checklist import check_recordings, displacement, traits_of

from ..commands import act

pytestmark = pytest.mark.quick


def episode(seed, *, length=60):
    """An arm that reaches out, closes its jaw in the middle, and comes to rest."""
    rng = np.random.default_rng(seed)
    s = np.clip(np.linspace(0, 1.3, length), 0, 1)[:, None]
    action = (s**3 * (10 - 15 * s + 6 * s**2)) * np.array([0.5, 0.8, -0.6, 0.3, 0, 0])
    action[:, 5] = np.where(np.arange(length) < length // 2, 0.8, 0.1)
    qpos = np.concatenate([action[:1], action[:-1]]) + rng.normal(0, 1e-3, (length, 6))
    squares = np.random.default_rng(7).integers(0, 255, (12, 16))
    board = np.kron(squares, np.ones((8, 8)))[None, :, :, None]
    images = np.repeat(board, length, axis=0).repeat(3, axis=3)
    noise = np.random.default_rng(seed).integers(0, 3, images.shape)
    still = np.zeros((length, 6), np.float32)
    return Episode(
        qpos=qpos.astype(np.float32),
        qvel=still,
        effort=still,
        action=action.astype(np.float32),
        images={"top": np.clip(images + noise, 0, 255).astype(np.uint8)},
        fps=30.0,
        sim=False,
        attributes={"period_ms_p99": 34.0},
    )


def findings(tmp_path, what="", where=None, change=None):
    """Of five demonstrations, of which one is spoiled: some of its numbers changed."""
    for i in range(5):
        one = episode(i, length=150 if i == 3 and what == "length" else 60)
        if i == 3 and change:
            numbers = one.images["top"] if what == "top" else getattr(one, what)
            numbers[where] = change(numbers[where])
        save_episode(episode_path(tmp_path, i), one)
    return check_recordings(tmp_path)


def test_good_demonstrations_are_left_alone(tmp_path):
    assert findings(tmp_path) == []


ALL, JAW, LATE = np.s_[:], np.s_[:, 5], np.where(np.arange(60) < 56, 0.8, 0.1)
MOVED = ("top", ALL, lambda x: np.roll(x, 5, axis=2))


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (("qpos", (0, 1), lambda x: x + 0.5), "starts with joint 1 0.50 rad"),
        (("qpos", np.s_[-4:, 2], lambda x: x + 0.5), "ends with joint 2"),
        (("length",), "lasts 5.0 s, the others 2.0 s"),
        (
            ("qpos", np.s_[-4:, 0], lambda x: [0.1, 0.2, 0.3, 0.4]),
            "still moves at 3.0 rad/s at the end",
        ),
        (("action", JAW, lambda x: 0.8), "never closes on anything"),
        (("action", JAW, lambda x: LATE), "after 93 % of its time, the others after 5"),
        (("action", JAW, lambda x: 0.1), "the gripper never opens"),
        (("qpos", ALL, lambda x: x[:1]), "rad from its command"),
        (("attributes", "period_ms_p99", lambda x: 80.0), "last up to 2.4 periods"),
        (MOVED, "displaced by +5, +0 pixels"),
        (("top", ALL, lambda x: x - np.minimum(x, 40)), "'top' begins with brightness"),
        (("top", np.s_[30:], lambda x: x // 2), "brightness of camera 'top' goes from"),
    ],
)
def test_a_spoiled_demonstration_is_found_by_name(tmp_path, spoil, says):
    said = findings(tmp_path, *spoil)
    assert any(says in text for text in said), said
    assert all(text.startswith("episode_3.hdf5: ") for text in said), said


def test_displacement_is_measured_to_a_pixel():
    picture = episode(0).images["top"][0, :, :, 0].astype(np.float32)
    shift, sure = displacement(picture, np.roll(picture, (3, -6), axis=(0, 1)))
    assert shift == pytest.approx([-6, 3], abs=0.5)
    assert sure > 0.3


def test_two_episodes_have_no_usual_one(tmp_path):
    save_episode(episode_path(tmp_path, 0), episode(0))
    assert check_recordings(tmp_path) == []


def test_act_inspect_asks_the_checklist_about_real_recordings(tmp_path):
    findings(tmp_path, *MOVED)
    _, out, _ = act("inspect", tmp_path)
    said = " ".join(out.split())
    assert "WARNING episode_3.hdf5: the picture of camera 'top' is displaced" in said


def test_traits_of_an_episode_without_pictures_or_timing():
    one = episode(0)
    one.images, one.attributes = {}, {}
    traits = traits_of("a", one)
    assert (traits.pictures, traits.jitter) == ({}, None)
    assert traits.grips == pytest.approx(0.5)
