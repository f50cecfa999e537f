"""The process that keeps a worker's session: `python -m meshq.worker.session`, started by the worker.

It is a process of its own because leases must outlive whatever a handler does. Measured beside a handler
that holds the interpreter lock, heartbeats of a thread every 100 ms came up to 2.8 s late, those of a
process 0.02 s; beside twenty busy Python threads 0.5 s and 0.005 s.

What it does for the handlers:

- says Hello, and again after each break, with backoff, presenting the leases that are held;
- acknowledges each assignment at once, sends heartbeats, answers pings;
- keeps each result until the server has recorded it, and reports it again after a break or TRY_LATER;
- translates credit: the handlers count from their start, the server counts from each Welcome.

Everything else passes through it unread. When the pipe to the handlers closes, their process is gone, and
Goodbye lets the server give their tasks to others at once.
"""
