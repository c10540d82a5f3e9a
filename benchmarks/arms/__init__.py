"""Measurements on virtual arms."""
