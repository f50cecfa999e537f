"""Puts what was measured into a page: its machine, its table of targets, and pictures."""
