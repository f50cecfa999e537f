"""Between the messages of the contract and the rows of the ledger; the one place where both are known."""
