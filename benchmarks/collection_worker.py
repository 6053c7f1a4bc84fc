"""One measurement of one collection model in a process of its own: seconds and bytes, as JSON.

Run by `benchmarks.collection`, which pairs the models:
`python -m benchmarks.collection_worker ours|sdk MANIFEST DIRECTORY`.
"""

import ctypes
import functools
import gc
import hashlib
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def resident() -> int:
    """Bytes of this process in memory, after giving freed memory back to the system."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds that `work` took, and what it gave."""
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


class NoKeep:
    """Keep for the SDK where no block is ever read or written; it looks only at this number."""

    num_prefetch_threads = 0


def digest(text: str) -> str:
    """What to compare two long texts by."""
    return hashlib.sha256(text.encode()).hexdigest()


def load(model: str, text: str) -> Any:
    """A collection of the model under test."""
    if model == "ours":
        from arvados_fuse.collection import Collection

        return Collection.from_manifest(text)
    import arvados.collection

    # No server stands behind these measurements: the SDK asks one for the replication unless told.
    return arvados.collection.Collection(text, keep_client=NoKeep(), replication_desired=2, num_retries=0)


def walk(model: str, collection: Any) -> int:
    """Visit every file and ask its size; how many there were."""
    if model == "ours":
        from arvados_fuse.collection import Directory

        count, waiting = 0, [collection.root]
        while waiting:
            for _name, node in waiting.pop().entries():
                if isinstance(node, Directory):
                    waiting.append(node)
                else:
                    node.size()
                    count += 1
        return count
    import arvados.collection

    count, waiting = 0, [collection]
    while waiting:
        for _name, node in waiting.pop().items():
            if isinstance(node, arvados.collection.Subcollection):
                waiting.append(node)
            else:
                node.size()
                count += 1
    return count


def place(collection: Any, directory: str) -> Any:
    """The directory that is listed."""
    return collection if directory == "." else collection.find(directory)


def listed(collection: Any, directory: str) -> list[str]:
    """The names in it, with their sizes looked up, the way `ls -l` wants them."""
    return [name for name, file in place(collection, directory).items() if file.size() >= 0]


def main(model: str, manifest: str, directory: str) -> None:
    """Measure and print."""
    load(model, ". d41d8cd98f00b204e9800998ecf8427e+0 0:0:empty\n")  # imports are not what is measured
    before = resident()
    text = Path(manifest).read_text(encoding="utf-8")
    figures: dict[str, float] = {}
    figures["load"], collection = timed(functools.partial(load, model, text))
    del text
    figures["memory_loaded"] = resident() - before
    names_only = timed(lambda: list(place(collection, directory).keys()))[0]
    figures["first_names"] = figures["load"] + names_only
    listing, names = timed(lambda: listed(collection, directory))
    figures["first_listing"] = figures["first_names"] + listing
    victim = names[0] if directory == "." else f"{directory}/{names[0]}"
    del names  # they would be counted as memory of the model
    figures["pdh"], pdh = timed(collection.portable_data_hash)
    if model == "ours":
        collection.drop_parsed()  # what was listed above: the walk is to read everything itself
    figures["walk"], files = timed(lambda: walk(model, collection))
    figures["walk"] += figures["load"]
    figures["memory_walked"] = resident() - before

    def change() -> str:
        collection.rename(victim, victim + ".renamed")
        changed: str = collection.manifest_text()
        return changed

    figures["change_and_serialise"], changed_text = timed(change)
    # As saved, the two may differ in the order of untouched lines; normalized they must not.
    normalized = load(model, changed_text).manifest_text(strip=True, normalize=True)
    answer = {"files": files, "pdh_value": pdh, "changed": digest(normalized), "figures": figures}
    print(json.dumps(answer))


if __name__ == "__main__":
    main(*sys.argv[1:4])
