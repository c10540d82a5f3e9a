"""Checks of a policy with its demonstrations; no robot and no simulator is needed.

Each takes the `Evidence` and says what it found. Thresholds come from policies that
work and from runs with one fault each: `benchmarks/diagnosis` has both.
"""

from collections.abc import Callable, Iterator

import numpy as np

from .evidence import IDLE, Alter, Evidence, Frames, mapped, shuffled, swapped
from .findings import Finding, Outcome, Passed, Skipped

COPIES = 0.6  # of the demonstrated motion that a chunk has at least
CONSTANT = 0.1  # of the demonstrated variation that a policy's answers have at least
JOINT_FITS = 0.6  # the same of a single joint
FITS = 0.35  # error on what it was trained on, of 1 for the mean action
ENOUGH = 10  # demonstrations that have statistics
USED, LOOKS = 1.03, 1.1  # error without a camera, and without all
SHIFT, RATIO = 0.5, 3.0  # of means in deviations, and of deviations
HELPS = 0.985  # error with other light, of the error as it is
BETTER = 0.5  # an explanation has to bring the error below this share of itself
SKEW = 2.0  # measured over logged L1
DEGREES = 180 / np.pi
PERCENT = 100.0


def finite(e: Evidence) -> Iterator[Outcome]:
    """Are the answers numbers?"""
    bad = np.flatnonzero(~np.isfinite(e.predicted).all(axis=(1, 2)))
    if len(bad):
        yield Finding(
            "not_finite",
            "wrong",
            100.0,
            f"NaN or infinity in the chunks of {len(bad)} of {len(e.frames)} frames",
            "none: such an action is refused before it reaches an arm",
            "certain",
            "look for a NaN in stats.safetensors and model.safetensors, and train anew",
        )
    else:
        yield Passed("not_finite", "all answers are finite")


def constant(e: Evidence) -> Iterator[Outcome]:
    """Do the answers depend on the observation?"""
    varied = np.abs(e.predicted - e.predicted.mean(0)).mean((0, 1))  # (A,)
    shown = np.abs(e.frames.action - e.frames.action.mean(0)).mean((0, 1))
    moves = shown > IDLE
    if not moves.any():
        yield Skipped("constant_output", "no joint moves in the demonstrations")
        return
    share = float(np.median(varied[moves] / shown[moves]))
    said = f"answers vary {100 * share:.0f} % as much as the demonstrated actions"
    if share < CONSTANT:
        yield Finding(
            "constant_output",
            "wrong",
            CONSTANT / max(share, 1e-3),
            said,
            f"at least {100 * CONSTANT:.0f} %; policies that work have 90 to 105 %",
            "certain",
            "train again, with a lower learning rate, and look at the loss: it should "
            "fall well below that of the mean action",
        )
    else:
        yield Passed("constant_output", said)


def moves(e: Evidence) -> Iterator[Outcome]:
    """Does a chunk move the arm as far as the demonstrated one does?"""
    if not e.same_joints:
        yield Skipped("copies_state", "states and actions are not of the same joints")
        return
    here = e.frames.observation["qpos"][:, None]  # (N, 1, A)
    shown = np.where(e.frames.valid[..., None], e.frames.action - here, 0) / e.spread
    told = np.where(e.frames.valid[..., None], e.predicted - here, 0) / e.spread
    share = float((shown * told).sum() / max((shown**2).sum(), 1e-9))
    said = (
        f"chunks lead {100 * share:.0f} % as far from where the arm is as those shown"
    )
    if share < COPIES:
        yield Finding(
            "copies_state",
            "suspect",
            COPIES / max(share, 0.01),
            said,
            f"at least {100 * COPIES:.0f} %: single steps at a high rate are learnt "
            "best by copying the joints (C12)",
            "likely",
            "longer chunks, or --action-target delta; look for pauses and for actions "
            "that equal the state: act inspect",
        )
    else:
        yield Passed("copies_state", said)


def same_answer(e: Evidence) -> Iterator[Outcome]:
    """Does the same observation give the same answer?"""
    if e.policy.samples:
        yield Skipped("z_drawn", "this policy samples by design")
        return
    once, again = e.predict(e.few), e.predict(e.few)
    apart = float((np.abs(once - again) / e.spread).mean())
    said = (
        f"two answers to one observation differ by {apart:.3f} of the actions' spread"
    )
    if apart > 1e-3:
        yield Finding(
            "z_drawn",
            "wrong" if apart > 0.02 else "suspect",
            apart / 1e-3,
            said,
            "0: at run time the latent z is 0 and there is no dropout (paper, section "
            "IV-B)",
            "certain",
            "set z = 0 where the policy is asked, and put the network in eval mode",
        )
    else:
        yield Passed("z_drawn", said)


def fit(e: Evidence) -> Iterator[Outcome]:
    """Does it do again what it was trained on? If not, what would explain it?"""
    worst = int(np.nanargmax(joint_errors(e, e.frames, e.errors)))
    joint = float(joint_errors(e, e.frames, e.errors)[worst])
    said = (
        f"error {e.train_error:.2f} on frames that it was trained on (1: the mean "
        f"action), {joint:.2f} at {e.names[worst]}"
    )
    # A log has the loss with the latent that training gives, so that is compared.
    now = e.loss if e.posterior_loss is None else e.posterior_loss
    skew = now / e.logged if e.logged else 0.0
    if e.logged:
        said += f"; {skew:.1f} x the loss of its training"
    well = e.train_error < FITS and joint < JOINT_FITS and skew < SKEW
    usual = e.misses(e.predict(e.few), e.few)
    before = joint_errors(e, e.few, usual)
    # Where the statistics are most alike in this order, another explains nothing.
    tried, found = ["joint_order"] if e.same_joints else [], False
    for cause, what, alter, back in explanations(e):
        tried.append(cause)
        if well:
            continue
        changed = e.misses(back(e.predict(e.few, alter)), e.few)
        after = joint_errors(e, e.few, changed)
        share = float(after[worst] / before[worst])
        if share < BETTER and np.nanmean(changed) < np.nanmean(usual):
            found = True
            yield Finding(
                cause,
                "wrong",
                10 * BETTER / share,
                f"{said}; with {what} {100 * share:.0f} % of that",
                f"errors below {FITS}, and {JOINT_FITS} of each joint; an explanation "
                "counts if it more than halves the worst joint's",
                "likely",
                f"these data and this policy differ by {what}: convert the data again, "
                "or give the policy what it was trained with",
            )
    for cause in dict.fromkeys(tried):
        yield Passed(cause, said if well else "it does not explain the error")
    cause = "image_input" if e.policy.cameras else "input_differs"
    if well:
        yield Passed("input_differs", said)
    elif skew > SKEW and not found:
        images = "colours, range 0-255 or 0-1, mean and deviation, size of the images"
        yield Finding(
            cause,
            "wrong",
            skew,
            said + "; no order, sign or unit of the joints explains it",
            f"about the loss of its training: {SKEW:g} x is another input",
            "likely",
            "are these the data that it was trained on? Compare what is done to them "
            "before the network: keys, order, units, normalisation"
            + (f", {images}" if e.policy.cameras else ""),
        )


def joint_errors(e: Evidence, frames: Frames, errors: np.ndarray) -> np.ndarray:
    """(A,) mean of errors (N, k, A), where training saw the episode."""
    if frames is e.frames:
        errors = errors[e.trained_on]
    return np.nanmean(errors, axis=(0, 1))


def explanations(
    e: Evidence,
) -> Iterator[tuple[str, str, Alter, Callable[[np.ndarray], np.ndarray]]]:
    """Cause, words, what is done to observations, and what to the answers."""
    joints, size = e.names, len(e.names)

    def same(chunk: np.ndarray) -> np.ndarray:
        return chunk

    if e.same_joints:
        order = likely_order(e)
        if order is not None:
            moved = [joints[i] for i in np.flatnonzero(order != np.arange(size))]
            back = np.argsort(order)
            yield (
                "joint_order",
                f"the joints {', '.join(moved)} in another order",
                mapped(lambda q: q[:, order]),
                lambda chunk: chunk[..., back],
            )
        for j in range(size):
            sign = np.ones(size)
            sign[j] = -1
            yield (
                "joint_sign",
                f"{joints[j]} the other way round",
                mapped(lambda q, sign=sign: q * sign),
                lambda chunk, sign=sign: chunk * sign,
            )
        angles = np.array(["gripper" not in name for name in joints])
        for words, factor in (
            ("angles in degrees", DEGREES),
            ("angles in radians", 1 / DEGREES),
            ("all in percent", PERCENT),
            ("all as shares of 1", 1 / PERCENT),
        ):
            scale = np.where(angles | ("angles" not in words), factor, 1.0)
            yield (
                "units",
                words,
                mapped(lambda q, scale=scale: q * scale),
                lambda chunk, scale=scale: chunk / scale,
            )
    sizes = e.policy.image_sizes
    cameras = e.policy.cameras
    for i, one in enumerate(cameras):
        for other in cameras[i + 1 :]:
            if sizes[one] == sizes[other]:
                words = f"cameras {one} and {other} exchanged"
                yield "camera_swap", words, swapped(one, other), same
    for camera in cameras:
        key = f"images/{camera}"
        yield (
            "image_input",
            f"red and blue of camera {camera} exchanged",
            lambda seen, key=key: seen | {key: seen[key][..., ::-1].copy()},
            same,
        )


def likely_order(e: Evidence) -> np.ndarray | None:
    """The order of the data's joints whose statistics are most like the policy's."""
    scale = e.policy.scale("qpos")
    mean, std = scale.mean.cpu().numpy(), scale.std.cpu().numpy()
    here, spread = e.demos.qpos.mean(0), np.maximum(e.demos.qpos.std(0), IDLE)
    cost = np.abs(mean[:, None] - here) / std[:, None]
    cost = cost + np.abs(np.log(std[:, None] / spread))  # (of the policy, of the data)
    order = matched(cost)
    return None if (order == np.arange(len(order))).all() else order


def image_values(e: Evidence) -> Iterator[Outcome]:
    """Does any change of brightness or contrast help? None should."""
    if not e.policy.cameras:
        yield Skipped("image_input", "the policy has no cameras")
        return
    frames = e.frames.some(np.flatnonzero(e.trained_on))
    usual, episodes = e.misses(e.predict(frames), frames), np.unique(frames.episode)
    best, words, sure = np.inf, "", 0.0
    for camera in e.policy.cameras:
        for contrast, light in ((1.5, 1.0), (0.5, 1.0), (1.0, 0.7), (1.0, 1.4)):
            answers = e.predict(frames, relit(camera, contrast, light))
            changed = e.misses(answers, frames)
            ratio = float(np.nanmean(changed) / np.nanmean(usual))
            if ratio < best:
                better = np.nanmean(usual - changed, axis=(1, 2))  # (N,)
                each = [better[frames.episode == i].mean() for i in episodes]
                width = np.std(each) / np.sqrt(max(1, len(each) - 1))
                sure = float(np.mean(each) / max(width, 1e-9))
                best, words = ratio, f"{camera} x {light:g}, contrast x {contrast:g}"
    said = f"of all changes of light {words} is the least bad: error x {best:.3f}"
    if best < HELPS and sure > 2:
        yield Finding(
            "image_input",
            "wrong" if best < HELPS**3 else "suspect",
            10 * HELPS / best,
            f"{said}, {sure:.1f} standard errors below what it is",
            f"not below {HELPS}: policies that work get worse with every change",
            "likely",
            "compare what is done to the images before the network in training and "
            "now: colours, range 0-255 or 0-1, mean and deviation of each camera",
        )
    else:
        yield Passed("image_input", said)


def relit(camera: str, contrast: float, light: float) -> Alter:
    """A camera's images brighter or darker, and steeper or flatter."""
    key = f"images/{camera}"

    def alter(seen: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        x = seen[key].astype(np.float32)
        mean = x.mean((1, 2, 3), keepdims=True)
        x = np.clip((x - mean) * contrast + mean * light, 0, 255)
        return seen | {key: x.astype(np.uint8)}

    return alter


def matched(cost: np.ndarray) -> np.ndarray:
    """(A,) for each row of a cost (A, A) a column of its own, the cheapest first."""
    cost, order = cost.copy(), np.full(len(cost), -1)
    for _ in order:
        i, j = np.unravel_index(np.argmin(cost), cost.shape)
        order[i] = j
        cost[i], cost[:, j] = np.inf, np.inf
    return order


def statistics(e: Evidence) -> Iterator[Outcome]:
    """Are the policy's means and deviations those of the data?"""
    if len(e.demos) < ENOUGH:
        yield Skipped("statistics", f"fewer than {ENOUGH} demonstrations")
        return
    for key, array in (("qpos", e.demos.qpos), ("action", e.demos.action)):
        if key not in e.policy.stats:
            continue
        scale = e.policy.scale(key)
        mean, std = scale.mean.cpu().numpy(), scale.std.cpu().numpy()
        if len(mean) != array.shape[1]:
            continue
        real, names = np.maximum(array.std(0), IDLE), e.joints(array.shape[1])
        shift = np.abs(mean - array.mean(0)) / np.maximum(std, IDLE)  # (numbers,)
        ratio = np.where(std > IDLE / 2, np.maximum(std / real, real / std), 1.0)
        far = np.maximum(shift / SHIFT, ratio / RATIO)
        j = int(np.argmax(far))
        said = (
            f"{key} of {names[j]}: mean {mean[j]:.2f}, deviation {std[j]:.2f} in the "
            f"policy, {array[:, j].mean():.2f} and {real[j]:.2f} in the data"
        )
        if far[j] > 1:
            yield Finding(
                "statistics",
                "suspect",
                float(far[j]),
                said,
                f"means within {SHIFT} deviations, deviations within {RATIO:g} x: "
                "those of the training data are equal, but for held-out episodes",
                "likely",
                "was it trained on these data? If so, its statistics are damaged",
            )
        else:
            yield Passed("statistics", said)


def floor(e: Evidence) -> Iterator[Outcome]:
    """Is a number that hardly moves divided by almost nothing?"""
    for key in e.policy.stats:
        std = e.policy.scale(str(key)).std.cpu().numpy()
        j = int(np.argmin(std))
        said = f"smallest deviation of {key}: {std[j]:.1e}"
        if std[j] < IDLE / 5:
            yield Finding(
                "std_floor",
                "wrong",
                IDLE / 5 / max(float(std[j]), 1e-9),
                f"{said}, of number {j}: a change of 0.01 there looks like "
                f"{0.01 / max(float(std[j]), 1e-9):.0f} deviations",
                f"at least {IDLE / 5:g}, a fifth of the original's floor of {IDLE}: "
                "between a recording and a trial, equal numbers differ by a thousandth",
                "certain",
                "train again with a floor on the deviations (act train has one)",
            )
        else:
            yield Passed("std_floor", said)


def use_of_inputs(e: Evidence) -> Iterator[Outcome]:
    """Does it look, and at what? Each input is exchanged with other frames' in turn."""
    if not e.policy.cameras:
        for cause in ("camera_unused", "state_only"):
            yield Skipped(cause, "the policy has no cameras")
        return
    base = e.few_error
    keys = {camera: f"images/{camera}" for camera in e.policy.cameras}
    worse = {c: e.error(e.few, shuffled(key)) / base for c, key in keys.items()}
    all_ = e.error(e.few, shuffled(*keys.values())) / base
    said = ", ".join(f"{camera} x {ratio:.2f}" for camera, ratio in worse.items())
    said = f"error with another frame's images: {said}, all x {all_:.2f}"
    for camera, ratio in worse.items():
        if ratio < USED:
            yield Finding(
                "camera_unused",
                "note",
                USED / ratio,
                said,
                f"more than x {USED} for a camera that the policy needs",
                "likely",
                f"is camera {camera} needed? If so: is it sharp, does it show what "
                "matters, and was --state-noise set, against leaning on joints?",
            )
        else:
            yield Passed("camera_unused", said)
    if all_ < LOOKS:
        yield Finding(
            "state_only",
            "suspect",
            LOOKS / all_,
            said,
            f"more than x {LOOKS} for all cameras together: without looking, a policy "
            "plays the mean demonstration",
            "likely",
            "train with --state-noise 0.02 and for longer",
        )
    else:
        yield Passed("state_only", said)


# `finite` comes first: where it finds something the others have nothing to look at.
CHECKS = (
    constant,
    moves,
    same_answer,
    fit,
    image_values,
    statistics,
    floor,
    use_of_inputs,
)
