"""Claims that nothing here measures yet."""

from .claim import Claim

C23 = Claim(
    "C23",
    "When inference is slower than control, switching between chunks jerks; real-time "
    "chunking and its relatives cure it.",
    "The papers on real-time chunking: it works with delays of more than 300 ms.",
    line="Real-time chunking needs an executor that predicts while the arm moves; "
    "there is none here yet.",
)
C24 = Claim(
    "C24",
    "Chunked Q-learning has no off-policy bias, but misjudges values in stochastic "
    "worlds; chunks explore better and stitch worse.",
    "An article on chunks in reinforcement learning; no number is given.",
    line="There is no reinforcement learning in this package.",
)
