"""The console: a status page, health and metrics of the whole mesh over HTTP."""
