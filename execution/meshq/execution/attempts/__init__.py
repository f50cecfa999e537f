"""Ends of attempts: recorded once, reported until the ledger has answered, applied to the shards."""
