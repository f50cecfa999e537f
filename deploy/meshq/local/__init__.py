"""The whole system on one machine: real servers and every component as ordinary processes on loopback."""
