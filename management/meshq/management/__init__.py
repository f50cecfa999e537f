"""Management: what should happen. The public API, the ledger, and the watchers."""
