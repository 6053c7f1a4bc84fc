#!/usr/bin/env python3
"""Write what is made from the options of arv-mount: the manual page, completion for shells, docs/options.md.

usage: .venv/bin/python scripts/documents.py [--check]

With --check nothing is written; the exit code is 1 when a file is not up to date.
"""

import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from arvados_fuse.cli import parser as words  # noqa: E402 - found by the line above
from arvados_fuse.cli.described import Option, options  # noqa: E402

MADE = "Made by scripts/documents.py from the options in arvados_fuse/cli: change those, then run it."
DIRECTORIES, FILES = ("DIR",), ("FILE", "PATH", "JSON")
ENVIRONMENT = {
    "ARVADOS_API_HOST": "host name of the API server, with `:port` where it is not 443",
    "ARVADOS_API_TOKEN": "the token; never shown in messages",
    "ARVADOS_API_HOST_INSECURE": "`1`: do not check the API server's certificate",
    "ARVADOS_KEEP_SERVICES": "URLs of Keep services to use instead of those that the API server names",
    "SSL_CERT_FILE": "authorities to trust instead of the machine's",
    "XDG_CACHE_HOME, CACHE_DIRECTORY": "where the block cache is, in `arvados/keep` or `keep` below",
    "CONFIGURATION_DIRECTORY, XDG_CONFIG_HOME, XDG_CONFIG_DIRS": "where `settings.conf` is (the first: a "
    "service manager's directory), or `arvados/settings.conf` (the user's, by default `~/.config`, and then "
    "the machine's, by default `/etc/xdg`); the first that can be read counts",
    "ARVADOS_MOUNT_SETTINGS": "a file with lines `NAME=value`, which come before all others; read again "
    "when the token is refused",
}
EXIT_CODES = {
    "0": "done; with `--unmount` also when nothing was mounted",
    "1": "it could not be done; one sentence on standard error says why and what to do. Also when something "
    "that was written could not be saved",
    "2": "wrong options",
    "129, 130, 143": "SIGHUP (the terminal is closed), SIGINT (Ctrl-C) or SIGTERM ended it before the mount "
    "was there, or while it did something else than mount",
    "126, 127": "the command of `--exec` can't be run, or was not found",
    "128 + N": "signal N ended the command of `--exec`",
    "other": "what the command of `--exec` gave",
}


def visible() -> list[Option]:
    """Options that are in the help text."""
    return [option for option in options() if not option.hidden]


def grouped() -> Iterable[tuple[str, list[Option]]]:
    """Options by the heading in the help text, in its order."""
    found: dict[str, list[Option]] = {}
    for option in visible():
        found.setdefault(option.group, []).append(option)
    return found.items()


def usage_value(option: Option) -> str:
    """What follows the option's name, as in `[DIR]` or `PATH...`."""
    value = f"{option.value}..." if option.many else option.value
    return f"[{value}]" if option.optional else value


# The manual page (man(7))


def roff(text: str) -> str:
    """Text as a line of roff: `code` bold, dashes as they are typed."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    text = re.sub(r"`([^`]*)`", r"\\fB\1\\fR", text)
    return "\\&" + text if text.startswith((".", "'")) else text


def manual() -> str:
    """docs/arv-mount.1."""
    lines = [
        f'.\\" {MADE}',
        '.TH ARV\\-MOUNT 1 "" "arvados_fuse" "User commands"',
        ".SH NAME",
        "arv\\-mount \\- Arvados collections and projects as a directory tree",
        ".SH SYNOPSIS",
    ]
    for number, line in enumerate(words.USAGE.splitlines()):
        lines += [
            *([".br"] if number else []),
            roff(line.strip()).replace("arv\\-mount", "\\fBarv\\-mount\\fR"),
        ]
    lines += [".SH DESCRIPTION"]
    lines += [
        roff(
            "`arv-mount` shows the collections and projects of an Arvados cluster at MOUNT_DIR, an empty "
            "directory, until it is unmounted. It goes into the background when the mount is up; what can't "
            "be set up is told before. Options may be shortened as long as they are clear."
        ),
        ".SH OPTIONS",
    ]
    for group, members in grouped():
        lines.append(f'.SS "{roff(group)}"')
        for option in members:
            names = ", ".join(f"\\fB{roff(name)}\\fR" for name in option.names)
            value = usage_value(option)
            lines += [".TP", f"{names} \\fI{roff(value)}\\fR" if value else names, roff(option.help)]
    lines += [".SH EXIT STATUS"]
    for code, meaning in EXIT_CODES.items():
        lines += [".TP", f"\\fB{code}\\fR", roff(meaning)]
    lines += [".SH ENVIRONMENT"]
    for name, meaning in ENVIRONMENT.items():
        lines += [".TP", f"\\fB{roff(name)}\\fR", roff(meaning)]
    lines += [".SH FILES"]
    for name, meaning in (
        ("~/.config/arvados/settings.conf", "ARVADOS_API_HOST=... and ARVADOS_API_TOKEN=..., one in a line"),
        ("~/.cache/arvados/keep", "blocks that were read; what is not saved yet is in a directory below"),
        ("/etc/fuse.conf", "needs the line `user_allow_other` before an ordinary user may say --allow-other"),
    ):
        lines += [".TP", f"\\fI{roff(name)}\\fR", roff(meaning)]
    lines += [".SH EXAMPLES", ".nf"]
    examples = words.EPILOG.partition("examples:\n")[2].partition("\n\n")[0]
    lines += [roff(line) for line in examples.splitlines()]
    lines += [".fi", ".SH SEE ALSO", "\\fBfusermount\\fR(1), \\fBmount\\fR(8), \\fBfstab\\fR(5)"]
    return "\n".join(lines) + "\n"


# docs/options.md


def told_apart(option: Option) -> tuple[str, str]:
    """The help text without what it says of the default, and that."""
    text = option.help.replace("|", "\\|")
    found = re.search(r" \(default:? ?([^()]*)\)", text)
    if not found:
        return text, option.default
    return text[: found.start()] + text[found.end() :], found[1] or "yes"


def reference() -> str:
    """docs/options.md."""
    lines = [
        f"<!-- {MADE} -->",
        "# Options",
        "",
        "`arv-mount --help` and `man arv-mount` have the same. Options may be shortened as long as they are "
        "clear.",
    ]
    for group, members in grouped():
        lines += ["", f"## {group[:1].upper()}{group[1:]}", "", "| option | | default |", "|---|---|---|"]
        for option in members:
            name = ", ".join(f"`{name}`" for name in option.names)
            value = usage_value(option).replace("|", "\\|")
            text, default = told_apart(option)
            lines.append(f"| {name}{f' {value}' if value else ''} | {text} | {default} |")
    lines += ["", "## Exit codes", "", "| code | |", "|---|---|"]
    lines += [f"| {code} | {meaning} |" for code, meaning in EXIT_CODES.items()]
    lines += ["", "## Environment", "", "| variable | |", "|---|---|"]
    lines += [f"| `{name}` | {meaning} |" for name, meaning in ENVIRONMENT.items()]
    lines += [
        "",
        "Instead of the first five, `~/.config/arvados/settings.conf` may have lines `NAME=value`.",
    ]
    return "\n".join(lines) + "\n"


# Completion


def quoted(text: str) -> str:
    """In single quotes, for a POSIX shell."""
    return "'" + text.replace("'", "'\\''") + "'"


def bash() -> str:
    """completion/arv-mount."""
    names = " ".join(name for option in visible() for name in option.names)
    directories = "|".join(option.names[-1] for option in visible() if option.value in DIRECTORIES)
    files = "|".join(option.names[-1] for option in visible() if option.value in FILES and not option.many)
    others = "|".join(
        option.names[-1]
        for option in visible()
        if option.value and option.value not in DIRECTORIES + FILES and not option.many
    )
    return f"""# bash completion for arv-mount
# {MADE}

_arv_mount() {{
    local current="${{COMP_WORDS[COMP_CWORD]}}" before="${{COMP_WORDS[COMP_CWORD-1]}}" i
    COMPREPLY=()
    for (( i = 1; i < COMP_CWORD; i++ )); do
        if [[ ${{COMP_WORDS[i]}} == --exec ]]; then
            if (( i == COMP_CWORD - 1 )); then
                mapfile -t COMPREPLY < <(compgen -c -- "$current")
            else
                mapfile -t COMPREPLY < <(compgen -f -- "$current")
            fi
            return
        fi
    done
    if [[ $before == = ]]; then
        before="${{COMP_WORDS[COMP_CWORD-2]}}"
    elif [[ $current == = ]]; then
        current=""
    fi
    case "$before" in
        {directories}) mapfile -t COMPREPLY < <(compgen -d -- "$current") ;;
        {files}) mapfile -t COMPREPLY < <(compgen -f -- "$current") ;;
        {others}) ;;
        *)
            if [[ $current == -* ]]; then
                mapfile -t COMPREPLY < <(compgen -W "{names}" -- "$current")
            else
                mapfile -t COMPREPLY < <(compgen -d -- "$current")
            fi
            ;;
    esac
}}
complete -o filenames -F _arv_mount arv-mount
"""


def zsh() -> str:
    """completion/_arv-mount."""
    specifications = []
    for option in visible():
        text = option.help.replace("\\", "\\\\").replace("[", "\\[").replace("]", "\\]").replace(":", "\\:")
        action = ""
        if option.name == "exec":
            action = ":*:::command: _normal"
        elif option.value in DIRECTORIES:
            action = f":{option.value}:_files -/"
        elif option.value in FILES:
            action = f":{option.value}:_files"
        elif option.value:
            action = f":{option.value}: "
        if option.optional:
            action = f":{action}"
        if option.many and option.name != "exec":
            action = f":*{action}"
        first = option.names[-1] if option.name.startswith("mount-") else ""
        for name in option.names:
            specifications.append(quoted(f"{'*' if first else ''}{name}[{text}]{action}"))
    body = " \\\n    ".join([*specifications, quoted("1:MOUNT_DIR:_files -/")])
    return f"#compdef arv-mount\n# {MADE}\n\n_arguments -s \\\n    {body}\n"


def fish() -> str:
    """completion/arv-mount.fish."""
    lines = ["# fish completion for arv-mount", f"# {MADE}", ""]
    lines.append("complete -c arv-mount -f -a '(__fish_complete_directories)'")
    for option in visible():
        short = "".join(f" -s {name[1]}" for name in option.names if not name.startswith("--"))
        value = ""
        if option.value and not option.optional:
            value = " -r"
            if option.value in DIRECTORIES:
                value = " -x -a '(__fish_complete_directories)'"
            elif option.value in FILES:
                value = " -r -F"
            elif option.name == "exec":
                value = " -x -a '(__fish_complete_subcommand)'"
            else:
                value = " -x"
        # In single quotes fish knows \' and \\ alone.
        text = option.help.replace("\\", "\\\\").replace("'", "\\'")
        lines.append(f"complete -c arv-mount{short} -l {option.name}{value} -d '{text}'")
    return "\n".join(lines) + "\n"


DOCUMENTS: dict[str, Callable[[], str]] = {
    "docs/arv-mount.1": manual,
    "docs/options.md": reference,
    "completion/arv-mount": bash,
    "completion/_arv-mount": zsh,
    "completion/arv-mount.fish": fish,
}


def stale() -> list[str]:
    """Files that are not what they would be if they were written now."""
    return [
        name
        for name, make in DOCUMENTS.items()
        if not (ROOT / name).exists() or (ROOT / name).read_text(encoding="utf-8") != make()
    ]


def main(arguments: list[str]) -> int:
    """Write them, or with --check say which are old; the exit code."""
    if arguments not in ([], ["--check"]):
        print(__doc__.strip())
        return 2
    old = stale()
    for name in old:
        print(f"{name} {'is not up to date' if arguments else 'written'}")
        if not arguments:
            (ROOT / name).parent.mkdir(exist_ok=True)
            (ROOT / name).write_text(DOCUMENTS[name](), encoding="utf-8")
    return 1 if old and arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
