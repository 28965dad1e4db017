"""Searching settings: every method with the same budget, never on a test image."""
