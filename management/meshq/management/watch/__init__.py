"""From the ledger to whoever watches."""
