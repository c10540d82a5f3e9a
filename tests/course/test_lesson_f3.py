"""Lesson F3: its checks, its patients and its figures."""

import numpy as np
import pytest
import torch

from course.figures import lesson_f3 as clinic
from course.toolkit.faults import FAULTS

from .helpers import answers, spoils


def error(predicted, shown, valid):
    a = shown[valid]
    spread = np.abs(a - a.mean(0)).mean(0)
    return (np.abs(predicted - shown)[valid] / spread).mean()


def parts(predicted, shown, valid):
    """Errors and actions (M, A), and the spread (A,)."""
    a = shown[valid]
    return np.abs(predicted - shown)[valid], a, np.abs(a - a.mean(0)).mean(0)


def whole_spread(shown):
    return np.abs(shown - shown.mean((0, 1))).mean((0, 1))


test_error = answers(
    "F3.error",
    right=[
        (error, "as good as the mean action"),
        (lambda *given: error(*map(np.asarray, given)).item(), ""),
        (lambda p, s, v: float(np.mean(parts(p, s, v)[0] / parts(p, s, v)[2])), ""),
        (
            lambda p, s, v: np.nanmean(
                np.where(v[..., None], np.abs(p - s), np.nan) / parts(p, s, v)[2]
            ),
            "",
        ),
    ],
    wrong=[
        (lambda p, s, v: (np.abs(p - s) / parts(p, s, v)[2]).mean(), "padding counts"),
        (lambda p, s, v: (np.abs(p - s) / whole_spread(s)).mean(), "padding counts"),
        (
            lambda p, s, v: (np.abs(p - s) * v[..., None] / parts(p, s, v)[2]).mean(),
            "still counts in the number",
        ),
        (
            lambda p, s, v: (parts(p, s, v)[0] / whole_spread(s)).mean(),
            "padding counts in the spread",
        ),
        (
            lambda p, s, v: parts(p, s, v)[0].mean() / parts(p, s, v)[2].mean(),
            "each by its own spread",
        ),
        (lambda p, s, v: parts(p, s, v)[0].mean(), "the error in rad"),
        (
            lambda p, s, v: (parts(p, s, v)[0] / s[v].std(0)).mean(),
            "not the standard deviation",
        ),
        (lambda p, s, v: (parts(p, s, v)[0] ** 2 / s[v].var(0)).mean(), "not squared"),
        (lambda p, s, v: error(s, p, v), "not of the answers"),
        (
            lambda p, s, v: ((p - s)[v] / parts(p, s, v)[2]).mean(),
            "signs cancel",
        ),
        (
            lambda p, s, v: (parts(p, s, v)[0] / np.abs(s[v]).mean(0)).mean(),
            "subtract the mean",
        ),
        (lambda p, s, v: 1 - error(p, s, v), "1 minus the error"),
        (
            lambda p, s, v: parts(p, s, v)[0].mean(0) / parts(p, s, v)[2],
            "one number is wanted",
        ),
        (lambda p, s, v: 2 * error(p, s, v), "divide the mean absolute error"),
        (lambda p, s, v: error(p, s, v[0]), "raised IndexError"),
        (lambda p, s, v: "small", "one number"),
        (spoils(error, lambda p, s, v: s.__isub__(p)), "changed its argument `shown`"),
    ],
)


def lag(qpos, action, most):
    ticks = len(action)
    apart = [np.abs(qpos[d:] - action[: ticks - d]).mean() for d in range(most + 1)]
    return int(np.argmin(apart))


def ahead(qpos, action, most):
    ticks = len(action)
    apart = [np.abs(qpos[: ticks - d] - action[d:]).mean() for d in range(most + 1)]
    return int(np.argmin(apart))


def farthest(qpos, action, most):
    ticks = len(action)
    apart = [np.abs(qpos[d:] - action[: ticks - d]).mean() for d in range(most + 1)]
    return int(np.argmax(apart))


test_lag = answers(
    "F3.lag",
    right=[
        (lag, "from its own recording"),
        (lambda q, a, m: float(lag(q, a, m)), ""),
        (lambda q, a, m: lag(torch.from_numpy(q).numpy(), a, m), ""),
        (
            lambda q, a, m: min(
                range(m + 1), key=lambda d: ((q[d:] - a[: len(a) - d]) ** 2).mean()
            ),
            "",
        ),
    ],
    wrong=[
        (lambda q, a, m: -lag(q, a, m), "the sign"),
        (ahead, "the other way round"),
        (farthest, "the largest distance"),
        (lambda q, a, m: lag(q, a, m) + 1, "lie nearest"),
        (lambda q, a, m: m, ""),
        (lambda q, a, m: lag(q, a, m) / 30, "a whole number of ticks"),
        (lambda q, a, m: lag(q, a, 2), ""),
        (lambda q, a, m: 3, ""),
        (lambda q, a, m: [abs(x) for x in q], "one number"),
        (lambda q, a, m: np.abs(q - a).mean(), "a whole number of ticks"),
        (lambda q, a, m: lag(q[:5], a, m), "raised ValueError"),
        (lambda q, a, m: "3", "one number"),
    ],
)


def exchange(values, episode):
    longest = np.bincount(episode).max()
    return np.roll(values, longest, axis=0)


def shuffle(values, episode):
    rng = np.random.default_rng(0)
    while True:
        order = rng.permutation(len(values))
        if (episode[order] != episode).all():
            return values[order]


test_exchange = answers(
    "F3.exchange",
    right=[
        (exchange, "needed this input for"),
        (shuffle, ""),
        (lambda v, e: exchange(v, e).tolist(), ""),
        (lambda v, e: np.roll(v, -np.bincount(e).max(), axis=0), ""),
    ],
    wrong=[
        (lambda v, e: v, "nothing changed place"),
        (lambda v, e: 0 * v, "zeros are no value"),
        (lambda v, e: 0 * v + v.mean(), "the mean is no value"),
        (lambda v, e: np.roll(v, 1, axis=0), "of the same episode"),
        (lambda v, e: v[::-1], "of the same episode"),
        (lambda v, e: v[np.where(e == 0, len(e) - 1, 0)], "the value of a few"),
        (lambda v, e: np.random.default_rng(0).permutation(v), ""),
        (lambda v, e: np.concatenate([v[:1], exchange(v, e)[1:]]), "own value"),
        (lambda v, e: v + 1000, "the value of another row"),
        (lambda v, e: exchange(v, e)[1:], "a value for each row"),
        (lambda v, e: np.roll(v, 4, axis=0), "episodes differ in length"),
        (lambda v, e: v[e != 0], "a value for each row"),
        (lambda v, e: "others", "numbers are wanted"),
        (lambda v, e: np.roll(v, 5), ""),
        (spoils(exchange, lambda v, e: v.__iadd__(1)), "changed its argument `values`"),
    ],
)


def test_the_patients_are_drawn_from_the_list():
    assert len(clinic.PATIENTS) == 6
    names = {fault.name for fault in FAULTS}
    drawn = {fault.name for fault in clinic.PATIENTS.values()}
    assert len(drawn) == 6
    assert drawn <= names
    order = np.random.default_rng(0).permutation(len(clinic.ELIGIBLE))[:6]
    expected = [clinic.ELIGIBLE[i].name for i in order]
    assert [fault.name for fault in clinic.PATIENTS.values()] == expected


@pytest.fixture(scope="module")
def patients(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clinic, "SCENES", 4)
        home = tmp_path_factory.mktemp("clinic")
        patch.setenv("ACT_MINIMAL_COURSE", str(home))
        return {name: clinic.admit(name) for name in ("healthy", "A", "E")}


def test_what_is_shown_of_a_patient_is_what_was_measured(patients):
    healthy, units, constant = patients.values()
    assert "sent again: 100 % (4/4" in clinic.success(healthy)
    assert "new scenes: 0 % (0/4" in clinic.success(units)
    for patient, low, high in ((healthy, 0.05, 0.2), (constant, 0.8, 2.0)):
        e = patient.evidence
        found = error(e.predicted, e.frames.action, e.frames.valid)
        assert low < found < high
        assert e.train_error == pytest.approx(found, rel=0.1)  # spread of all frames
    q, a = clinic.taught(healthy)
    assert abs(lag(q, a, 10) - clinic.lag(q, a)) <= 1  # mean distance, or deviation
    assert len(clinic.pair(healthy)[0]) > 50
    assert clinic.truth(patients).endswith("constant output")


def test_the_doctor_names_the_patients(patients):
    assert clinic.doctor(patients["A"]).startswith("A: angles come in another unit")
    assert "the policy answers the same" in clinic.doctor(patients["E"])
    assert "nothing was found" in clinic.doctor(patients["healthy"])


def test_turning_a_joint_round_makes_good_replays_fail(patients):
    assert clinic.turned(patients["healthy"], 0, -1, 0).startswith("0 %")
    assert clinic.turned(patients["healthy"], 0, 1, 0).startswith("100 %")


def test_figures_are_drawn_from_patients(patients):
    one = patients["healthy"]
    fed = clinic.fed_figure({"healthy": one, "E": patients["E"]})
    assert len(fed.axes) == 2
    assert len(fed.axes[0].lines) == 1 + (one.evidence.frames.episode == 0).sum()
    start = clinic.start_figure(one)
    [names] = [[t.get_text() for t in start.axes[0].get_xticklabels()]]
    assert names == list(one.evidence.demos.arm["joints"])
    follow = clinic.follow_figure(one)
    np.testing.assert_array_equal(
        follow.axes[0].lines[1].get_ydata(), clinic.taught(one)[0][:110]
    )


def test_importance_is_the_error_without_over_the_error_with(patients):
    e = patients["healthy"].evidence
    found = clinic.importances(e)
    assert set(found) == {"qpos", "env_state"}
    assert min(found.values()) > 1.5
