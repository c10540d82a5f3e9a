"""The simulated SO-100 and its task."""
