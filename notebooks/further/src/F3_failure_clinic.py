# %% title [markdown]
# # F3 · Failure clinic
#
# {{runtime}} · 60 minutes of work · any laptop
#
# After this lesson you can say **where a policy fails**: in its data, its training, the
# network's input, or on the arm; measure it with three short functions of your own; and
# read what `act diagnose` says.
#
# You need lessons 06 (training) and 07 (rollouts).

# %% set-up
import numpy as np

import course
from course import check, hint, predict, reveal, show
from course.figures import lesson_f3 as clinic

course.begin("F3")

# %% question [markdown]
# ## The question
#
# "My loss is low, and my robot fails." Nothing is asked more often about ACT. The loss
# only says that the network answers well to what it was trained on, as training showed
# it. Between that and a cube in the bin lie the data, the latent that is missing at run
# time, units and order of the joints, cameras, rate, and the arm itself.
#
# In this lesson six patients come in. Each is the policy that comes with the course, with
# one thing wrong; as it is, it succeeds in {{checkpoints checkpoints
# checkpoint=so100_pick_place_state -> rate percent}}. The six were drawn by lot.

# %% predict
predict("F3.first")

# %% healthy-text [markdown]
# ## A healthy one
#
# First, how a policy looks that works. We send twelve demonstrations to the arm again,
# unseeing; roll the policy out on their scenes; and on twelve new ones.

# %% healthy
healthy = clinic.admit("healthy")
print(clinic.success(healthy))

# %% reveal
reveal("F3.first")

# %% error-text [markdown]
# ## Fed what it was trained on
#
# The cheapest test needs no robot: show the policy frames of its own demonstrations, and
# compare its chunks with what was demonstrated. To compare joints that move by different
# amounts, each error is divided by the joint's **spread**, the mean distance of its
# demonstrated actions from their mean. Then 0 is perfect, and 1 no better than the mean
# action.
#
# ### Exercise: the relative error (10 minutes)
#
# `predicted` and `shown` are (N, k, A); `valid` (N, k) is False beyond an episode's end,
# where nothing counts, in the errors and in the spread.


# %% error tags=["exercise"]
def relative_error(predicted, shown, valid):
    """Mean error over the spread of each joint's shown actions, a number."""
    # solution
    a = shown[valid]  # (M, A)
    spread = np.abs(a - a.mean(0)).mean(0)  # (A,)
    return (np.abs(predicted - shown)[valid] / spread).mean()
    # stub
    # ...  # errors of each joint, over how much the joint moves
    # end


check("F3.error", relative_error)

# %% error-hint
hint("F3.error")

# %% patients-text [markdown]
# Now the patients come in. The numbers below are of the package's own measurement, which
# yours agrees with.

# %% patients
patients = {name: clinic.admit(name) for name in "ABCDEF"}
for name, patient in patients.items():
    print(f"{name}: error {patient.evidence.train_error:.2f}")

# %% fed
show(
    clinic.fed_figure({"healthy": healthy, "patient E": patients["E"]}),
    "A demonstration in grey and the chunks predicted from its frames: those of the "
    "healthy policy lie on it, those of patient E are the same everywhere.",
)

# %% fed-judged [markdown]
# For five of them the policy is fine: it answers as in training. What is wrong comes
# after it, or between it and the arm. Patient E fails here already.
#
# ## Sent again
#
# The next test leaves the policy out. The recorded actions of a demonstration are sent to
# the arm again, in the same scene. **Where that fails, no policy is to blame.**

# %% again
for name, patient in patients.items():
    print(f"--- {name}\n{clinic.success(patient)}")

# %% again-judged [markdown]
# B and E replay well: their arms are as they were. The arms of A, C, D and F are not.
#
# ## Where trials begin
#
# All demonstrations begin near one pose. If an arm stands there and says something else,
# its numbers are in another order, unit or sign, or its zero has moved.

# %% start
show(
    clinic.start_figure(patients["F"]),
    "First states of patient F's trials beside the demonstrations': elbow_flex and "
    "wrist_flex have changed places.",
)

# %% lag-text [markdown]
# ## How it follows
#
# An arm is always a little behind its commands, and a policy has learnt by how much.
#
# ### Exercise: the lag (10 minutes)
#
# `qpos` and `action` are (T,), of one joint. Which d in 0 ... `most` puts `qpos[t]`
# nearest to `action[t - d]`?


# %% lag tags=["exercise"]
def lag(qpos, action, most):
    """Ticks by which qpos is behind action."""
    # solution
    n = len(action)
    apart = [np.abs(qpos[d:] - action[: n - d]).mean() for d in range(most + 1)]
    return int(np.argmin(apart))
    # stub
    # ...  # for each d, how far is qpos from the actions of d ticks before?
    # end


check("F3.lag", lag)

# %% lag-hint
hint("F3.lag")

# %% lags
print("recorded:", clinic.lag(*clinic.taught(healthy)))
for name, patient in patients.items():
    print(f"{name}: {clinic.lag(*clinic.pair(patient))}")
show(
    clinic.follow_figure(patients["C"]),
    "A joint and its commands: as recorded the state follows closely; patient C's arm "
    "is far behind, and still on its way when the next command comes.",
)

# %% exchange-text [markdown]
# ## What it looks at
#
# Does a policy use an input? Give each frame the value of *another episode*, and see
# what is lost. Zeros would not do: the policy has never seen such an input.
#
# ### Exercise: exchange (8 minutes)
#
# `values` is (N, ...), `episode` (N,) says which episode a row is of, in order. Give each
# row the value of a row of another episode. No episode has half of the rows.


# %% exchange tags=["exercise"]
def exchange(values, episode):
    """Each row gets a value of another episode, (N, ...)."""
    # solution
    longest = np.bincount(episode).max()
    return np.roll(values, longest, axis=0)
    # stub
    # ...  # rows of one episode stand together
    # end


check("F3.exchange", exchange)

# %% exchange-hint
hint("F3.exchange")

# %% importance
for key, ratio in clinic.importances(healthy.evidence).items():
    print(f"{key} of another episode: error x {ratio:.1f}")

# %% importance-judged [markdown]
# It needs both. A factor near 1 would say that an input is not used, such as a camera that
# shows nothing of the task.
#
# ## Your turn
#
# The pictures of each patient, joint by joint; and how its chunks are executed.

# %% explorer
explorer = clinic.patients_explorer(patients)
explorer

# %% execution
for name, patient in patients.items():
    print(f"{name}: {clinic.weights(patient)}")

# %% turned-text [markdown]
# Patient D begins where it should, follows as it should, and its replays fail. Perhaps a
# zero has moved. In simulation we may try corrections: turn a joint's commands round, or
# add some degrees.

# %% turned
for joint, degrees in ((0, 5), (1, 5), (1, -5), (3, 5), (4, 5)):
    found = clinic.turned(patients["D"], joint, 1, degrees)
    print(f"joint {joint} {degrees:+d} degrees: {found}")

# %% yours-text [markdown]
# ## Your diagnosis
#
# Before the doctor is asked: what is wrong with D and with B?

# %% predict-d
predict("F3.D")

# %% predict-b
predict("F3.B")

# %% doctor-text [markdown]
# ## The doctor
#
# `act diagnose` makes these measurements, and some twenty more, compares each with what
# is usual, and names what it finds.

# %% doctor
for patient in patients.values():
    print(clinic.doctor(patient))
print("\nWhat was done to them:\n" + clinic.truth(patients))

# %% cures [markdown]
# ## Cured
#
# Each fault alone, 100 new scenes with it, and 100 with its cure:
#
# | patient | fault | with it | cured |
# |---|---|---|---|
# | A | units | {{diagnosis success_with fault='units'}} | {{diagnosis success_cured fault='units'}} |
# | B | ensembling reversed, m = 0.3 | {{diagnosis success_with fault='ensembling reversed'}} | {{diagnosis success_cured fault='ensembling reversed'}} |
# | C | rate x 3 | {{diagnosis success_with fault='rate x 3'}} | {{diagnosis success_cured fault='rate x 3'}} |
# | D | calibration off by 5 degrees | {{diagnosis success_with fault='calibration off by 5 degrees'}} | {{diagnosis success_cured fault='calibration off by 5 degrees'}} |
# | E | constant output | {{diagnosis success_with fault='constant output'}} | {{diagnosis success_cured fault='constant output'}} |
# | F | joint order | {{diagnosis success_with fault='joint order'}} | {{diagnosis success_cured fault='joint order'}} |
#
# ## What articles prescribe
#
# Six failures stand in most articles, each with a remedy. Success here without it and with
# it, 300 rollouts each:
#
# | failure | remedy | without | with | helps? |
# |---|---|---|---|---|
# | it drifts | 50 demonstrations, not 25 | {{claims/C10 summary demonstrations=25}} | {{claims/C10 summary demonstrations=50}} | yes |
# | it jerks | favour the newest prediction | {{claims/C04 summary m=0.0 order=oldest_first}} | {{claims/C04 summary m=-0.1 order=oldest_first}} | no |
# | the gripper freezes | open or closed, by a threshold | {{claims/C16 summary timing=human loss=l1 gripper='as asked'}} | {{claims/C16 summary timing=human loss=l1 gripper='open or closed'}} | no |
# | the loss is flat | train on, 600 → 2000 updates | {{claims/C19 summary step=600}} | {{claims/C19 summary step=2000}} | no |
# | a green cube | vary the images' colours | {{claims/C27 summary policy=vision change=green}} | {{claims/C27 summary policy=augmented change=green}} | no |
# | two arms | one policy, not one an arm | {{claims/C28 summary policies=two sees=own}} | {{claims/C28 summary policies=one sees=both}} | yes |

# %% reveal-d
reveal("F3.D")

# %% reveal-b
reveal("F3.B")

# %% fails [markdown]
# ## Where the doctor fails
#
# Of {{diagnosis of -> 0}} faults it named {{diagnosis named_first_or_second -> 0}} first or
# second. Its thresholds were set on runs of this kind, so expect less on others. And a
# finding is no harm yet: with observations 3 ticks late the policy succeeds in
# {{diagnosis success_with fault='late observation, 3 ticks' -> rate percent}}.

# %% summary [markdown]
# ## Summary
#
# Feed the policy its own demonstrations, send one again, compare where trials begin and how
# the arm follows, exchange an input: each rules out a part of the path from data to arm.
#
# | sign | meaning |
# |---|---|
# | spread | mean distance of a joint's demonstrated actions from their mean, rad |
# | lag | ticks by which a state is behind its action |
#
# ## References
#
# | | read it for |
# |---|---|
# | Zhao et al. 2023, [arXiv:2304.13705](https://arxiv.org/abs/2304.13705) | ACT |
# | Breiman 2001, [doi:10.1023/A:1010933404324](https://doi.org/10.1023/A:1010933404324) | permuting an input to see what it is worth |
# | de Haan et al. 2019, [arXiv:1905.11979](https://arxiv.org/abs/1905.11979) | causal confusion: the input that is not needed |
#
# ## Where next
#
# `act diagnose --policy RUN --data DEMOS --task TASK` does this with any policy.
