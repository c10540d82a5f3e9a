"""Lengths and angles of both OpenArms, against vectors and the maker's model."""

from dataclasses import replace

import mujoco
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hardware.openarm.kinematics import ARMS, LINKS, SHOULDERS
from hardware.openarm.motors import NAMES, SIDES

pytestmark = pytest.mark.quick

# Arm (0 right, 1 left), joint angles (rad), the hand's place (m) and turn (wxyz), the
# elbow's place (m): from the maker's model of v1; v2 is compared with the model itself.
V1 = """
0  0 0 0 0 0 0 0  0 -.148998 .0819  0 1 0 0  0 -.184999 .477999
0  0 0 0 1.570796 0 0 0  .3961 -.148999 .478001
    0 .707107 0 .707107  0 -.184999 .477999
0  .4 .3 -.2 1.2 .5 -.3 .6  .445335 -.247458 .594248
    .068229 .480101 -.117112 .866679  .084057 -.248007 .515256
0  -.6 .9 .7 .6 -1 .5 -.8  -.135898 -.657577 .474442
    .426677 .711191 .193208 -.524237  -.083310 -.340808 .612165
0  1.2 .15 1.1 2 .9 .2 1  -.041519 -.405773 .729288
    .046159 -.672 -.308078 .671843  .190584 -.200504 .593784
1  0 0 0 0 0 0 0  0 .157998 .0819  0 -1 0 0  0 .121999 .478
1  0 0 0 1.570796 0 0 0  .3961 .157999 .478001
    0 -.707107 0 -.707107  0 .121999 .478
1  -.4 -.3 .2 1.2 -.5 .3 -.6  .443259 .256127 .593011
    .068229 -.480101 -.117112 -.866679  .079634 .189020 .493576
1  .6 -.9 -.7 .6 1 -.5 .8  -.129398 .662629 .478081
    .426677 -.711191 .193208 .524237  -.071125 .310855 .558097
1  -1.2 -.15 -1.1 2 -.9 -.2 -1  -.038350 .413026 .725004
    .046159 .672 -.308078 -.671843  .214909 .172248 .644567
"""


def matrix_of(quat):
    matrix = np.zeros(9)
    mujoco.mju_quat2Mat(matrix, quat / np.linalg.norm(quat))
    return matrix.reshape(3, 3)


@pytest.mark.parametrize("row", np.array(V1.split(), float).reshape(10, 18))
def test_hands_and_elbows_where_the_maker_has_them(row):
    side = int(row[0])
    joints, hand, quat, elbow = np.split(row[1:], (7, 10, 14))
    arm = replace(ARMS["v1"], origin=SHOULDERS)
    points = arm.points_of(joints, side)
    assert points[-1] == pytest.approx(hand, abs=1e-5)
    assert points[3] == pytest.approx(elbow, abs=1e-5)
    state = np.zeros(16)
    state[8 * side : 8 * side + 7] = joints
    turn = arm.frames_of(state)[1][LINKS.index(f"{SIDES[side]}_link7")]
    assert turn == pytest.approx(matrix_of(quat), abs=1e-5)


def states(rng, count):
    low, high = ARMS["v2"].ranges.T
    return rng.uniform(low, high, (count, 16))


def test_v2_here_is_the_makers_model():
    maker = pytest.importorskip("openarm_mujoco.v2")
    model = mujoco.MjModel.from_xml_path(maker.openarm_bimanual_xml())
    data = mujoco.MjData(model)
    arm = replace(ARMS["v2"], origin=(0.0, 0.0, 0.0))
    for state in states(np.random.default_rng(0), 30):
        for side, name in enumerate(SIDES):
            joints = state[8 * side : 8 * side + 8]
            for i in range(7):
                data.joint(f"openarm_{name}_joint{i + 1}").qpos = joints[i]
            finger = joints[7] * arm.sides[side].travel
            for i in (1, 2):
                data.joint(f"openarm_{name}_finger_joint{i}").qpos = finger
        mujoco.mj_kinematics(model, data)
        watched = arm.watched_of(state).reshape(2, 4, 3)
        for side, name in enumerate(SIDES):
            hand = data.site(f"{name}_ee_control_point").xpos
            assert watched[side, 1] == pytest.approx(hand, abs=1e-5)
            elbow = arm.points_of(state[8 * side : 8 * side + 7], side)[3]
            there = data.joint(f"openarm_{name}_joint4").xanchor
            assert elbow == pytest.approx(there, abs=1e-5)
            for tip, kind in zip(watched[side, 2:], ("inner", "outer"), strict=True):
                body = data.body(f"openarm_{name}_ee_{kind}_finger")
                there = body.xmat.reshape(3, 3).T @ (tip - body.xpos)
                sign = (1 if kind == "inner" else -1) * (1 if side == 0 else -1)
                # Lowest of the finger's mesh when it is closed, to the millimetre.
                expected = (0, -sign * 0.0106, -0.102)
                assert there == pytest.approx(expected, abs=1e-3)
    for side, name in enumerate(SIDES):
        for i in range(7):
            found = model.joint(f"openarm_{name}_joint{i + 1}").range
            assert found == pytest.approx(arm.sides[side].ranges[i], abs=1e-4)


@given(st.integers(0, 2**32 - 1))
def test_v2_is_its_own_mirror_image(seed):
    arm, state = ARMS["v2"], states(np.random.default_rng(seed), 1)[0]
    mirrored = np.concatenate([state[8:], state[:8]])
    mirrored[[0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14]] *= -1
    right, left = arm.watched_of(state).reshape(2, 4, 3) * (1, -1, 1)
    assert arm.watched_of(mirrored).reshape(2, 4, 3) == pytest.approx(
        np.stack([left, right]), abs=1e-9
    )


def test_hanging_arms_are_over_the_ground_and_open_hands_are_wide():
    for arm in ARMS.values():
        state = np.zeros((2, 16))
        state[1, [7, 15]] = 1.0
        closed, opened = arm.watched_of(state).reshape(2, 2, 4, 3)
        assert 0.05 < closed[..., 2].min() < 0.12
        gap = np.linalg.norm(opened[:, 2] - opened[:, 3], axis=-1)
        assert (gap > 0.08).all()
        assert np.linalg.norm(closed[:, 2] - closed[:, 3], axis=-1) == pytest.approx(
            np.full(2, 0.0), abs=0.016
        )


def test_a_table_is_where_the_origin_says():
    arm = ARMS["v2"]
    raised = replace(arm, origin=(0.0, 0.0, SHOULDERS[2] - 0.3))
    state = np.zeros(16)
    assert raised.watched_of(state)[:, 2] == pytest.approx(
        arm.watched_of(state)[:, 2] - 0.3
    )


def test_many_states_at_once():
    many = states(np.random.default_rng(1), 6).reshape(2, 3, 16)
    for arm in ARMS.values():
        together = arm.watched_of(many)
        assert together.shape == (2, 3, 8, 3)
        assert together[1, 2] == pytest.approx(arm.watched_of(many[1, 2]))


def test_grippers_open_to_their_own_side():
    state = np.zeros(16)
    state[[7, 15]] = 1.0, 0.5
    assert ARMS["v2"].angles_of(state)[[7, 15]] == pytest.approx(
        [-np.pi / 2, np.pi / 4]
    )
    assert ARMS["v1"].angles_of(state)[[7, 15]] == pytest.approx([-1.0472, -0.5236])
    for arm in ARMS.values():
        assert arm.state_of(arm.angles_of(state)) == pytest.approx(state)
    assert NAMES[7] == "right_gripper"
    assert NAMES[8] == "left_joint1"
