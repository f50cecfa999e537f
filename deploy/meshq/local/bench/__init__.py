"""Measures the whole system, one scenario after the other, on a fresh one: `make bench`."""
