"""Bad demonstrations of a real arm, each spoiled in one way, each found by name."""

import numpy as np
import pytest

from act_minimal.command import main as cli
from act_minimal.episodes import Episode, episode_path, save_episode
from hardware.command.checklist import check_recordings, displacement, traits_of

pytestmark = pytest.mark.quick


def episode(seed, *, length=60):
    """An arm that reaches out, closes its jaw in the middle, and comes to rest."""
    rng = np.random.default_rng(seed)
    s = np.clip(np.linspace(0, 1.3, length), 0, 1)[:, None]
    action = (s**3 * (10 - 15 * s + 6 * s**2)) * np.array([0.5, 0.8, -0.6, 0.3, 0, 0])
    action[:, 5] = np.where(np.arange(length) < length // 2, 0.8, 0.1)
    qpos = np.concatenate([action[:1], action[:-1]]) + rng.normal(0, 1e-3, (length, 6))
    board = np.kron(
        np.random.default_rng(7).integers(0, 255, (12, 16)), np.ones((8, 8))
    )
    images = np.repeat(board[None, :, :, None], length, axis=0).repeat(3, axis=3)
    noise = np.random.default_rng(seed).integers(0, 3, images.shape)
    return Episode(
        qpos=qpos.astype(np.float32),
        qvel=np.zeros((length, 6), np.float32),
        effort=np.zeros((length, 6), np.float32),
        action=action.astype(np.float32),
        images={"top": np.clip(images + noise, 0, 255).astype(np.uint8)},
        fps=30.0,
        sim=False,
        attributes={"period_ms_p99": 34.0},
    )


def findings(tmp_path, spoil=None):
    for i in range(5):
        one = episode(i)
        if spoil and i == 3:
            one = spoil(one) or one
        save_episode(episode_path(tmp_path, i), one)
    return check_recordings(tmp_path)


def test_good_demonstrations_are_left_alone(tmp_path):
    assert findings(tmp_path) == []


def other_start(e):
    e.qpos[0, 1] += 0.5


def other_end(e):
    e.qpos[-4:, 2] += 0.5


def far_longer(e):
    return episode(3, length=150)


def cut_off(e):
    e.qpos[-4:, 0] = [0.1, 0.2, 0.3, 0.4]


def never_grips(e):
    e.action[:, 5] = 0.8


def grips_late(e):
    e.action[:, 5] = np.where(np.arange(60) < 56, 0.8, 0.1)


def never_opens(e):
    e.action[:, 5] = 0.1


def does_not_follow(e):
    e.qpos[:] = e.qpos[:1]


def jerky(e):
    e.attributes["period_ms_p99"] = 80.0


def moved_camera(e):
    e.images["top"] = np.roll(e.images["top"], 5, axis=2)


def darker(e):
    e.images["top"] = e.images["top"] - np.minimum(e.images["top"], 40)


def fading(e):
    e.images["top"][30:] //= 2


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (other_start, "starts with joint 1 0.50 rad"),
        (other_end, "ends with joint 2"),
        (far_longer, "lasts 5.0 s, the others 2.0 s"),
        (cut_off, "still moves at 3.0 rad/s at the end"),
        (never_grips, "never closes on anything"),
        (grips_late, "grips after 93 % of its time, the others after 50 %"),
        (never_opens, "the gripper never opens"),
        (does_not_follow, "rad from its command"),
        (jerky, "ticks last up to 2.4 periods"),
        (moved_camera, "displaced by +5, +0 pixels"),
        (darker, "camera 'top' begins with brightness"),
        (fading, "the brightness of camera 'top' goes from"),
    ],
)
def test_a_spoiled_demonstration_is_found_by_name(tmp_path, spoil, says):
    said = findings(tmp_path, spoil)
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


def test_act_inspect_asks_the_checklist_about_real_recordings(tmp_path, capsys):
    findings(tmp_path, moved_camera)
    with pytest.raises(SystemExit):
        cli.main(["inspect", str(tmp_path)])
    said = " ".join(capsys.readouterr().out.split())
    assert "WARNING episode_3.hdf5: the picture of camera 'top' is displaced" in said


def test_traits_of_an_episode_without_pictures_or_timing():
    one = episode(0)
    one.images, one.attributes = {}, {}
    traits = traits_of("a", one)
    assert (traits.pictures, traits.jitter) == ({}, None)
    assert traits.grips == pytest.approx(0.5)
