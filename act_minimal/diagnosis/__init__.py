"""Why a policy fails: evidence, checks that look at it, and a report."""
