"""Generate the Python code of the contract, or check that what is committed is current.

This is the only caller of protoc and its plugins. Run it as `make generate` and `make verify`.
"""

from __future__ import annotations

import argparse
import filecmp
import importlib.resources
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent
OUTPUT = ROOT / "python"
PACKAGES = ("meshq/v1", "meshq/internal/v1")
BIN = Path(sysconfig.get_path("scripts"))


def main() -> int:
    """Run the command line and return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="fail when committed code is stale")
    parser.add_argument("--image", type=Path, help="only write a descriptor set for buf to this file")
    arguments = parser.parse_args()
    if arguments.image:
        descriptor_set(arguments.image.resolve())
        return 0
    with tempfile.TemporaryDirectory() as folder:
        fresh = Path(folder)
        generate(fresh)
        if not arguments.check:
            install(fresh)
            return 0
        stale = differences(fresh)
    for name in stale:
        print(f"stale: proto/python/{name}; run `make generate`", file=sys.stderr)
    return 1 if stale else 0


def sources() -> list[str]:
    """The .proto files, relative to this folder."""
    return sorted(
        str(path.relative_to(ROOT)) for package in PACKAGES for path in (ROOT / package).glob("*.proto")
    )


def protoc(*arguments: str) -> None:
    """Call protoc over all sources, with the third-party files of the installed packages."""
    site = sysconfig.get_path("purelib")
    well_known = importlib.resources.files("grpc_tools") / "_proto"
    includes = [f"-I{ROOT}", f"-I{well_known}", f"-I{site}"]
    command = [sys.executable, "-m", "grpc_tools.protoc", *includes, *arguments, *sources()]
    subprocess.run(command, check=True, cwd=ROOT)


def generate(output: Path) -> None:
    """Write messages, services and their type stubs below `output`."""
    protoc(
        f"--plugin=protoc-gen-mypy={BIN / 'protoc-gen-mypy'}",
        f"--plugin=protoc-gen-mypy_grpc={BIN / 'protoc-gen-mypy_grpc'}",
        f"--python_out={output}",
        f"--grpc_python_out={output}",
        f"--mypy_out={output}",
        f"--mypy_grpc_out={output}",
    )
    for package in PACKAGES:
        (output / package / "py.typed").touch()
        for stub in (output / package).glob("*_pb2_grpc.py*"):
            if (
                not (ROOT / package / f"{stub.name.split('_pb2_grpc')[0]}.proto")
                .read_text()
                .count("\nservice ")
            ):
                stub.unlink()


def descriptor_set(path: Path) -> None:
    """Write a descriptor set with imports and comments, which buf lints without a network."""
    protoc(f"--descriptor_set_out={path}", "--include_imports", "--include_source_info")


def install(fresh: Path) -> None:
    """Replace the committed code by the fresh one."""
    for package in PACKAGES:
        shutil.rmtree(OUTPUT / package, ignore_errors=True)
        shutil.copytree(fresh / package, OUTPUT / package)


def differences(fresh: Path) -> list[str]:
    """The files that are missing, left over or different in the committed code."""
    found: list[str] = []
    for package in PACKAGES:
        names = {path.name for folder in (fresh, OUTPUT) for path in (folder / package).glob("*.*")}
        _, mismatch, errors = filecmp.cmpfiles(fresh / package, OUTPUT / package, names, shallow=False)
        found += [f"{package}/{name}" for name in mismatch + errors]
    return sorted(found)


if __name__ == "__main__":
    sys.exit(main())
