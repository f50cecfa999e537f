"""What the ledger means, without any storage or wire."""
