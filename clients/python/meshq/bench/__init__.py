"""Measures a running meshq through its public API: `meshq bench`, and most scenarios of `make bench`.

Nothing here knows where the system runs; what only the machine of the servers can tell, such as the CPU that
each process takes, `meshq.local.bench` adds.
"""
