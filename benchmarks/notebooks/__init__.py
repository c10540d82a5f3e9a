"""Measurements of the lessons in a browser."""
