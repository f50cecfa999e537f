"""PostgreSQL refuses to run as root; this is how it runs when we are root nevertheless.

First choice is a user namespace in which root is called nobody: folders of mode 0700 stay readable and
nothing changes its owner. Containers often refuse that; then an unprivileged account runs it, and its folder
is handed over.
"""

import functools
import os
import pwd
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from meshq.local.errors import PrivilegesRefused

_NOBODY = 65534
_ACCOUNTS = ("postgres", "nobody")


@dataclass(frozen=True)
class Unprivileged:
    """How to run a program without root's rights."""

    prefix: tuple[str, ...] = ()
    account: pwd.struct_passwd | None = None

    def hand_over(self, folder: Path, *programs: Path) -> None:
        """Give the folder to the account, and see that it reaches the folder and the programs."""
        if self.account is None:
            return
        for path in (folder, *folder.rglob("*")):
            os.chown(path, self.account.pw_uid, self.account.pw_gid, follow_symlinks=False)
        for path in (folder, *programs):
            self._check_reachable(path)

    def _check_reachable(self, path: Path) -> None:
        assert self.account is not None
        user, group = self.account.pw_uid, self.account.pw_gid
        test = ["/usr/bin/env", "test", "-x", str(path)]
        tested = subprocess.run(test, check=False, user=user, group=group, extra_groups=[])
        if tested.returncode != 0:
            raise PrivilegesRefused(
                f"PostgreSQL does not run as root, user namespaces are refused here, and the account "
                f"{self.account.pw_name} cannot reach {path}: run meshq as an ordinary user, or use folders "
                f"that every user may enter."
            )


@functools.cache
def unprivileged() -> Unprivileged:
    """Choose the way that works on this machine; nothing is needed for ordinary users."""
    if os.geteuid() != 0:
        return Unprivileged()
    if prefix := _namespace():
        return Unprivileged(prefix=prefix)
    for name in _ACCOUNTS:
        try:
            return Unprivileged(account=pwd.getpwnam(name))
        except KeyError:
            continue
    raise PrivilegesRefused(
        "PostgreSQL does not run as root, user namespaces are refused here, and there is no account "
        "called postgres or nobody: run meshq as an ordinary user."
    )


def _namespace() -> tuple[str, ...]:
    unshare = shutil.which("unshare")
    if unshare is None:
        return ()
    prefix = (unshare, "--user", f"--map-user={_NOBODY}", f"--map-group={_NOBODY}")
    tried = subprocess.run([*prefix, "/usr/bin/env", "true"], capture_output=True, check=False)
    return prefix if tried.returncode == 0 else ()
