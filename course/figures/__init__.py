"""Figures and experiments, one module a lesson or a part of one."""
