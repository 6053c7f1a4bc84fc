"""Fill the embedded Arvados with files worth looking at; `scripts/try` runs it in the virtual environment.

usage: demo.py DATA_DIR

Starts the server when it isn't running. What is there already is left alone, so a second run ends at once.
The files are the machine's own (documentation, headers, the Python library) and a genomics sample.
"""

from __future__ import annotations

import os
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import genomics

from arvados_fuse.errors import ArvadosFuseError
from arvados_fuse.local.control import ensure_running

PROJECT = "demo"
PROJECT_DESCRIPTION = (
    "Files of this machine and a small genomics sample, put here by scripts/try so that there is something "
    "to see. Delete it whenever you like."
)
MOST_BYTES = 150_000_000
MOST_FILES = 20_000
"""What is taken of one directory tree at most: enough to look real, little enough to be quick."""
CHUNK = 1 << 20

Tree = tuple[str, str, Path]
"""name of the collection, its description, where the files are"""


def trees() -> list[Tree]:
    """The directory trees of this machine that are there and worth showing."""
    candidates = [
        ("documentation", "What the packages of this machine say about themselves.", Path("/usr/share/doc")),
        ("headers", "The C headers of this machine.", Path("/usr/include")),
        ("python-library", "The standard library of Python.", Path(sysconfig.get_path("stdlib"))),
    ]
    return [tree for tree in candidates if tree[2].is_dir()]


def regular_files(top: Path) -> Iterator[tuple[Path, int]]:
    """Readable regular files below `top` in a fixed order, with their sizes, up to the limits."""
    files = total = 0
    for directory, subdirectories, names in os.walk(top):
        subdirectories[:] = sorted(set(subdirectories) - {"__pycache__", "site-packages", "dist-packages"})
        for name in sorted(names):
            path = Path(directory, name)
            try:
                if path.is_symlink() or not path.is_file() or not os.access(path, os.R_OK):
                    continue
                str(path.relative_to(top)).encode("utf-8")
                size = path.stat().st_size
            except (OSError, UnicodeEncodeError):
                continue
            if files + 1 > MOST_FILES or total + size > MOST_BYTES:
                return
            files, total = files + 1, total + size
            yield path, size


class Progress:
    """One line that is rewritten on a terminal; elsewhere a line every ten seconds."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._live = sys.stdout.isatty()
        self._told = time.monotonic()

    def show(self, text: str) -> None:
        """Say how far it is, not more often than a person can read."""
        now = time.monotonic()
        if now - self._told >= (0.2 if self._live else 10.0):
            self._told = now
            print(
                f"\r    {self._title}: {text:<40}" if self._live else f"    {self._title}: {text}",
                end="" if self._live else "\n",
                flush=True,
            )

    def done(self, text: str) -> None:
        """The last line."""
        print(f"{chr(13) if self._live else ''}    {self._title}: {text:<40}".rstrip(), flush=True)


def upload(api: Any, project: str, tree: Tree) -> None:
    """Write a tree into a new collection of the project."""
    import arvados.collection

    name, description, top = tree
    progress = Progress(name)
    collection = arvados.collection.Collection(api_client=api)
    files = total = 0
    for path, size in regular_files(top):
        target = collection.open(str(path.relative_to(top)), "wb")
        with path.open("rb") as source:
            while chunk := source.read(CHUNK):
                target.write(chunk)
        target.close(flush=False)  # so that small files share a block
        files, total = files + 1, total + size
        progress.show(f"{files} files, {total / 1e6:.0f} MB")
    progress.show("saving")
    collection.save_new(name=name, owner_uuid=project)
    uuid = collection.manifest_locator()
    api.collections().update(uuid=uuid, body={"collection": {"description": description}}).execute()
    progress.done(f"{files} files, {total / 1e6:.0f} MB")


def project_uuid(api: Any, home: str) -> str:
    """The demo project in the user's home, made when it is missing."""
    filters = [["owner_uuid", "=", home], ["name", "=", PROJECT], ["group_class", "=", "project"]]
    found = api.groups().list(filters=filters, limit=1).execute()["items"]
    if not found:
        body = {
            "group": {
                "name": PROJECT,
                "group_class": "project",
                "owner_uuid": home,
                "description": PROJECT_DESCRIPTION,
            }
        }
        found = [api.groups().create(body=body).execute()]
    return str(found[0]["uuid"])


def fill() -> None:
    """Put in what is missing, with the Arvados that the environment names."""
    import arvados

    api = arvados.api("v1")
    project = project_uuid(api, api.users().current().execute()["uuid"])
    filters = [["owner_uuid", "=", project]]
    listed = api.collections().list(filters=filters, select=["name"], limit=100).execute()["items"]
    have = {item["name"] for item in listed}
    if "genomics" not in have:
        with tempfile.TemporaryDirectory() as directory:
            Progress("genomics").done("making reference, reads and variants")
            genomics.make(Path(directory))
            description = "A made-up genome, reads of one individual with their index, and its variants."
            upload(api, project, ("genomics", description, Path(directory)))
    for tree in trees():
        if tree[0] not in have:
            upload(api, project, tree)


def main() -> int:
    """Start the server, fill it; the exit code."""
    try:
        local = ensure_running(Path(sys.argv[1]))
    except ArvadosFuseError as error:
        print(error, file=sys.stderr)
        return 1
    for name in [name for name in os.environ if name.startswith("ARVADOS_")]:
        del os.environ[name]
    os.environ.update(local.environment())
    fill()
    return 0


if __name__ == "__main__":
    sys.exit(main())
