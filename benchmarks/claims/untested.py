"""Claims that nothing here measures yet."""

from .claim import Claim

C24 = Claim(
    "C24",
    "Chunked Q-learning has no off-policy bias, but misjudges values in stochastic "
    "worlds; chunks explore better and stitch worse.",
    "An article on chunks in reinforcement learning; no number is given.",
    line="There is no reinforcement learning in this package.",
)
