"""The real input of the demo: the text files of a checkout, and the texts that come with Python."""

import subprocess
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from pydoc_data.topics import topics

from meshq.contract.limits import MAX_PAYLOAD_BYTES

TEXT_SUFFIXES = frozenset({".txt", ".rst", ".md"})
HIDDEN = frozenset({".git", ".venv", "node_modules", "__pycache__"})


@dataclass(frozen=True, slots=True)
class Text:
    """A text and the name to show for it."""

    name: str
    content: str

    @property
    def words(self) -> int:
        """A plain count of its words, made without meshq."""
        return len(self.content.split())


def all_texts(checkout: Path) -> list[Text]:
    """The texts of the checkout and of the standard library; never an empty one or one over the limit."""
    found = [*_files(checkout), *_library(), *_topics()]
    return [text for text in found if text.content and len(text.content.encode()) < MAX_PAYLOAD_BYTES - 64]


def _files(checkout: Path) -> Iterator[Text]:
    for path in _listed(checkout):
        text = _read(path, str(path.relative_to(checkout)))
        if text is not None:
            yield text


def _listed(checkout: Path) -> list[Path]:
    """What git tracks; all files but hidden ones where there is no git."""
    try:
        listing = subprocess.run(
            ["git", "-C", str(checkout), "ls-files", "-z"],  # noqa: S607 - the user's own git
            capture_output=True,
            check=True,
            text=True,
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        return sorted(
            path for path in checkout.rglob("*") if path.is_file() and HIDDEN.isdisjoint(path.parts)
        )
    return [checkout / name for name in sorted(listing.split("\0")) if name]


def _library() -> Iterator[Text]:
    """License and documentation texts beside the modules of the standard library."""
    root = Path(sysconfig.get_path("stdlib"))
    for path in sorted(root.rglob("*")):
        if path.suffix in TEXT_SUFFIXES and "site-packages" not in path.parts:
            text = _read(path, f"python/{path.relative_to(root)}")
            if text is not None:
                yield text


def _topics() -> Iterator[Text]:
    """The chapters of the language reference that `help()` shows."""
    for name, content in sorted(topics.items()):
        yield Text(f"help/{name}", content)


def _read(path: Path, name: str) -> Text | None:
    try:
        return Text(name, path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        return None
