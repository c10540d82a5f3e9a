"""Policies and datasets of other projects, both ways."""
