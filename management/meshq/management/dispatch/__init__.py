"""From the ledger to execution: what is accepted goes out, and is compared for ever."""
