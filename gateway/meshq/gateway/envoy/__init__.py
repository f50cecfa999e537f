"""Envoy as a process: finding the program, running it, asking its admin interface."""
