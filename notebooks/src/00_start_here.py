# %% title [markdown]
# # 00 · Start here
#
# {{runtime}} · 20 minutes of work · any laptop
#
# After this lesson you have moved a robot arm, you know that **your machine is ready**,
# and you have **predicted** what the course will measure.
#
# You need Python, and a little torch later on. No robot and no GPU are needed.
#
# Run a cell with Shift+Enter. Begin with the next two.

# %% set-up
import course
from act_minimal.checkpoint import load_policy
from course import check, hint, predict, reveal
from course.figures import lesson_00 as first_look

course.begin("00")

# %% explorer
explorer = first_look.arm_explorer()
explorer

# %% arm [markdown]
# ## The arm
#
# This is an SO-100 in simulation: five joints and a gripper, each with a servo that
# drives to the angle that it is given. **Bring the fingers to the red cube.** (The
# sliders only pose the arm; collisions are not computed here.)
#
# It takes several joints at once, and many small corrections. People who demonstrate a
# task to this arm do not use sliders: they hold a second arm in their hands, and the
# first one follows it.
#
# ## The question of this course
#
# Can a network learn a task from 50 such demonstrations, and what does it take? Our task
# is to put the cube into the bin.

# %% experts
first_look.film_experts()

# %% experts-text [markdown]
# Both demonstrators are programs that know where the cube lies. The first two films are
# **scripted**: the same scene always gives the same motion. The other two are
# **human-like**: speed, pauses, direction of approach and aim vary between attempts, and
# the motion trembles. A demonstration records, 30 times a second, where the joints were
# and where they were told to go. The command is the **action**.
#
# A policy reads the present state and predicts actions. **ACT** (Action Chunking with
# Transformers) predicts the next k actions at once; together they are a **chunk**.
#
# ### Exercise: how long is a chunk? (3 minutes, easy)
#
# Every exercise works like this one: replace the dots, and run the cell.


# %% seconds tags=["exercise"]
def chunk_seconds(k, rate):
    """How long k actions last, in s, when `rate` of them are executed a second."""
    # solution
    return k / rate
    # stub
    # ...  # in seconds
    # end


check("00.seconds", chunk_seconds)

# %% seconds-hint
hint("00.seconds")

# %% predict-text [markdown]
# The check says *not attempted*, *right*, or *what* is wrong. Run the hint's cell again
# for the next hint. The solution is one click away, and no later cell needs yours.
#
# ## Predict first
#
# A result is easier to remember after a guess. Here are three questions. The first two
# are answered below, the third in lesson 01. Only you see your guesses.

# %% predict-act
predict("00.act")

# %% predict-single
predict("00.single_step")

# %% predict-growth
predict("00.growth")

# %% policy-text [markdown]
# ## A policy at work
#
# This policy comes with the course. It reads the joints and the cube's pose (later ones
# read camera images), predicts chunks of 50 actions, executes half of each, and then
# predicts again. We roll it out in 50 fresh scenes. The film shows the first four of
# them, whatever their outcome. The ball in it is the next action, the fading ribbon the
# rest of the chunk that the policy would predict at that moment.

# %% policy
policy = load_policy(first_look.checkpoint())
found = course.rollouts(policy, n=50, seed=4)
print(f"k = {policy.chunk_size}: {found}")
print(first_look.first_and_all(found, 4))

# %% film
first_look.film_rollouts(found, policy, 4)

# %% reveal-text [markdown]
# Four scenes can look much worse than the policy is. That is why every rate in this
# course comes with n, the number of rollouts, and a 95 % interval. Fifty scenes of one
# policy still leave a wide interval; here are three policies, trained with three seeds,
# 100 scenes each:

# %% reveal
reveal("00.act")

# %% single-text [markdown]
# And here is a policy that predicts one action at a time. Among all recipes that we
# compared (targets, noise on the inputs, learning rate, network), it is the one that did
# best on other scenes than these:

# %% reveal-single
reveal("00.single_step")

# %% doctor-text [markdown]
# Lessons 01 and 02 take this difference apart, and lesson 01 has a table of all recipes
# for single steps.
#
# ## Is your machine ready?
#
# The doctor looks at everything that the course uses, and changes nothing. (In a
# terminal, `uv run act doctor` tells more.)

# %% doctor
first_look.health()

# %% fails [markdown]
# ## Where it fails
#
# The scene is simple, and this policy is given the cube's exact pose. Boxes stand in for
# the arm's parts. The human-like demonstrator is a program. A success rate measured here
# tells which *method* does better *in this task*; it does not predict the rate on your
# table. Lessons 08 and 09 say what changes on real arms.
#
# ## Summary
#
# | word | meaning |
# |---|---|
# | demonstration | one recorded attempt that succeeded |
# | action | joint targets for one tick, rad; the gripper from 0 to 1 |
# | tick | one step of control: 1/30 s here |
# | chunk | k actions, predicted at once |
# | policy | a function from the present state to a chunk of actions |
# | rollout | one attempt of a policy in a fresh scene |
# | n, interval | the number of rollouts, and the rates that they are compatible with |
#
# All terms and symbols of the course are in the [glossary](../docs/glossary.md).
#
# ## Read more
#
# | reference | read it for |
# |---|---|
# | Zhao et al. 2023, [arXiv:2304.13705](https://arxiv.org/abs/2304.13705) | ACT: the method that this course builds, and its tasks |
# | Osa et al. 2018, [arXiv:1811.06711](https://arxiv.org/abs/1811.06711) | a textbook on learning from demonstrations |
# | Todorov, Erez, Tassa 2012, [doi:10.1109/IROS.2012.6386109](https://doi.org/10.1109/IROS.2012.6386109) | MuJoCo, the simulator of this course |
#
# ## Where next: a map
#
# | lesson | after it, you can |
# |---|---|
# | [01](01_compounding_error.ipynb) | show why single-step cloning drifts, and when it does not |
# | [02](02_action_chunking.ipynb) | choose a chunk size, and defend it |
# | [03](03_cvae.ipynb) | say what the latent z buys, and on which data |
# | [04](04_temporal_ensembling.ipynb) | write the ensembler, and know when it hurts |
# | [05](05_act_model.ipynb) | assemble ACT piece by piece |
# | [06](06_training.ipynb) | train, read the curves, choose a checkpoint |
# | [07](07_sim_rollout.ipynb) | measure a success rate, and sort failures |
# | [08](08_so100.ipynb) | take a policy from calibration to a safe run on an SO-100 |
# | [09](09_openarm.ipynb) | do the same with two OpenArms over CAN |
#
# If you have little time: 01, 02 and 07 stand on their own. Lessons 01 to 06 build on
# each other.
