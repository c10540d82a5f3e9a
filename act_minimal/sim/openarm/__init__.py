"""Two simulated OpenArms and their tasks."""
