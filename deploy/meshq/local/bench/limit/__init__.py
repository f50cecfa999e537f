"""What this machine's stores could do: the rows and calls of plain tasks without anything around them.

The components' own code makes every statement and every call, before anything is measured; then they are
played on the servers that the system uses, in databases and a keyspace of their own. This is the one place
outside of management and execution that knows their stores.
"""
