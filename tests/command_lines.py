"""Command lines that stock arv-mount and ours are both given, and what can be compared of the answers.

Used by tests/mount/test_command_stock.py. `$MNT`, `$HOME`, ... in arguments stand for places of one run.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple


@dataclass(frozen=True)
class Line:
    """One command line.

    before: what is done first to the place where it runs, one of `file`, `full`, `missing`, `mounted`.
    after: looked at when it has ended, before the mount is taken away: `listing` or `type` of the
    mount point.
    """

    name: str
    arguments: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    before: str = ""
    after: str = ""
    signal: str = ""
    """Sent to the command after it has printed a line."""


class Kind(NamedTuple):
    """What is the same for two answers of one kind.

    out: standard output as it is, or `help`. err: `nothing`, `usage`, `one line`, `log`, `more lines`,
    `traceback`.
    after: what `Line.after` asked for.
    """

    code: int
    out: str
    err: str
    after: str = ""


NOISE = re.compile(r"^fuse_\w+\(\): fuse_reply_\* failed with .*\n", re.MULTILINE)
"""What libfuse says, in either program, when the kernel has hung up before the answer to a `close` came."""
LOGGED = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d arvados\S*\[\d+\] [A-Z]+: ")


def kind_of_output(text: str) -> str:
    """What sort of text a command wrote to standard error."""
    text = NOISE.sub("", text)
    if not text.strip():
        return "nothing"
    if text.startswith("usage: "):
        return "usage"
    if "Traceback (most recent call last)" in text:
        return "traceback"
    if LOGGED.match(text):
        return "log"
    return "one line" if text.count("\n") == 1 else "more lines"


@dataclass(frozen=True)
class Difference:
    """Command lines that stock arv-mount and ours answer differently: each answer as `shown`, and why."""

    names: Sequence[str]
    stock: str
    ours: str
    reason: str


def shown(kind: Kind) -> str:
    """An answer in words, as the table in docs/compatibility.md has it."""
    words = [f"exit {kind.code}"]
    if kind.out:
        words.append(f"`{' '.join(kind.out.split())}`")
    if kind.err != "nothing":
        words.append(kind.err)
    if kind.after:
        words.append(f"afterwards `{kind.after}`")
    return ", ".join(words)


NO_SERVER = {"ARVADOS_API_HOST": "", "ARVADOS_API_TOKEN": ""}
LIST = ("$MNT", "--exec", "ls", "$MNT")

TMP = ("--read-write", "--mount-tmp", "tmp0")

LINES = (
    # What the parser says
    Line("help", ["--help"]),
    Line("help, short", ["-h"]),
    Line("version", ["--version"]),
    Line("no arguments", []),
    Line("unknown option", ["--bogus", "$MNT"]),
    Line("one argument too many", ["$MNT", "extra"]),
    Line("two modes", ["--all", "--home", "$MNT"]),
    Line("two actions", ["--unmount", "--replace", "$MNT"]),
    Line("two caches", ["--disk-cache", "--ram-cache", "$MNT"]),
    Line("an option without its value", ["$MNT", "--project"]),
    Line("retries that are no number", ["--retries=x", "$MNT"]),
    Line("cache size that is no number", ["--file-cache=x", "$MNT"]),
    Line("refresh time that is no number", ["--refresh-time=x", "$MNT"]),
    Line("statistics interval that is no number", ["--crunchstat-interval=x", "$MNT"]),
    Line("unmount timeout that is no number", ["--unmount-timeout=x", "$MNT"]),
    Line("filters that are no JSON", ["--filters", "[", *LIST]),
    Line("filters that are no filters", ["--filters", '["a"]', *LIST]),
    Line("filters in a file that is missing", ["--filters", "/no/such/file", *LIST]),
    Line("an encoding that does not exist", ["--encoding", "klingon", *LIST]),
    Line("a mode and a layout", ["--by-id", "--mount-home", "h", "$MNT"]),
    Line("a layout name with a slash", ["--mount-home", "a/b", "$MNT"]),
    Line("a layout name of one dot", ["--mount-home", ".", "$MNT"]),
    Line("an empty layout name", ["--mount-home", "", "$MNT"]),
    # What can't be set up
    Line("no token", [*LIST], {"ARVADOS_API_TOKEN": ""}),
    Line("no host and no token", [*LIST], NO_SERVER),
    Line("a host that does not exist", ["--retries=0", *LIST], {"ARVADOS_API_HOST": "no-such-host.invalid"}),
    Line("a host where nothing listens", ["--retries=0", *LIST], {"ARVADOS_API_HOST": "127.0.0.1:1"}),
    Line("a token that is not valid", [*LIST], {"ARVADOS_API_TOKEN": "$WRONG_TOKEN"}),
    Line("a certificate that is not trusted", ["--retries=0", *LIST], {"SSL_CERT_FILE": ""}),
    Line("a collection that does not exist", ["--collection", "zzzzz-4zz18-000000000000000", *LIST]),
    Line("a hash that does not exist", ["--collection", "0123456789abcdef0123456789abcdef+99", *LIST]),
    Line("a collection id that is none", ["--collection", "nonsense", *LIST]),
    Line("a project that does not exist", ["--project", "zzzzz-j7d0g-000000000000000", *LIST]),
    Line("a mount point that is missing", [*LIST], before="missing"),
    Line("a mount point that is a file", [*LIST], before="file"),
    Line("a mount point with files in it", [*LIST], before="full"),
    Line("a mount point that is busy", ["--by-id", "$MNT"], before="mounted", after="listing"),
    Line("a log file that can't be made", ["--logfile", "/no/such/log", *LIST]),
    Line("a cache directory that can't be made", ["--disk-cache-dir", "/proc/cache", *LIST]),
    # --exec
    Line("exec: success", ["$MNT", "--exec", "true"]),
    Line("exec: its exit code", ["$MNT", "--exec", "sh", "-c", "exit 7"]),
    Line("exec: where it runs", ["$MNT", "--exec", "pwd"]),
    Line("exec: killed", ["$MNT", "--exec", "sh", "-c", "kill -KILL $$$$"]),
    Line("exec: missing command", ["$MNT", "--exec", "/no/such/command"]),
    Line("exec: not executable", ["$MNT", "--exec", "/etc/passwd"]),
    Line("exec: two dashes", ["--home", "--exec", "ls", "$MNT", "--", "$MNT"]),
    *(
        Line(
            f"exec: {name} is passed on",
            ["$MNT", "--exec", "sh", "-c", f"trap 'exit 5' {name}; echo ready; while :; do sleep 0.05; done"],
            signal=name,
        )
        for name in ("INT", "TERM", "QUIT")
    ),
    # Unmounting
    Line("unmount: nothing there", ["--unmount", "$MNT"]),
    Line("unmount: no such directory", ["--unmount", "/no/such/place"]),
    Line("unmount: all, nothing there", ["--unmount-all", "$HOME"]),
    Line("unmount: a mount", ["--unmount", "$MNT"], before="mounted", after="type"),
    Line("unmount: all", ["--unmount-all", "$PARENT"], before="mounted", after="type"),
    Line("unmount: another subtype", ["--unmount", "--subtype=x", "$MNT"], before="mounted", after="type"),
    Line("unmount: nothing there, no token", ["--unmount", "$MNT"], NO_SERVER),
    Line("unmount: a mount, no token", ["--unmount", "$MNT"], NO_SERVER, before="mounted", after="type"),
    Line("replace: nothing there", ["--replace", "--by-id", "$MNT"], after="listing"),
    Line("replace: a mount", ["--replace", "--by-id", "$MNT"], before="mounted", after="listing"),
    # What is shown
    Line("in the background", ["--home", "$MNT"], after="listing"),
    Line("the type of the mount", ["--subtype=arv", "--allow-other", "$MNT"], after="type"),
    Line("layout: all", [*LIST]),
    Line("layout: home", ["--home", *LIST]),
    Line("layout: by-id", ["--by-id", *LIST]),
    Line("layout: by-pdh", ["--by-pdh", *LIST]),
    Line("layout: by-tag", ["--by-tag", *LIST]),
    Line("layout: shared", ["--shared", *LIST]),
    Line("layout: project", ["--project", "$PROJECT", *LIST]),
    Line("layout: collection", ["--collection", "$COLLECTION", *LIST]),
    Line("layout: custom without anything", ["--custom", *LIST]),
    Line(
        "layout: as for a container",
        ["--mount-by-pdh", "by_id", "--mount-by-id", "by_uuid", "--disable-event-listening", *LIST],
    ),
    Line(
        "layout: one name twice",
        ["--mount-home", "x", "--mount-by-id", "x", "$MNT", "--exec", "ls", "$MNT/x"],
    ),
    Line("filters", ["--home", "--filters", '[["collections.name", "like", "o%"]]', *LIST]),
    Line("a refresh time of zero", ["--home", "--refresh-time=0", *LIST]),
    Line("another encoding", ["--home", "--encoding=latin-1", *LIST]),
    Line("storage classes with blanks", ["--home", "--storage-classes", " default , archival ", *LIST]),
    Line("an option cut short", ["--home", "--refresh=3", *LIST]),
    Line("memory cache", ["--home", "--ram-cache", "--file-cache=1", *LIST]),
    Line("read-only", ["--home", "--read-write", "--read-only", "$MNT", "--exec", "touch", "$MNT/one/x"]),
    Line("a file's content", ["--home", "$MNT", "--exec", "cat", "$MNT/one/hello"]),
    # Writing, where two at once don't meet
    *(
        Line(f"tmp: {name}", [*TMP, "$MNT", "--exec", "sh", "-ec", f"cd $MNT/tmp0; {script}"])
        for name, script in (
            ("a file", "echo x > f; cat f; ls"),
            ("a directory", "mkdir -p a/b; touch a/b/c; find . | sort; rm -r a; ls"),
            ("modes and times", "touch f; chmod 600 f; touch -d @1 f; echo done"),
            ("a symbolic link", "ln -s a b"),
            ("a hard link", "touch a; ln a b"),
            ("a directory that is not empty", "mkdir a; touch a/b; rmdir a"),
            ("rename over a file", "echo 1 > a; echo 2 > b; mv a b; cat b"),
            ("the record", "ls -a | grep arvados || cat '.arvados#collection' | grep -c null"),
        )
    ),
    Line("tmp: on a read-only mount", ["--mount-tmp", "tmp0", "$MNT", "--exec", "touch", "$MNT/tmp0/f"]),
    Line("tmp: not at its root", [*TMP, "$MNT", "--exec", "mkdir", "$MNT/other"]),
    Line(
        "the older name of read-write", ["--enable-write", *TMP[1:], "$MNT", "--exec", "touch", "$MNT/tmp0/f"]
    ),
)

SENTENCE = "a set-up error is one sentence with the next step; --debug adds the traceback"
SHELL = "the codes that shells have for this, so that scripts need not know who started the command"

DIFFERENCES = (
    Difference(
        [
            "no token",
            "no host and no token",
            "a host that does not exist",
            "a host where nothing listens",
            "a token that is not valid",
            "a certificate that is not trusted",
            "a collection that does not exist",
            "a hash that does not exist",
            "a collection id that is none",
            "a project that does not exist",
            "a mount point that is missing",
            "a mount point with files in it",
            "a log file that can't be made",
            "a cache directory that can't be made",
        ],
        "exit 1, traceback",
        "exit 1, one line",
        SENTENCE,
    ),
    Difference(
        ["a mount point that is busy"],
        "exit 1, traceback, afterwards `README by_id by_tag home shared`",
        "exit 1, one line, afterwards `README by_id by_tag home shared`",
        SENTENCE,
    ),
    Difference(
        ["a mount point that is a file"],
        "exit 2, one line",
        "exit 1, one line",
        "3.2.1 mounts there, and every use of it fails; ours refuses before the command is run",
    ),
    Difference(
        ["an encoding that does not exist"],
        "exit 2, traceback",
        "exit 2, usage",
        "3.2.1 fails when a directory is first listed (the 2 is that of ls); ours checks the name",
    ),
    Difference(["exec: killed"], "exit 247", "exit 137", SHELL),
    Difference(["exec: missing command"], "exit 2, traceback", "exit 127, log", SHELL),
    Difference(["exec: not executable"], "exit 13, traceback", "exit 126, log", SHELL),
    Difference(
        ["unmount: nothing there, no token"],
        "exit 1, traceback",
        "exit 0",
        "unmounting needs no Arvados",
    ),
    Difference(
        ["unmount: a mount, no token"],
        "exit 1, traceback, afterwards `fuse`",
        "exit 0",
        "unmounting needs no Arvados",
    ),
    Difference(
        ["layout: one name twice"],
        "exit 0, `one project two`",
        "exit 0, `README`",
        "3.2.1 has a fixed order of kinds; with ours the last on the command line wins",
    ),
    Difference(
        ["the older name of read-write"],
        "exit 2, usage",
        "exit 0",
        "scripts of before 3.2 say --enable-write",
    ),
)
