"""Backups of both databases, consistent with each other, and the way back."""
