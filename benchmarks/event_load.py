"""The programs that change things through the API and wait until a mount shows it; see `benchmarks.load`."""

import functools
import http.client
import json
import os
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from arvados_fuse.local.control import find_running
from benchmarks.run_clock import Run, Wrong

Figures = dict[str, Any]

POLL = 0.005
"""Seconds between two looks."""
PAUSE = 0.1
"""Seconds before each change: it shall find the mount at rest."""
EMPTY = "d41d8cd98f00b204e9800998ecf8427e+0"
"""The locator of no bytes, which needs no signature."""


class Api:
    """One connection to the embedded Arvados whose data is in `server`."""

    def __init__(self, server: str) -> None:
        settings = find_running(Path(server))
        if settings is None:
            raise Wrong("the embedded Arvados is not running")
        self._token = settings.token
        context = ssl.create_default_context(cafile=str(settings.ca_file))
        self._connection = http.client.HTTPSConnection(settings.host, timeout=60, context=context)

    def collection(self, verb: str, uuid: str = "", **fields: str) -> str:
        """Make (POST) or change (PUT) a collection; its uuid. Raises Wrong."""
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"}
        path = f"/arvados/v1/collections/{uuid}".rstrip("/")
        self._connection.request(verb, path, json.dumps({"collection": fields}), headers)
        response = self._connection.getresponse()
        answer = response.read()
        if response.status != 200:
            raise Wrong(f"the embedded Arvados refused a collection: {answer.decode(errors='replace')}")
        return str(json.loads(answer)["uuid"])


def manifest(files: int) -> str:
    """A collection of so many empty files."""
    return f". {EMPTY} {' '.join(f'0:0:f{number:04d}' for number in range(files))}\n"


def latency(pid: int, server: str, project: str, path: str, count: int, patience: float) -> Figures:
    """Changes of three kinds, one after another: how long after the API's answer a listing shows each.

    path: of the project in the mount. `made`, `added`, `renamed`: seconds, one figure for each change; a kind
    ends with the first change that is not seen for `patience` seconds.
    """
    api, seen = Api(server), _Seen(patience)
    os.listdir(path)
    run, uuid = Run(pid), ""
    make = functools.partial(api.collection, "POST", owner_uuid=project, manifest_text=manifest(1))
    for number in range(count):
        name = f"made {number:03d}"
        uuid = seen.after("made", path, name, functools.partial(make, name=name))
    change, last = functools.partial(api.collection, "PUT", uuid), f"{path}/made {count - 1:03d}"
    os.listdir(last)
    for number in range(1, count + 1):
        text = manifest(number + 1)
        seen.after("added", last, f"f{number:04d}", functools.partial(change, manifest_text=text))
    for number in range(count):
        name = f"renamed {number:03d}"
        seen.after("renamed", path, name, functools.partial(change, name=name))
    return run.done(count, **seen.seconds)


class _Seen:
    """Seconds from a change until it was seen, by kind."""

    def __init__(self, patience: float) -> None:
        self.seconds: dict[str, list[float]] = {}
        self._patience = patience

    def after(self, kind: str, directory: str, name: str, change: Callable[[], str]) -> str:
        """Make a change and wait until `name` is listed; what the change gave."""
        found = self.seconds.setdefault(kind, [])
        given_up = bool(found) and found[-1] >= self._patience
        time.sleep(PAUSE)
        result = change()
        if not given_up:
            found.append(until_listed(directory, name, self._patience))
        return result


def until_listed(directory: str, name: str, patience: float) -> float:
    """Seconds until a listing has the name, at most about `patience`."""
    start = time.monotonic()
    while name not in os.listdir(directory) and time.monotonic() - start < patience:
        time.sleep(POLL)
    return time.monotonic() - start


def many_changes(pid: int, server: str, project: str, path: str, count: int) -> Figures:
    """So many collections made as fast as the API takes them, until a listing has the last one."""
    api = Api(server)
    os.listdir(path)
    run = Run(pid)
    for number in range(count):
        api.collection("POST", owner_uuid=project, name=f"made {number:05d}", manifest_text=manifest(1))
        run.at(number)
    if until_listed(path, f"made {count - 1:05d}", 60.0) >= 60.0:
        raise Wrong("a change was not seen in a minute")
    if len(os.listdir(path)) != count:
        raise Wrong("not all changes are listed")
    return run.done(count)
