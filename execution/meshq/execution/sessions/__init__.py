"""Workers: their sessions, their polls, and who gets which task."""
