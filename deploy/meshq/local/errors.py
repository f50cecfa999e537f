"""What can go wrong on one machine, each as one sentence for the person at the terminal.

LocalError
|-- MissingBinary      a server's program is nowhere
|-- PortInUse          the edge's port belongs to somebody else
|-- DataUnusable       the data directory cannot be written, or its disk is full
|-- AlreadyRunning     a system runs on this data already
|-- NotRunning         there is no system to stop
`-- StartFailed        a process did not become ready
    `-- PrivilegesRefused  PostgreSQL cannot be run without root's rights
"""


class LocalError(Exception):
    """The root of the tree; its text is one complete sentence."""


class BadSetting(LocalError):
    """A setting cannot be understood."""


class MissingBinary(LocalError):
    """A server's program was not found, or is too old everywhere."""


class PortInUse(LocalError):
    """The port of the edge is taken."""


class DataUnusable(LocalError):
    """The data directory cannot be written, or too little space is left."""


class AlreadyRunning(LocalError):
    """Another system runs on the same data directory."""


class NotRunning(LocalError):
    """No system runs on the data directory."""


class StartFailed(LocalError):
    """A process ended or did not become ready in time."""


class PrivilegesRefused(StartFailed):
    """PostgreSQL refuses root, and this machine refuses to give its rights up."""
