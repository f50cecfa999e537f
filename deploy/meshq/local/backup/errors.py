"""What can go wrong with backups, each as one sentence for the person at the terminal.

LocalError
|-- DatabaseUnusable  a database does not answer, or is not what it should be
|-- BackupFailed      the backup could not be made or written
|-- NotABackup        the file is not a complete backup of a known format
|-- RestoreRefused    restoring would harm something, or cannot work
`-- RestoreFailed     restoring was begun and did not end well
"""

from meshq.local.errors import LocalError


class DatabaseUnusable(LocalError):
    """A database does not answer, or is not the one that it should be."""


class BackupFailed(LocalError):
    """The backup could not be made."""


class NotABackup(LocalError):
    """The file is not a complete backup of a known format."""


class RestoreRefused(LocalError):
    """Nothing was restored, because it would harm something or could not work."""


class RestoreFailed(LocalError):
    """Restoring was begun and did not end well."""
