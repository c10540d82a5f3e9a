"""Comparisons with LeRobot."""
