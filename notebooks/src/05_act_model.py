# %% title [markdown]
# # 05 · The ACT model, piece by piece
#
# {{runtime}} · 90 minutes of work · any laptop
#
# After this lesson you can **assemble ACT** from six small functions, **say the shape at
# every line**, and look inside a trained one.
#
# You need lessons 02 (chunks) and 03 (the CVAE), and a little torch: matrix products,
# `cat`, broadcasting.

# %% set-up
from pathlib import Path

import torch
import torch.nn.functional as F

import course
from act_minimal.checkpoint import load_policy
from course import check, hint, predict, reveal, show
from course.figures import lesson_05_attention as gaze
from course.figures import lesson_05_parts as anatomy

DATA = Path(course.ROOT) / "data"
course.begin("05")

# %% question [markdown]
# ## The question
#
# Joint angles, the cube's pose and a random z go in; 50 actions come out, all at once.
# What happens in between, line by line?
#
# The answer is worth having. The original code held a slip for years that no shape
# revealed and no error reported: of seven decoder layers it used the first one's output.
# Training went well, papers were built on it.

# %% predict
predict("05.layers")

# %% shapes-text [markdown]
# ## Look first
#
# A batch of four windows runs through a small, untrained ACT. Name of the part, shape
# that comes in, shape that goes out, numbers it holds. Letters: B = 4 batch, k = 50
# chunk, A = 6 actions, D = 64 width, Z = 16 latent.

# %% shapes
state_policy = load_policy(DATA / "checkpoints/so100_pick_place_state")
batch = anatomy.sample_batch(state_policy)
model = anatomy.fresh()
eps = torch.randn(4, 16, generator=torch.Generator().manual_seed(0))
for line in anatomy.shapes(model, batch, eps):
    print(line)

# %% idea [markdown]
# ## The idea, then the maths
#
# Everything is a **token**, a row of D numbers. Tokens exchange what they know by
# attention; an MLP then works on each alone. The *encoder* does so with z, joints, cube
# and images. The *decoder* begins with k empty rows, one an action, that ask the
# encoder's result, the **memory**, for what they need.
#
# Attention forgets order, so each token also gets a position. ACT's CVAE writes it with
# waves: for position p and $j = 0, 1, \dots$
#
# $$ s_{p,2j} = \sin(p\,r_j), \quad s_{p,2j+1} = \cos(p\,r_j), \quad
# r_j = 10000^{-2j/D}. $$
#
# ### Exercise: positions (8 minutes, easy)


# %% sinusoid tags=["exercise"]
def sinusoid(length, width):
    """Positions (length, width): sine and cosine in turn."""
    # solution
    position = torch.arange(length)[:, None]  # (length, 1)
    rate = 10000.0 ** (-torch.arange(0, width, 2) / width)  # (width / 2,)
    angle = position * rate  # (length, width / 2)
    return torch.stack([angle.sin(), angle.cos()], -1).flatten(1)  # (length, width)
    # stub
    # ...  # position (length, 1), rate (width / 2,), angle (length, width / 2)
    # end


check("05.sinusoid", sinusoid)

# %% sinusoid-hint
hint("05.sinusoid")

# %% waves
show(
    anatomy.sinusoid_figure(),
    "Left: the table of 52 positions and 64 channels, waves that slow down to the "
    "right. Right: each of n = 3 positions is most like itself and its neighbours.",
)

# %% attend-text [markdown]
# A dot product with a neighbour's position is large, with a far one small: closeness has
# become something that attention can measure.
#
# ### Exercise: attention (10 minutes)
#
# A query $q$ compares itself with every key, and takes the mean of the values, weighted
# by how well they fit:
#
# $$ \mathrm{attend}(Q, K, V) = \mathrm{softmax}\big(Q K^\top / \sqrt d\,\big)\, V. $$
#
# Why $\sqrt d$? A dot product of d numbers of variance 1 has variance d; without the
# division the softmax would pick one key from the start and hardly learn. `look` is True
# where a query may look.


# %% attend tags=["exercise"]
def attend(query, key, value, look=None):
    """query (..., T, d), key and value (..., S, d) to (..., T, d); look (..., S)."""
    # solution
    score = query @ key.mT / query.shape[-1] ** 0.5  # (..., T, S)
    if look is not None:
        score = score.masked_fill(~look, -torch.inf)
    return score.softmax(-1) @ value  # (..., T, d)
    # stub
    # ...  # score (..., T, S); mask it; softmax over S; mean of the values
    # end


check("05.attend", attend)

# %% attend-hint
hint("05.attend")

# %% heads-text [markdown]
# ### Exercise: heads (5 minutes, a classic trap)
#
# Four heads look at four things at once. Head h gets numbers $h\,D/4$ to
# $(h+1)\,D/4 - 1$ of every token.


# %% heads tags=["exercise"]
def split_heads(x, heads):
    """(B, T, D) to (B, heads, T, D / heads)."""
    # solution
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)
    # stub
    # ...  # the right shape is not yet the right numbers
    # end


check("05.split-heads", split_heads)

# %% heads-hint
hint("05.split-heads")

# %% layer-text [markdown]
# ### Exercise: an encoder layer (10 minutes)
#
# With $\mathrm{n}_1, \mathrm{n}_2$ layer norms and p the positions:
#
# $$ y = \mathrm{n}_1(x), \quad x \leftarrow x + \mathrm{attention}(y + p,\; y + p,\; y),
# \quad x \leftarrow x + \mathrm{mlp}(\mathrm{n}_2(x)). $$
#
# `w` holds the layer's weights. `w.norm("norm1", x)`, `w.mlp(x)` and
# `w.attention("self_attn", query, key, value, look)` use them; the last one projects, and
# calls `split_heads` and `attend`.


# %% layer tags=["exercise"]
def encoder_layer(w, x, position, look=None):
    """x (B, T, D), position (T, D), look (B, T) to (B, T, D)."""
    # solution
    y = w.norm("norm1", x)  # (B, T, D)
    place = y + position  # (B, T, D)
    x = x + w.attention("self_attn", place, place, y, look)  # (B, T, D)
    return x + w.mlp(w.norm("norm2", x))  # (B, T, D)
    # stub
    # ...  # two halves, each x + f(norm(x))
    # end


check("05.encoder-layer", encoder_layer)

# %% layer-hint
hint("05.encoder-layer")

# %% posterior-text [markdown]
# ### Exercise: the CVAE's encoder (12 minutes)
#
# In training, z is drawn from what the demonstrated chunk says. A transformer reads
# `[CLS, joints, action 1, ..., action k]`; CLS, a learned row, gathers the summary.
# Padded actions must have no say: `look` is False there.
#
# `w["cls"]` is (D,); `w.linear("qpos_proj", x)`, `w.linear("action_proj", x)` and
# `w.linear("latent_proj", x)` are linear layers; `w.encoder(x, position, look)` runs your
# layers; `w.sinusoid(n)` gives n positions.


# %% posterior tags=["exercise"]
def posterior(w, qpos, action, is_pad):
    """qpos (B, S), action (B, k, A), is_pad (B, k) to mean and log variance (B, Z)."""
    # solution
    cls = w["cls"].expand(len(qpos), 1, -1)  # (B, 1, D)
    joints = w.linear("qpos_proj", qpos)[:, None]  # (B, 1, D)
    actions = w.linear("action_proj", action)  # (B, k, D)
    x = torch.cat([cls, joints, actions], 1)  # (B, 2 + k, D)
    look = F.pad(~is_pad, (2, 0), value=True)  # (B, 2 + k)
    x = w.encoder(x, w.sinusoid(x.shape[1]), look)  # (B, 2 + k, D)
    return w.linear("latent_proj", x[:, 0]).chunk(2, -1)  # (B, Z), (B, Z)
    # stub
    # mean = logvar = None  # three kinds of tokens, a mask, the encoder, CLS
    # return mean, logvar
    # end


check("05.posterior", posterior)

# %% posterior-hint
hint("05.posterior")

# %% decode-text [markdown]
# ### Exercise: the decoder (12 minutes)
#
# k **learned queries**, one an action, are the decoder's positions. The rows x begin as
# zeros. First they look at each other, then at the memory: `key` is memory + positions
# (where to look), `memory` is what is read. Each half is again $x + f(\mathrm{n}(x))$.
#
# `w["queries"]` is (k, D). The layer: `layer = w.part("decoder.0")`, with `self_attn`,
# `cross_attn`, `norm1` to `norm3` and `mlp`. At the end come `w.norm("decoder_norm", x)`
# and `w.linear("action_head", x)`.


# %% decode tags=["exercise"]
def decode(w, memory, key):
    """memory and key (B, T, D) to actions (B, k, A)."""
    # solution
    query = w["queries"]  # (k, D)
    layer = w.part("decoder.0")
    x = torch.zeros(len(memory), *query.shape)  # (B, k, D)
    y = layer.norm("norm1", x)
    x = x + layer.attention("self_attn", y + query, y + query, y)  # (B, k, D)
    y = layer.norm("norm2", x)
    x = x + layer.attention("cross_attn", y + query, key, memory)  # (B, k, D)
    x = x + layer.mlp(layer.norm("norm3", x))  # (B, k, D)
    return w.linear("action_head", w.norm("decoder_norm", x))  # (B, k, A)
    # stub
    # ...  # zeros; self_attn; cross_attn; mlp; decoder_norm; action_head
    # end


check("05.decode", decode)

# %% decode-hint
hint("05.decode")

# %% whole-text [markdown]
# ## The whole network
#
# Six functions make ACT. Where a check is not yet happy, the course's own piece steps in;
# a printed line says which are yours.
#
# Shapes that match prove little. So we copy the weights of the package's `ACT`, give
# both the same batch and noise, and compare numbers.


# %% whole
def act(w, batch, eps):
    cvae, p = w.part("cvae"), w.pieces
    mean, logvar = p.posterior(cvae, batch["qpos"], batch["action"], batch["is_pad"])
    z = mean + (0.5 * logvar).exp() * eps  # (B, Z)
    x = [
        *(w.linear("latent_proj", z), w.linear("qpos_proj", batch["qpos"])),
        w.linear("env_proj", batch["env_state"]),
    ]
    memory = w.encoder(torch.stack(x, 1), w["position"])  # (B, 3, D)
    return p.decode(w, memory, memory + w["position"])  # (B, k, A)


act

# %% yours
names = (attend, split_heads, sinusoid, encoder_layer, posterior, decode)
pieces = anatomy.yours_or_ours(**{function.__name__: function for function in names})
print(pieces)
answer = act(anatomy.Weights(model, pieces=pieces), batch, eps)
gap = anatomy.difference(model, answer, batch, eps)
print(f"{tuple(answer.shape)} actions, largest difference {gap:.1e}")

# %% queries-text [markdown]
# The two agree up to rounding. That is the strongest test a network can have, and a
# cheap one.
#
# ## What the queries learned
#
# The queries began as random rows. After training, are those of neighbouring actions
# more alike? Left, each with each; right, the mean against how far apart they are.

# %% queries
show(
    anatomy.query_figure(model.queries, state_policy.module.queries),
    "Left: cosines between the 50 trained queries. Right: mean cosine against the "
    "distance of two actions, untrained about zero throughout; n = 1 network each.",
)

# %% decoder-story [markdown]
# Faint, but there: neighbours lean towards each other, the two ends of the chunk away
# from each other. Nobody told the network that action 12 follows action 11.
#
# ## Seven layers, of which one is used
#
# The published decoder stacks seven layers. The original code collected all of their
# outputs, and took element `[0]`: meant as "the only output", it was the first layer's.
# Which layers does the loss reach?

# %% decoder-layers
for output in ("first", "last"):
    alive = anatomy.reached(layers=7, output=output)
    print(f"{output:5}", " ".join("learns" if one else "dead  " for one in alive))
seven, one = (anatomy.paper_parameters(n) for n in (7, 1))
print(f"paper's network: {seven:,} numbers, {seven - one:,} of them in dead layers")

# %% reveal
reveal("05.layers")

# %% decoder-why [markdown]
# Six dead layers cost memory and nothing else: they get no gradient and change no
# output. LeRobot therefore builds one layer. The few points that all seven gain cost
# {{claims/C09 summary layers=7 output=last -> train_seconds_mean 0}} s of training instead
# of {{claims/C09 summary layers=1 output=last -> train_seconds_mean 0}} s.
#
# No error, falling loss, a working robot: only a comparison like the one above, or a
# look at the gradients, finds such a slip.
#
# ## What does it look at?
#
# The vision policy reads two cameras. Each gives 64 **keypoints** (where a channel of
# its small convolution network is most active), and four tokens a camera carry them. We
# run it along a recorded demonstration.

# %% look
vision_policy = load_policy(DATA / "checkpoints/so100_pick_place_vision")
looks = gaze.look(vision_policy, DATA / "samples/vision/episode_0.hdf5")
print(f"{len(looks.seconds)} moments, {looks.weight.shape[1]} actions each")
for name, share in zip(gaze.TOKENS, looks.weight.mean((0, 1)), strict=True):
    print(f"{name:8} {100 * share:4.1f} % of all attention")

# %% explorer-text [markdown]
# **Move the moment from the reach to the drop, and the action from 1 to 50.** A dot is a
# keypoint; the larger it is, the further this action moves when that keypoint moves by
# one pixel. The bars are the attention of this action on each token.

# %% explorer
gaze.camera_explorer(looks)

# %% fails [markdown]
# ## Where it fails
#
# **Attention is not explanation.** The encoder mixed the tokens before the decoder
# looked: "joints" may hold what a camera saw. So the dots show an *effect*, measured by
# moving a keypoint.
#
# **Keypoints are not objects.** Some follow the cube or the jaw, others nothing that we
# have a name for. z gets almost no attention: at test time it is always 0.
#
# **Equal shapes are not equal networks.** Swap two cameras, forget a position: everything
# runs.

# %% summary [markdown]
# ## Summary
#
# ACT is two kinds of attention and an MLP, repeated. Positions enter queries and keys,
# never values; padding is masked. Test a network against another with equal weights, and
# look where gradients go.
#
# | sign | meaning |
# |---|---|
# | B, k, A | batch, chunk size, actions |
# | D, Z | width of a token, of the latent |
# | T, S | tokens that ask, tokens that are asked |
# | d | width of a head, D / heads |
# | memory | the encoder's output (B, T, D) |
#
# ## Where next
#
# [06](06_training.ipynb) trains it, and asks when to stop.
