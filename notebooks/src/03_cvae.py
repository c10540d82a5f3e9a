# %% title [markdown]
# # 03 · The CVAE
#
# {{runtime}} · 60 minutes of work · any laptop
#
# After this lesson you can say **what z buys, on which data**, and **read the KL**: see
# when z carries no information, and what it costs to make it carry some.
#
# You need lesson 02 (chunks) and a little probability: mean, variance, a Gaussian.

# %% set-up
import torch

import course
from act_minimal.checkpoint import load_policy
from act_minimal.dataset import Demonstrations
from course import check, hint, predict, reveal, show
from course.figures import lesson_03 as latent
from course.toolkit import schematics

course.begin("03")

# %% question [markdown]
# ## The question
#
# A post stands in the way. Some people pass it on the left, some on the right. Both are
# right; the mean of both is not.
#
# A policy that maps what it observes to *one* chunk has one answer for all
# demonstrators. ACT adds a **latent** z, a few numbers that can say *which way*. In
# training an encoder reads z from the demonstrated chunk; when the robot acts, z is 0.
# The paper reports that without z, success on human demonstrations falls from 35.3 % to
# 2 %. What does z do, and does it do anything here?

# %% predict
predict("03.middle")

# %% plain-text [markdown]
# ## The shortest experiment
#
# Here are 250 paths of 20 ticks around the post. The observation is always the same, so
# a policy without z can learn only one path for everybody. We fit that path by gradient
# descent, with two losses and two shares of demonstrators who go left.

# %% plain
halves, most_left = latent.two_ways(250, left=0.5), latent.two_ways(250, left=0.6)
learned = {
    "L1, half go left": latent.fit_one_path(halves, "l1"),
    "L2, half go left": latent.fit_one_path(halves, "l2"),
    "L1, 60 % go left": latent.fit_one_path(most_left, "l1"),
    "L2, 60 % go left": latent.fit_one_path(most_left, "l2"),
}
for name, path in learned.items():
    end = "misses the post" if latent.passes(path[None])[0] else "hits the post"
    print(f"{name}: {path[10]:+.2f} m to the left, {end}")

# %% plain-figure
show(
    latent.ways_figure(halves, learned),
    "Half of 250 demonstrated paths swing left, half right of a post; with half and "
    "half both losses learn a path into the post, with 60 % on the left L1 goes left.",
)

# %% plain-judged [markdown]
# The best path under L2 is the **mean**. Under L1 it is the **median**, tick by tick.
# With equal shares every point between the two ways is a median, so the learned path
# may lie anywhere in between. With unequal shares the median is on the larger side.
#
# So "L1 averages two strategies" is only half true: it can end up in between where the
# shares are equal, and follows the majority elsewhere.

# %% reveal
reveal("03.middle")

# %% cvae
schematics.cvae()

# %% sample-text [markdown]
# ## The idea, then the maths
#
# The drawing shows ACT's answer, a **conditional variational autoencoder** (CVAE). A
# hidden z with prior $p(z) = N(0, I)$ explains a chunk a through a decoder
# $p(a \mid z)$. (The observation conditions everything; we leave it out.) For any
# $q(z)$, Jensen's inequality gives the evidence lower bound (ELBO),
#
# $$ \log p(a) = \log \int q \,\frac{p(a \mid z)\,p(z)}{q}\,dz \;\ge\;
# E_{q}[\log p(a \mid z)] - \mathrm{KL}(q \,\|\, p). $$
#
# An encoder chooses $q(z \mid a) = N(\mu, \sigma^2)$, the posterior. The first term
# rewards reconstruction; the second counts, in nats, what z tells about a.
#
# ### Exercise: the reparametrisation (5 minutes, easy)
#
# Gradients must flow through z to μ and σ, so the noise `eps`, from N(0, 1), is drawn
# outside. The encoder returns `logvar` $= \log \sigma^2$.


# %% sample tags=["exercise"]
def sample(mu, logvar, eps):
    """z (B, Z) of N(mu, exp(logvar)), from standard normal eps; torch tensors."""
    # solution
    return mu + (0.5 * logvar).exp() * eps
    # stub
    # ...  # scale the noise, then move it
    # end


sample_verdict = check("03.sample", sample)
sample_verdict

# %% sample-hint
hint("03.sample")

# %% kl-text [markdown]
# ### Exercise: the KL (8 minutes, medium)
#
# For one dimension we insert both Gaussians into the definition, and use
# $E_q[(z-\mu)^2] = \sigma^2$ and $E_q[z^2] = \mu^2 + \sigma^2$:
#
# $$ \mathrm{KL} = E_q\!\left[\log \frac{q(z)}{p(z)}\right]
# = E_q\!\left[-\tfrac12 \log \sigma^2 - \tfrac{(z-\mu)^2}{2\sigma^2}
# + \tfrac{z^2}{2}\right]
# = \tfrac12\,(\mu^2 + \sigma^2 - 1 - \log \sigma^2). $$
#
# The dimensions are independent, so their KLs add up. Average over the batch. The
# result goes into the loss, so it must stay a tensor that has a gradient.


# %% kl tags=["exercise"]
def kl(mu, logvar):
    """KL in nats of N(mu, exp(logvar)) (B, Z) from N(0, 1): one number."""
    # solution
    each = 0.5 * (mu.square() + logvar.exp() - 1 - logvar)  # (B, Z)
    return each.sum(-1).mean()
    # stub
    # ...  # each dimension, then sum over Z, mean over B
    # end


kl_verdict = check("03.kl", kl)
kl_verdict

# %% kl-hint
hint("03.kl")

# %% loop-text [markdown]
# ## A CVAE from scratch
#
# With these two functions, the whole training fits into a cell. It uses *yours* if they
# are right, and the package's otherwise.

# %% loop
my_sample = sample if sample_verdict.state == "right" else latent.sample
my_kl = kl if kl_verdict.state == "right" else latent.kl
encoder, decoder = latent.networks()
weights = [*encoder.parameters(), *decoder.parameters()]
optimizer, noise = torch.optim.Adam(weights, lr=5e-3), torch.Generator().manual_seed(0)
for _ in range(1000):
    mu, logvar = encoder(halves).chunk(2, -1)  # (250, 1) each
    z = my_sample(mu, logvar, torch.randn(mu.shape, generator=noise))
    loss = (decoder(z) - halves).abs().sum(-1).mean() + 1.0 * my_kl(mu, logvar)
    optimizer.zero_grad(), loss.backward(), optimizer.step()
mine = latent.as_toy(encoder, decoder, halves)
print(f"KL {mine.kl:.2f} nats; {100 * mine.passing():.0f} % pass with z from the prior")

# %% loop-figure
show(
    latent.ways_figure(halves, {f"z = {z:g}": mine.path(z) for z in (-1.0, 0.0, 1.0)}),
    f"Decoded paths: z = -1 swings to {mine.path(-1.0)[10]:+.1f} m, z = 1 to "
    f"{mine.path(1.0)[10]:+.1f} m, z = 0 to {mine.path(0.0)[10]:+.1f} m; n = 250.",
)

# %% loop-judged [markdown]
# One number now says which way. If z named the way of every demonstration without
# error, that alone would take $\log 2 \approx 0.69$ nats; the rest tells how wide the
# path is.
#
# But z = 0, which ACT gives to the robot, is the middle of the prior. There this decoder
# changes from one way to the other, and its path hits the post. (It need not: executing
# whole chunks, the small ACT at the end of this lesson passes with z = 0 in half to three
# quarters of its walks.)
#
# ## β, the weight of the KL
#
# With a factor β before the KL, training pays β for each nat that z carries. We train
# the same network with seven values of β.

# %% betas
betas = (0.0, 0.0001, 0.01, 1.0, 20.0, 100.0, 1000.0)
toys = {beta: latent.fit_toy(halves, beta) for beta in betas}
for beta, toy in toys.items():
    share = f"{100 * toy.passing():3.0f} % pass with z from the prior"
    print(f"beta {beta:6g}: KL {toy.kl:7.4f} nats, {share}")
explorer = latent.toy_explorer(toys, halves)
explorer

# %% betas-judged [markdown]
# - **β = 0** is not plain cloning but an autoencoder. Its posteriors are narrow and lie
#   anywhere. A z from the prior falls between them, where the decoder was not trained.
# - **In the middle** the posteriors together cover the prior, and most z lead past.
# - **A large β** makes every posterior equal to the prior: z says nothing, and there is
#   one path for all. This is **posterior collapse**.
#
# Surprisingly, at β = 20 far fewer than 0.69 nats suffice, and even a thousandth (β = 100)
# often does. If z makes one way only slightly likelier, the median lies on that way. As
# both are equally common, L1 loses nothing by following such a weak hint.

# %% predict-act
predict("03.alive")

# %% act-text [markdown]
# ## ACT's own z
#
# ACT's encoder is a small transformer over a learned token, the joints and the
# demonstrated chunk; z has 16 numbers here. We ask the policy that comes with the
# course (trained with `kl_weight` 1) about 512 chunks.

# %% act
demos = Demonstrations.load(course.demonstrations(50))
policy = load_policy(course.ROOT / "data/checkpoints/so100_pick_place_state")
found = latent.posterior(policy, demos)
print(f"kl_weight {policy.config.kl_weight}: {found}")
seen = latent.first_sight(scene=3)
far = 3 * torch.randn(100, 16, generator=torch.Generator().manual_seed(0))
moved = latent.decode(policy, seen, far) - latent.decode(policy, seen, 0 * far)
print(f"100 z far out move its chunk by at most {moved.abs().max():.1e} rad")
reveal("03.alive")

# %% why [markdown]
# The KL is practically 0: z has collapsed. (Far out, z still bends the chunk a little.) The
# policy works nevertheless (lesson 00 rolled it out). Why did z collapse?
#
# With a Laplace decoder of scale b, $-\log p(a \mid z) = \sum |a - \hat a| / b$ + const.
# This is a *sum* over k ticks and A joints, but ACT's loss takes the *mean* $L_1$. In
# terms of the mean, the negative ELBO is
#
# $$ \frac{kA}{b} L_1 + \mathrm{KL}, \qquad\text{or, divided by } kA/b, \qquad
# L_1 + \frac{b}{kA}\,\mathrm{KL}. $$
#
# The b with the highest likelihood is the mean error itself.
#
# ### Exercise: the β of the bound (6 minutes, easy)
#
# For which β is the loss $L_1 + \beta\,\mathrm{KL}$ the negative ELBO, up to a factor?


# %% beta tags=["exercise"]
def elbo_beta(l1, k, joints):
    """The beta at which mean L1 + beta KL is the ELBO, up to a factor."""
    # solution
    return l1 / (k * joints)
    # stub
    # ...  # from the formula above, with b = l1
    # end


check("03.beta", elbo_beta)

# %% beta-hint
hint("03.beta")

# %% beta-values
for k, joints, weight, name in ((50, 6, 1, "here"), (100, 14, 10, "the paper")):
    beta = 0.1 / (k * joints)
    print(f"{name}: beta of the bound {beta:.0e} at L1 = 0.1; kl_weight {weight} is")
    print(
        f"  {weight / beta:,.0f} times that, and z gets at most {0.1 / weight:g} nats"
    )

# %% reduction [markdown]
# Where does "at most" come from? Training may always ignore z, and then pays only the
# L1 without it. So at its optimum kl_weight · KL cannot exceed **the L1 without z**.
#
# Mind the **reduction**, too. The original sums the KL over the dimensions of z; some
# code averages it, which divides it by their number Z. So `kl_weight` 10 with "mean"
# over 32 dimensions is 0.3 with "sum".
#
# ## Bringing z back
#
# Three short trainings that differ in `kl_weight` only:

# %% mend
policies, posteriors = {}, {}
for beta in (1.0, 0.003, 0.001):
    model = {"cvae_actions_per_token": 5, "kl_weight": beta}
    run = course.trained(
        course.demonstrations(50), chunk_size=25, model=model, steps=1000, lr=2e-3
    )
    policies[beta] = run.policy
    posteriors[beta] = latent.posterior(run.policy, demos)
    print(f"kl_weight {beta:5}: {posteriors[beta]}")

# %% mend-judged [markdown]
# A small weight lets z carry information. With the posterior's z the chunk is then
# reconstructed much more closely, and that is the loss that training shows. But a robot
# has no demonstrated chunk to read z from. For it the last number counts, the error with
# z = 0, and that gets worse.

# %% latent-explorer
explorer = latent.latent_explorer(policies, posteriors, seen)
explorer

# %% latent-judged [markdown]
# Move one slider at a time and compare with the dashed line. Does the arm go somewhere
# else, or does it go there sooner or later? In these demonstrations speed varies by
# more than a factor of two, there are random pauses, and half of the approaches come
# from above, half from the side. One observation tells none of that in advance.
#
# Does it help the robot? z = 0 and z drawn from the prior, on the same 50 fresh scenes:

# %% live
for beta, one in policies.items():
    for name, ours in (("z = 0", one), ("z drawn", latent.sampled(one))):
        e = course.rollouts(ours, n=50, seed=7)
        print(f"kl_weight {beta:5}, {name:7}: {e}, frozen {100 * e.frozen:.0f} %")

# %% fails [markdown]
# ## Where it fails
#
# 50 rollouts leave wide intervals, so here are 300 a row, three seeds. First the same
# pick-and-place with human-like demonstrations (k = 25). Then a small ACT that passes the
# post, where half of its demonstrators go left and nothing observed tells which; it
# executes whole chunks.

# %% by-weight
print(latent.by_weight("pick and place"), latent.by_weight("post"), sep="\n\n")

# %% paper [markdown]
# Pick-and-place needs no z: where it has collapsed, success is that without a CVAE, and
# where it carries many nats, success is lost. At the post a **drawn** z helps at the
# right weight, but z = 0, the paper's choice, does not help.
#
# ## Why did the paper lose 33 points?
#
# By the bound above, its z should carry little: at β = 10 no more than 0.1 nats, even
# with an L1 of 1 (on standardised actions a constant does better). Yet without the CVAE
# it lost 33 points on human demonstrations. What differs, and what can we test here?
#
# | | paper | here | tested here |
# |---|---|---|---|
# | β, summed KL | 10 | 1 | yes, above |
# | a choice that is not observed | unknown | approach, speed, pauses; the post | yes, above |
# | z of the robot | 0 | 0 | drawn, too |
# | chunk, k·A | 100 · 14 = 1400 | 50 · 6 = 300 | k from 5 to 100 |
# | observation | images | joints, the cube's pose | no |
# | demonstrators | people, two arms, 50 Hz | a script with human-like variation, 30 Hz | no |
# | network | about 80 million weights | 0.15 million | no |
#
# The paper's own comparison, repeated (`kl_weight` 1, half chunks, k from 5 to 100
# together; k = 1 stands below):

# %% ablation
print(latent.ablation())

# %% summary [markdown]
# So this course cannot explain the 33 points: here nothing is lost, and images, people
# and the large network are not tested. Single chunk sizes from 5 to 100 differ by about four
# points at most; single steps do better without a CVAE (human-like):
#
# | | with | without |
# |---|---|---|
# | k = 1 | {{chunk_size summary demonstrator=human k=1 cvae=true execution=half}} | {{chunk_size summary demonstrator=human k=1 cvae=false execution=half}} |
# | k = 5, whole chunks | {{chunk_size summary demonstrator=human k=5 cvae=true execution=whole}} | {{chunk_size summary demonstrator=human k=5 cvae=false execution=whole}} |
#
# The KL of the paper's own run would tell whether
# its z was in use. We know of no published value.
#
# ## Summary
#
# A CVAE can tell apart what the observation does not, if β lets it; then the robot needs
# a good z. Where the KL is 0, ACT is a plain chunk predictor. So print the KL of every
# run.
#
# | sign | meaning |
# |---|---|
# | z | latent, Z numbers (16 here, 32 in the paper) |
# | μ, σ, logvar | posterior of z given a chunk; logvar = log σ² |
# | KL | nats that z tells about the chunk |
# | β, `kl_weight` | weight of the KL; depends on both reductions |
# | b | scale of the Laplace decoder, the mean error |
#
# ## References
#
# | | read it for |
# |---|---|
# | Kingma and Welling 2013, [arXiv:1312.6114](https://arxiv.org/abs/1312.6114) | the variational autoencoder and the reparametrisation |
# | Bowman et al. 2015, [arXiv:1511.06349](https://arxiv.org/abs/1511.06349) | posterior collapse, found with sentences, and a schedule for the KL |
# | Alemi et al. 2017, [arXiv:1711.00464](https://arxiv.org/abs/1711.00464) | β as a choice between rate (the KL) and distortion |
# | Zhao et al. 2023, [arXiv:2304.13705](https://arxiv.org/abs/2304.13705) | ACT's CVAE, and the ablation that is questioned here |
# | Chi et al. 2023, [arXiv:2303.04137](https://arxiv.org/abs/2303.04137) | Diffusion Policy: several ways without a z to choose |
#
# ## Where next
#
# [04](04_temporal_ensembling.ipynb): chunks that overlap do not agree. Average them?
