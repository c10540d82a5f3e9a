"""C25: the paper's table beside one article's. Facts; nothing is run."""

from ..rollouts import Row
from .claim import Claim

PAPER = (
    "T. Z. Zhao, V. Kumar, S. Levine, C. Finn: Learning Fine-Grained Bimanual "
    "Manipulation with Low-Cost Hardware, RSS 2023 (arXiv 2304.13705), final stage of "
    "each task, 50 demonstrations"
)
ARTICLE = "an introductory article on ACT"
README = "README of the original code (github.com/tonyzhaozh/act)"

# task, where, percent in the paper, percent in the article (None: not in it)
TASKS = (
    ("Transfer Cube, scripted", "simulation", 86, 90),
    ("Transfer Cube, human", "simulation", 50, None),
    ("Insertion, scripted", "simulation", 32, None),
    ("Insertion, human", "simulation", 20, None),
    ("Slide Ziploc", "real", 88, None),
    ("Slot Battery", "real", 96, 96),
    ("Open Cup", "real", 84, 68),
    ("Thread Velcro", "real", 20, None),
    ("Prep Tape", "real", 64, None),
    ("Put On Shoe", "real", 92, None),
    ("zip tie (no such task in the paper)", "real", None, 52),
)


def facts() -> list[Row]:
    """One entry a task; `agree` where both tables have a number."""
    return [
        {
            "task": task,
            "where": where,
            "paper_percent": paper,
            "article_percent": article,
            "agree": None if paper is None or article is None else paper == article,
        }
        for task, where, paper, article in TASKS
    ]


def measure(settings: None) -> Row:
    """All rows, and how many of both tables agree."""
    rows = facts()
    both = [row for row in rows if row["agree"] is not None]
    return {
        "sources": {"paper": PAPER, "article": ARTICLE, "code": README},
        "note": "The article does not say which demonstrations its transfer number "
        "is for; it is set beside the nearer one. The code's README gives about 90 "
        "% and 50 % for its two simulated tasks: a third table.",
        "n": len(both),
        "agreeing": sum(bool(row["agree"]) for row in both),
        "only_in_the_article": sum(row["paper_percent"] is None for row in rows),
        "summary": rows,
    }


C25 = Claim(
    "C25",
    "The paper's success rates, as articles print them.",
    "Zhao et al.: Transfer Cube 86 % (scripted) and 50 % (human), Insertion 32 % and "
    "20 %; Ziploc 88 %, Battery 96 %, Cup 84 %, Velcro 20 %, Tape 64 %, Shoe 92 %.",
    measure,
    ours="Nothing was run. Of {{claims/C25 n}} tasks that the paper and one article "
    "both list, {{claims/C25 agreeing}} have the same number.",
    verdict="did not hold",
    line="One article prints other rates than the paper: of {{claims/C25 n}} tasks in "
    "both, {{claims/C25 agreeing}} agrees. Cite the paper.",
)
