"""Altered demonstrations, changed places and servos: what the claims about data try."""

from dataclasses import replace

import numpy as np
import pytest

from act_minimal.episodes import list_episodes, load_episode
from act_minimal.sim import PickPlace, make_task
from act_minimal.sim.recording import demonstrate, record
from act_minimal.sim.so100.changed_scenes import Change
from act_minimal.sim.so100.pick_place import ZONE_CENTRE, ZONE_SIZE
from act_minimal.support.errors import UserError
from benchmarks import altered as altered_module
from benchmarks.altered import ALTERATIONS, altered, redrawn
from benchmarks.claims import gains, places, stability

pytestmark = pytest.mark.mostly_quick


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    """Ten demonstrations by a person."""
    out = tmp_path_factory.mktemp("data") / "human_10"
    record(PickPlace(), out, 10, demonstrator="human", progress=False)
    return out


def changed(recording, how):
    """The ten, before and after."""
    before = [load_episode(path) for path in list_episodes(recording)]
    return before, [load_episode(p) for p in list_episodes(altered(how, recording, 0))]


def test_a_share_is_cut_short_and_the_rest_is_as_it_was(recording):
    before, after = changed(recording, "truncated_30")
    shares = [len(b) / len(a) for a, b in zip(before, after, strict=True)]
    assert sum(share < 1 for share in shares) == 3
    assert all(share == 1 or 0.29 < share < 0.71 for share in shares)
    for a, b in zip(before, after, strict=True):
        np.testing.assert_array_equal(a.action[: len(b)], b.action)


def test_in_a_share_the_cube_is_missed(recording):
    before, after = changed(recording, "failed_20")
    assert sum(not e.attributes["success"] for e in after) == 2
    for a, b in zip(before, after, strict=True):
        assert b.attributes["success"] == (a.env_state[0] == b.env_state[0]).all()
        if not b.attributes["success"]:
            apart = np.linalg.norm((a.env_state - b.env_state)[0, :2])
            assert apart == pytest.approx(0.04, abs=1e-6)
            assert b.env_state[:, 2].max() < 0.02  # it was never lifted


def test_paces_are_even_or_uneven(recording):
    before, even = changed(recording, "even_speed")
    _, uneven = changed(recording, "uneven_speed")
    usual = np.median([len(e) for e in before])
    share = np.array([[(len(e) - 20) / usual for e in some] for some in (even, uneven)])
    np.testing.assert_allclose(share[0], 1, atol=0.01)
    np.testing.assert_allclose(
        np.sort(share[1]), 1.6 ** np.linspace(-1, 1, 10), atol=0.01
    )
    assert all(e.attributes["success"] for e in even + uneven)
    for a, b in zip(before, even, strict=True):  # the same way, stretched
        np.testing.assert_allclose(
            a.action[[0, -1]], b.action[[0, len(b) - 20]], atol=1e-6
        )


def test_where_the_cube_is_lost_the_pace_is_nearer_to_ones_own(recording, monkeypatch):
    episode = load_episode(list_episodes(recording)[0])
    tried = []

    def performed(one, action):
        tried.append(len(action) - 20)
        return replace(one, attributes={"success": len(tried) == 3})

    monkeypatch.setattr(altered_module, "performed", performed)
    altered_module.paced(episode, 2 * len(episode))
    assert tried[0] == 2 * len(episode)
    assert tried[0] > tried[1] > tried[2] > len(episode)
    tried.clear()
    monkeypatch.setattr(
        altered_module, "performed", lambda e, a: replace(e, attributes={"success": 0})
    )
    with pytest.raises(UserError, match="lost at every pace"):
        altered_module.paced(episode, 100)


def test_the_second_style_looks_aside_first(recording):
    before, after = changed(recording, "second_style")
    assert all(len(b) == len(a) + 90 for a, b in zip(before, after, strict=True))
    half = changed(recording, "two_styles")[1]
    assert [len(e) for e in half[1::2]] == [len(e) for e in after[1::2]]
    assert [len(e) for e in half[::2]] == [len(e) for e in before[::2]]
    assert all(e.attributes["success"] for e in after + half)


def test_alterations_are_the_same_again_and_differ_by_seed(recording):
    def numbers(how, seed):
        episodes = [load_episode(path) for path in list_episodes(recording)]
        found = ALTERATIONS[how](episodes, seed)
        return np.concatenate([np.append(e.action[-1], e.env_state[0]) for e in found])

    for how in ("truncated_30", "failed_30"):
        np.testing.assert_array_equal(numbers(how, 0), numbers(how, 0))
        assert (numbers(how, 0) != numbers(how, 1)).any()


def test_pictures_are_of_the_same_moments_in_another_light():
    [(_, episode)] = demonstrate(
        PickPlace(), [0], "scripted", 0, cameras=("top",), size=(24, 32)
    )
    drawn = episode.images["top"].astype(float)
    same = redrawn(replace(episode, images=dict(episode.images)), Change())
    apart = np.abs(same.images["top"] - drawn)
    assert np.quantile(apart, 0.995) < 3  # an edge may fall on the next pixel
    first = replace(episode, images=dict(episode.images))
    moved, again = ALTERATIONS["camera_moves"]([first, same], 0)
    assert np.abs(moved.images["top"] - drawn).mean() > 5
    assert (moved.images["top"] != again.images["top"]).any()
    [dark] = ALTERATIONS["light_drifts"]([episode], 0)
    assert dark.images["top"].mean() < 0.65 * drawn.mean()


@pytest.mark.parametrize("cm", places.BESIDE[1:])
def test_cubes_lie_so_far_beside_the_zone_on_two_sides(cm):
    task, sides = places.Beside(cm), set()
    for scene in range(40):
        xy = task.sample(np.random.default_rng(scene))[6:8] - ZONE_CENTRE
        beside = -xy - ZONE_SIZE / 2
        assert beside.max() == pytest.approx(cm / 100)
        assert abs(xy[1 - beside.argmax()]) <= ZONE_SIZE / 4
        sides.add(int(beside.argmax()))
    assert sides == {0, 1}


def test_without_a_distance_scenes_are_the_usual_ones():
    ours, usual = (
        task.sample(np.random.default_rng(3))
        for task in (places.Beside(0), PickPlace())
    )
    np.testing.assert_array_equal(ours, usual)


def test_each_failure_in_turn_gets_the_nearest_scene_that_is_left():
    wrong = np.array([[0.0, 0, 0], [1.0, 0, 0]])
    offered = np.array([[0.1, 0, 0], [0.9, 0, 0], [0.2, 0, 0], [0.5, 0, 0]])
    assert places.nearest_scenes(wrong, offered, 3) == [0, 1, 2]
    assert places.nearest_scenes(wrong[1:], offered, 3) == [1, 3, 2]


@pytest.mark.parametrize(("name", "factors"), gains.GAINS.items())
def test_servos_have_the_gains_of_their_name(name, factors):
    task = make_task(f"benchmarks.claims.gains:{name}")
    ours, usual = task.model(), PickPlace().model()
    stiffness, damping = factors
    ratio = ours.actuator_gainprm[:5, 0] / usual.actuator_gainprm[:5, 0]
    np.testing.assert_allclose(ratio, stiffness)
    np.testing.assert_allclose(
        ours.actuator_biasprm[:5, 1], -ours.actuator_gainprm[:5, 0]
    )
    # Critical damping grows like the root of the stiffness.
    ratio = ours.actuator_biasprm[:5, 2] / usual.actuator_biasprm[:5, 2]
    np.testing.assert_allclose(ratio, damping * np.sqrt(stiffness), rtol=0.02)
    np.testing.assert_array_equal(ours.actuator_gainprm[5], usual.actuator_gainprm[5])


def test_the_expert_on_linear_systems_is_as_said():
    rng = np.random.default_rng(0)
    for radius in stability.RADII:
        a = stability.system(radius)
        np.testing.assert_allclose(np.abs(np.linalg.eigvals(a)), radius)
        states, actions = stability.demonstrate(a, 4, False, rng)
        np.testing.assert_allclose(states[:, 1:], 0.95 * states[:, :-1], atol=1e-12)
        expert = states @ (0.95 * np.eye(2) - a).T
        assert np.std(actions - expert) == pytest.approx(stability.HAND, rel=0.1)


def test_a_clone_is_right_where_it_was_shown_and_keeps_its_start_elsewhere():
    rng = np.random.default_rng(0)
    a = stability.system(1.0)
    states, actions = stability.demonstrate(a, 10, False, rng)
    gains_found = stability.clone(states, actions, 3, 0.5, rng)
    for j, gain in enumerate(gains_found):  # the state shrinks by 5 % a step
        right = 0.95**j * (0.95 * np.eye(2) - a)
        np.testing.assert_allclose(gain[:, 0], right[:, 0], atol=0.01)
    assert np.abs(gains_found[:, :, 1] - right[:, 1]).max() > 0.2
    states, actions = stability.demonstrate(a, 10, True, rng)
    [shown] = stability.clone(states, actions, 1, 0.5, rng)
    np.testing.assert_allclose(shown, 0.95 * np.eye(2) - a, atol=0.02)


def test_a_chunk_is_executed_without_looking():
    a = stability.system(0.8)
    gains_found = np.stack([np.eye(2) * g for g in (0.1, 0.2)])
    wind = np.array([[0.0, 1.0], [0.0, 0.0], [0.5, 0.0]])
    x0 = np.array([1.0, 0.0])
    x1 = a @ x0 + 0.1 * x0 + wind[0]
    x2 = a @ x1 + 0.2 * x0 + wind[1]
    x3 = a @ x2 + 0.1 * x2 + wind[2]
    np.testing.assert_allclose(
        stability.execute(a, gains_found, wind), np.stack([x0, x1, x2, x3])
    )
