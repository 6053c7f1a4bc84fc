"""The command arv-mount: from arguments to a mount, and from every failure to one sentence and an exit code.

`bin/arv-mount` calls `main()`. Nothing heavy is imported and no thread started before the process that will
hold the mount exists (see `background.py`); `--help`, `--unmount` and wrong options need no Arvados at all.
"""

import contextlib
import functools
import logging
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import NoReturn

from arvados_fuse.cli import background, claim, contact, execute, heap, limits, logs, memory, preflight
from arvados_fuse.cli.command import Command, UsageError, parse
from arvados_fuse.cli.settings import settings_of
from arvados_fuse.errors import ArvadosFuseError
from arvados_fuse.fuse.ending import Ending
from arvados_fuse.fuse.unmount import mounts_at
from arvados_fuse.options import MountOptions
from arvados_fuse.version import __version__

FAILED = 1
INTERRUPTED = 130
"""What shells answer for a program that SIGINT ended."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what `arguments` (default: the process's own) ask for; the exit code."""
    logs.open_missing_streams()
    # A parent that ignores it passes that on, and then the kernel tells nobody how our children end.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    if not sys.warnoptions:
        # What libraries say about the version of Python is not for who mounts.
        warnings.simplefilter("ignore")
    try:
        command = parse(sys.argv[1:] if arguments is None else arguments, program=sys.argv[0])
    except UsageError as error:
        print(error, file=sys.stderr)
        return FAILED
    with _terminated_means_exit():
        return _guarded(lambda: _run(command), command.options)


def _run(command: Command) -> int:
    options = command.options
    logs.configure(options.logfile, options.debug)
    if command.action in ("unmount", "unmount_all"):
        saved = _save_first(command)
        _unmount(command)
        return 0 if saved else FAILED
    if command.asked.what:
        return _show(command)
    if command.warming is not None:
        from arvados_fuse.cli import warm

        return warm.run(command.warming)
    if command.action == "recover":
        from arvados_fuse.cli import recover

        return recover.run(options, throw_away=command.discard)
    if command.action == "replace":
        _save_first(command)  # what is left is told; how this ends is told by the new mount
        _unmount(command)
    serve = functools.partial(_serve_guarded, options)
    if options.exec_args:
        return _execute(command, serve)
    if options.foreground:
        return serve(lambda: None)
    background.launch(
        serve,
        leave_terminal=lambda: logs.detach_standard_streams(options.logfile),
        follow_parent=False,
    )
    return 0


def _show(command: Command) -> int:
    from arvados_fuse.cli import live

    if command.asked.what == "top":
        from arvados_fuse.cli import top  # only now: it loads rich

        top.run(live.mount_of(command.options.mount_dir))
        return 0
    from arvados_fuse.cli import showing

    print(showing.status(live.mount_of(command.options.mount_dir), as_json=command.asked.as_json))
    return 0


def _execute(command: Command, serve: background.Serve) -> int:
    process = background.launch(serve, leave_terminal=lambda: None, follow_parent=True)
    try:
        code = execute.run(command.options.exec_args)
    finally:
        ended = execute.end_mount(
            process,
            lambda: _unmount(command),
            lambda: bool(mounts_at(command.options.mount_dir)),
            command.unmount_timeout,
            lambda: _recover_command(command.options),
        )
    # The command's word counts, but a mount that could not end well must not look like success.
    return code or ended


def _recover_command(options: MountOptions) -> str:
    from arvados_fuse.cli import alive, saving  # only now: it loads much

    return alive.recover_command(saving.directory(options)) if options.read_write else ""


def _serve_guarded(options: MountOptions, ready: Callable[[], None]) -> int:
    return _guarded(lambda: _serve(options, ready), options)


def _serve(options: MountOptions, ready: Callable[[], None]) -> int:
    """Check, build, mount, answer requests until unmounted, take down. The order is the point of it."""
    heap.settle()
    claimed = claim.claim(options.mount_dir)
    options = memory.fitted(preflight.check(options), memory.limit())
    settings = settings_of(options)
    contact.check(settings)
    from arvados_fuse.cli.build import build

    logger = logs.configure(options.logfile, options.debug, secrets=logs.secrets_of(settings.token))
    limits.raise_open_files(options.file_cache)
    with Ending() as ending:  # before the first thread
        with contact.explain(settings), logs.one_sentence():
            session = build(options, settings)
        try:
            ending.hold()  # a mount that is half made could be left behind
            session.mount()
            claimed.release()
            session.start()
            heap.keep_loaded()
            ready()
            session.inside.ready()
            logger.debug("arv-mount %s: %s is mounted at %s", __version__, settings.host, options.mount_dir)
            ending.run(session.run)
        finally:
            saved = session.close()
    logger.debug("%s is unmounted", options.mount_dir)
    return 0 if saved else FAILED


def _save_first(command: Command) -> bool:
    from arvados_fuse.cli.unsaved import save_first

    return save_first(
        command.options.mount_dir,
        subtype=command.options.subtype or None,
        recursive=command.action == "unmount_all",
        patience=command.unmount_timeout,
    )


def _unmount(command: Command) -> None:
    from arvados_fuse.fuse.unmount import unmount

    unmount(
        command.options.mount_dir,
        subtype=command.options.subtype or None,
        recursive=command.action == "unmount_all",
        timeout=command.unmount_timeout,
    )


def _guarded(work: Callable[[], int], options: MountOptions) -> int:
    """Every failure becomes one line on standard error (and in the log file); --debug adds the traceback."""
    try:
        return work()
    except background.NotReady as failure:
        return failure.code  # the child has said why
    except KeyboardInterrupt:
        return INTERRUPTED
    except ArvadosFuseError as error:
        return _failed(error, str(error), options)
    except Exception as error:  # noqa: BLE001 - the outer edge of the process
        where = "" if options.debug else " (--debug shows where)"
        return _failed(error, f"unexpected failure: {type(error).__name__}: {error}{where}", options)


def _failed(error: Exception, sentence: str, options: MountOptions) -> int:
    logger = logging.getLogger(logs.COMMAND)
    if options.debug:
        logger.error("%s", sentence, exc_info=error)
    elif logs.goes_to_file():
        logger.error("%s", sentence)
    return _complain(sentence)


def _complain(sentence: str) -> int:
    with contextlib.suppress(OSError):  # standard error may be closed
        print(f"arv-mount: {sentence}", file=sys.stderr)
    return FAILED


@contextlib.contextmanager
def _terminated_means_exit() -> Iterator[None]:
    """SIGTERM unwinds the stack like an exit, so that a half-made mount is taken down."""

    def leave(number: int, _frame: FrameType | None) -> NoReturn:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


if __name__ == "__main__":
    sys.exit(main())
