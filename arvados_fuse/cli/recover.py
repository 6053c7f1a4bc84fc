"""`arv-mount --recover [--discard]`: what mounts that died could not save any more.

Used by `main.py`. Listing needs no server. Saving is done by the same write-back as that of a mount, and by
the next `--read-write` mount with the same cache by itself; this is for who wants to see it done, or undone.
"""

import contextlib
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from arvados_fuse.cli import contact, logs, saving
from arvados_fuse.cli.alive import alive, recover_command, sentence
from arvados_fuse.cli.settings import settings_of
from arvados_fuse.cli.showing import changed_paths
from arvados_fuse.errors import ArvadosFuseError, SetupError
from arvados_fuse.options import MountOptions
from arvados_fuse.writeback import Leftover, discard, list_pending

DEADLINE = 3600.0
"""Seconds that saving may take: it may be much, over a slow line."""


def run(options: MountOptions, *, throw_away: bool) -> int:
    """List what is there, then save it (or discard it); the exit code: 1 when something is left."""
    directory = saving.directory(options)
    # In this order: who ends in between is found as dead.
    living, found = alive(directory), list_pending(directory)
    for leftover in found:
        _tell(_line(leftover))
    if not found and not living:
        _tell(f"Nothing is unsaved in {directory}.")
        return 0
    if not found:
        _tell(f"No mount that died left anything in {directory}.")
    for one in living:
        _tell(sentence(one))
    code = 0
    if found and throw_away:
        for leftover in found:
            discard(leftover)
        _tell("Discarded.")
    elif found:
        code = _save(options, directory)
    return 1 if living else code


def _save(options: MountOptions, directory: Path) -> int:
    from arvados_fuse.cli.build import Saving

    settings = settings_of(options)
    contact.check(settings)
    logs.configure(options.logfile, options.debug, secrets=logs.secrets_of(settings.token))
    with contextlib.ExitStack() as stack:
        with contact.explain(settings), logs.one_sentence():
            writeback = stack.enter_context(Saving(options, settings))
            adoption = writeback.adopt()
            if not adoption.adopted:
                raise SetupError(_not_ours(adoption.foreign, settings.host, directory))
        try:
            writeback.save(None, deadline=DEADLINE)
        except ArvadosFuseError as error:
            _tell(f"Not all could be saved: {error}")
            _tell(f"What is left stays in {directory}; once the reason is gone: {recover_command(directory)}")
            return 1
    _tell("Saved.")
    return 1 if adoption.foreign else 0


def _not_ours(foreign: Sequence[Leftover], host: str, directory: Path) -> str:
    """Whose settings are needed."""
    owners = sorted({_owner(one) for one in foreign if one.owner.user_uuid})
    command = recover_command(directory)
    if not owners:
        return f"nothing of it can be saved, for the reason above; it stays in {directory}"
    return (
        f"nothing of it belongs to the user of your settings at {host}; save it with ARVADOS_API_HOST and "
        f"ARVADOS_API_TOKEN of {' and '.join(owners)}, or throw it away with: {command} --discard"
    )


def _owner(leftover: Leftover) -> str:
    return f"{leftover.owner.user_uuid} at {leftover.owner.host}"


def _line(leftover: Leftover) -> str:
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(leftover.since))
    problem = f" ({leftover.problem})" if leftover.problem else ""
    what = changed_paths(leftover.paths)
    return (
        f"{leftover.path}: {what}, {leftover.bytes} bytes of files, of {_owner(leftover)}, "
        f"mounted {when}{problem}"
    )


def _tell(line: str) -> None:
    print(line, file=sys.stderr)
