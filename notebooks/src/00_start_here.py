# %% title [markdown]
# # 00 · Start here
#
# {{runtime}} · 20 minutes of work · any laptop
#
# After this lesson you have moved a robot arm, you know that **your machine is ready**,
# and you have **predicted** what the course will measure.
#
# You need Python, and a little torch later on. No robot, no GPU.
#
# Run a cell with Shift+Enter. Begin with the next two.

# %% set-up
import course
from act_minimal.checkpoint import load_policy
from course import check, hint, predict, reveal
from course.figures import lesson_00 as welcome

course.begin("00")

# %% explorer
explorer = welcome.arm_explorer()
explorer

# %% arm [markdown]
# ## The arm
#
# This is an SO-100 in simulation: five joints and a gripper, each with a servo that
# drives to the angle it is told. **Bring the fingers to the red cube.** (The sliders
# only pose the arm. Nothing collides yet.)
#
# It is harder than it looks, isn't it? You watched, compared and corrected, a joint at
# a time. People who demonstrate a task to this arm hold a second one in their hands,
# and the first one follows it.
#
# ## The question of this course
#
# Can a network learn a task like this from 50 such demonstrations, and what does it
# take? Here is the task: put the cube into the bin.

# %% experts
welcome.film_experts()

# %% experts-text [markdown]
# Both are programs that see where the cube lies. The first two are **scripted**: the
# same scene, the same motion. The other two are **human-like**: they vary speed, pauses,
# way of approach and aim from one attempt to the next, and their hands tremble. A
# demonstration is what they recorded: 30 times a second, where the joints were, and
# where they were told to go. That last one is the **action**.
#
# A policy reads what the arm knows now, and predicts actions. **ACT** (Action Chunking
# with Transformers) predicts the next k of them at once, a **chunk**.
#
# ### Exercise: how long is a chunk? (3 minutes, easy)
#
# Every exercise works like this one: replace the dots, run the cell.


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
# You will remember a number longer if you have guessed it before. Three guesses, then;
# the first is revealed below, the others in lesson 01. Nobody sees them but you.

# %% predict-act
predict("00.act")

# %% predict-single
predict("00.single_step")

# %% predict-growth
predict("00.growth")

# %% policy-text [markdown]
# ## A policy at work
#
# This one comes with the course. It reads the joints and the cube's pose (later ones
# read camera images), predicts chunks of 50, and executes half of each before it looks
# again. These are the first four of 50 fresh scenes, not the best four.

# %% policy
policy = load_policy(welcome.checkpoint())
found = course.rollouts(policy, n=50, seed=4)
print(f"k = {policy.chunk_size}: {found}")

# %% film
welcome.film_rollouts(found, "policy")

# %% reveal-text [markdown]
# Fifty scenes and one policy say little more than "it works": look at the width of the
# interval. Three policies, trained with three seeds, each in 100 scenes:

# %% reveal
reveal("00.act")

# %% doctor-text [markdown]
# ## Is your machine ready?
#
# The doctor looks at everything that the course uses, and changes nothing. (In a
# terminal, `uv run act doctor` tells more.)

# %% doctor
welcome.health()

# %% fails [markdown]
# ## Where it fails
#
# The scene is simple, and seen by a program that knows the cube's pose to a hair. Boxes
# stand in for the arm's parts. The human-like expert is not a human. A success rate
# measured here says which *method* does better *here*; it promises nothing about your
# table. Lessons 08 and 09, on real arms, will say what changes.
#
# ## Summary
#
# | word | meaning |
# |---|---|
# | demonstration | one recorded attempt that succeeded |
# | action | joint targets for one tick, rad; the gripper from 0 to 1 |
# | tick | one step of control: 1/30 s here |
# | chunk | k actions, predicted at once |
# | policy | what the arm knows in, a chunk out |
# | rollout | one attempt of a policy in a fresh scene |
# | n, interval | how many rollouts, and what their number leaves open |
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
#
# In a hurry? 01, 02 and 07 stand on their own. Lessons 01 to 05 build on each other.
