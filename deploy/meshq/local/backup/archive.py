"""The file that a backup is: the dumps of both databases and a manifest, in an uncompressed zip.

The manifest is written last and the file gets its name only then, so that half a backup is never taken for
one. Each dump has its length and SHA-256 in the manifest.
"""

import contextlib
import hashlib
import json
import os
import shutil
import zipfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, Self

from meshq.local.backup.errors import BackupFailed, NotABackup

FORMAT = 1
MANAGEMENT, EXECUTION = "management", "execution"
NAMES = (MANAGEMENT, EXECUTION)
_MANIFEST = "manifest.json"
_ZIP = b"PK\x03\x04"
_BLOCK = 1 << 20
_PRIVATE = 0o600


@dataclass(frozen=True)
class Dump:
    """What the manifest says of one database.

    Attributes:
        server: The version of PostgreSQL that it was in: major and minor.
        program: The version of pg_dump.
        taken: The moment that it shows, ISO 8601.
        migrations: The files of the migrations that were applied to it.
        rows: How much there was: rows by what they are.
        size: The length of the dump in bytes.
        sha256: Of the dump.
    """

    server: tuple[int, int]
    program: tuple[int, int]
    taken: str
    migrations: tuple[str, ...]
    rows: dict[str, int]
    size: int = 0
    sha256: str = ""


@dataclass(frozen=True)
class Manifest:
    """What a backup says of itself; `meshq` is the version that made it."""

    meshq: str
    created: str
    management: Dump
    execution: Dump
    format: int = FORMAT

    def of(self, name: str) -> Dump:
        """The dump of a database."""
        return self.management if name == MANAGEMENT else self.execution

    @classmethod
    def read(cls, text: bytes) -> Self:
        """Understand a manifest; raises ValueError, TypeError or KeyError if it is none."""
        content = json.loads(text)
        return cls(**{**content, **{name: _dump(content[name]) for name in NAMES}})


class Writer:
    """Writes an archive; used by `writing`."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive

    @contextlib.contextmanager
    def dump(self, name: str) -> Iterator["HashingFile"]:
        """A file for the dump of a database."""
        with self._archive.open(zipfile.ZipInfo(f"{name}.dump"), "w", force_zip64=True) as file:
            yield HashingFile(file)

    def manifest(self, manifest: Manifest) -> None:
        """Write the manifest, behind the dumps."""
        self._archive.writestr(_MANIFEST, json.dumps(asdict(manifest), indent=1))


class HashingFile:
    """Counts and hashes what is written to a file."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._hash = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes) -> int:
        """Write a block."""
        self._hash.update(data)
        self.size += len(data)
        return self._file.write(data)

    @property
    def sha256(self) -> str:
        """Of what was written."""
        return self._hash.hexdigest()


@contextlib.contextmanager
def writing(path: Path) -> Iterator[Writer]:
    """Write an archive that appears under its name when it is complete; raises BackupFailed."""
    unfinished = path.with_name(path.name + ".unfinished")
    if path.exists():
        raise BackupFailed(f"{path} exists already: choose another name, or move it away.")
    try:
        with open(os.open(unfinished, os.O_RDWR | os.O_CREAT | os.O_TRUNC, _PRIVATE), "w+b") as file:  # noqa: PTH123
            with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
                yield Writer(archive)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        raise BackupFailed(f"{path} cannot be written: {error.strerror or error}.") from error
    finally:
        with contextlib.suppress(OSError):
            unfinished.unlink(missing_ok=True)


class Archive:
    """A backup that is read.

    Args:
        path: The file.

    Raises:
        NotABackup: It is none, or not complete, or of another format.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.manifest = self._read()

    def check(self) -> None:
        """Read everything and compare it with the manifest; raises NotABackup."""
        for name in NAMES:
            found = hashlib.sha256()
            with self._translated(), self.dump(name) as file:
                while block := file.read(_BLOCK):
                    found.update(block)
            if found.hexdigest() != self.manifest.of(name).sha256:
                raise NotABackup(
                    f"{self.path} is damaged: its {name} database is not what the backup has written."
                )

    @contextlib.contextmanager
    def dump(self, name: str) -> Iterator[IO[bytes]]:
        """The dump of a database."""
        with zipfile.ZipFile(self.path) as archive, archive.open(f"{name}.dump") as file:
            yield file

    def _read(self) -> Manifest:
        with self._translated():
            if not zipfile.is_zipfile(self.path):
                raise self._no_archive()
            with zipfile.ZipFile(self.path) as archive:
                text = archive.read(_MANIFEST)
        try:
            if (number := json.loads(text)["format"]) != FORMAT:
                raise NotABackup(
                    f"{self.path} has format {number}, and this version of meshq reads format {FORMAT}: "
                    f"use the version that made it, or a newer one."
                )
            return Manifest.read(text)
        except (ValueError, TypeError, KeyError) as error:
            raise NotABackup(f"{self.path} is damaged: its manifest cannot be read.") from error

    def _no_archive(self) -> NotABackup:
        with self.path.open("rb") as file:
            if file.read(len(_ZIP)) == _ZIP:
                return NotABackup(f"{self.path} is cut off: its end is missing, so copy it once more.")
        return NotABackup(f"{self.path} is not a backup of meshq.")

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            raise NotABackup(f"There is no file {self.path}.") from error
        except KeyError as error:
            raise NotABackup(
                f"{self.path} is not a backup of meshq: it has no manifest or no dumps."
            ) from error
        except (zipfile.BadZipFile, EOFError) as error:
            raise NotABackup(f"{self.path} is damaged: {error}.") from error
        except OSError as error:
            raise NotABackup(f"{self.path} cannot be read: {error.strerror or error}.") from error


def copy(source: IO[bytes], target: HashingFile | IO[bytes]) -> None:
    """Copy all of a stream."""
    shutil.copyfileobj(source, target, _BLOCK)


def _dump(content: dict[str, Any]) -> Dump:
    versions = {key: (int(content[key][0]), int(content[key][1])) for key in ("server", "program")}
    return Dump(**{**content, **versions, "migrations": tuple(content["migrations"])})


def _sync_folder(folder: Path) -> None:
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
