"""Folders of episodes: looked at, merged, split, repaired."""
