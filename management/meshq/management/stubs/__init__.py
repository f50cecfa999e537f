"""The other processes, as management calls them: each module wraps the stubs of one service."""
