"""The command `python -m arvados_fuse.local`: serve, status, stop, env, user, token.

Used by people, by scripts and by `control`. Exit codes: 0 done; 1 failed, with one sentence on stderr; 2
wrong arguments; 3 (serve, status) see there.
"""

import argparse
import json
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from arvados_fuse.errors import ArvadosFuseError, SetupError
from arvados_fuse.local.client import call
from arvados_fuse.local.control import (
    EXIT_ALREADY_SERVED,
    PROGRAM,
    START_DEADLINE,
    LocalSettings,
    default_data_dir,
    find_running,
    start_detached,
    stop_running,
)
from arvados_fuse.local.datadir import AlreadyServed
from arvados_fuse.version import __version__

EXIT_NOT_RUNNING = 3
"""Exit code of `status` when there is no server, as init scripts have it."""

_DESCRIPTION = """\
Run an embedded Arvados on this machine: an API server, Keep services and events, on loopback only.
Any Arvados client can use it, unchanged."""

_EXAMPLES = """\
in a hurry:
  python -m arvados_fuse.local serve             start it in the background (again: says that it runs)
  eval "$(python -m arvados_fuse.local env)"     point this shell's Arvados tools at it
  arv-put some-directory; arv-mount ~/arvados    use it
  python -m arvados_fuse.local stop              stop it; everything stays in the data directory

to start from nothing, stop it and remove the data directory."""


def main(arguments: Sequence[str]) -> int:
    """Run the command; return its exit code."""
    options = _parser().parse_args(arguments)
    run: Callable[[argparse.Namespace], int] = options.run
    try:
        return run(options)
    except AlreadyServed as error:
        print(f"{PROGRAM}: {error}", file=sys.stderr)
        return EXIT_ALREADY_SERVED
    except ArvadosFuseError as error:
        print(f"{PROGRAM}: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"{PROGRAM}: {error.strerror or error}: {error.filename or ''}".rstrip(": "), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--data-dir",
        type=Path,
        metavar="DIR",
        default=default_data_dir(os.environ),
        help="where records, blocks and keys are (default: %(default)s)",
    )
    parser = argparse.ArgumentParser(
        prog="python -m arvados_fuse.local",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def add(name: str, run: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, parents=[common], help=text, description=text)
        command.set_defaults(run=run)
        return command

    _add_serve(add("serve", _serve, "start the server, in the background unless told otherwise"))
    add("status", _status, "say whether it runs, and where (exit code 3: it does not)")
    add("stop", _stop, "stop it; what it was told stays in the data directory")
    env = add("env", _env, "print the shell lines that point Arvados tools at it")
    env.add_argument("--admin", action="store_true", help="with the administrator's token")
    env.add_argument(
        "--insecure", action="store_true", help="don't check its certificate, instead of trusting it"
    )
    env.add_argument("--json", action="store_true", help="as a JSON object")
    _add_user(commands.add_parser("user", help="make and list users"), common)
    _add_token(commands.add_parser("token", help="make and delete API tokens"), common)
    return parser


def _add_serve(serve: argparse.ArgumentParser) -> None:
    serve.add_argument("--foreground", action="store_true", help="stay here until stopped (or Ctrl-C)")
    serve.add_argument(
        "--port", type=_port, metavar="N", help="port of the API (default: a free one, then the same)"
    )
    serve.add_argument(
        "--keep-services",
        type=_positive,
        metavar="N",
        help="number of Keep services (default: 2, then the same)",
    )
    serve.add_argument(
        "--signature-ttl",
        type=_positive,
        metavar="SECONDS",
        help="how long block signatures stay valid (default: two weeks)",
    )
    serve.add_argument("--debug", action="store_true", help="log more")
    serve.add_argument(
        "--until-eof",
        action="store_true",
        help="with --foreground: stop when standard input ends, so that it can't outlive its starter",
    )
    serve.add_argument("--deadline", type=float, default=START_DEADLINE, help=argparse.SUPPRESS)
    serve.add_argument("--quiet", action="store_true", help="say nothing when all is well")


def _add_user(user: argparse.ArgumentParser, common: argparse.ArgumentParser) -> None:
    actions = user.add_subparsers(title="actions", metavar="ACTION", required=True)
    create = actions.add_parser("create", parents=[common], help="make a user; prints its uuid and a token")
    create.add_argument("username", metavar="NAME", help="letters and digits")
    create.add_argument("--email", metavar="ADDRESS", help="(default: NAME@localhost)")
    create.add_argument("--first-name", metavar="NAME", default=None)
    create.add_argument("--last-name", metavar="NAME", default="Local")
    create.add_argument("--admin", action="store_true", help="make it an administrator")
    create.set_defaults(run=_user_create)
    listing = actions.add_parser("list", parents=[common], help="list the users")
    listing.set_defaults(run=_user_list)


def _add_token(token: argparse.ArgumentParser, common: argparse.ArgumentParser) -> None:
    actions = token.add_subparsers(title="actions", metavar="ACTION", required=True)
    create = actions.add_parser("create", parents=[common], help="make a token of a user and print it")
    create.add_argument("username", metavar="NAME")
    create.set_defaults(run=_token_create)
    delete = actions.add_parser("delete", parents=[common], help="end a token")
    delete.add_argument("uuid", metavar="UUID", help="the middle part of v2/UUID/...")
    delete.set_defaults(run=_token_delete)


def _port(text: str) -> int:
    number = int(text)
    if not 0 <= number < 65536:
        raise argparse.ArgumentTypeError("a port is a number from 0 (a free one) to 65535")
    return number


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return number


def _serve(options: argparse.Namespace) -> int:
    if options.foreground:
        # Only here: the server's libraries take a moment to load, and the other commands don't need them.
        from arvados_fuse.local.server.process import ServeOptions, serve

        serve(
            ServeOptions(
                data_dir=options.data_dir.absolute(),
                port=options.port,
                keep_services=options.keep_services,
                signature_ttl=options.signature_ttl,
                debug=options.debug,
                until_end_of_input=options.until_eof,
                announce=None if options.quiet else _announce,
            )
        )
        return 0
    settings = start_detached(
        options.data_dir,
        port=options.port,
        keep_services=options.keep_services,
        signature_ttl=options.signature_ttl,
        deadline=options.deadline,
    )
    if not options.quiet:
        _announce(settings.host)
    return 0


def _announce(host: str) -> None:
    print(f"The embedded Arvados answers at https://{host}/", flush=True)


def _status(options: argparse.Namespace) -> int:
    settings = find_running(options.data_dir)
    if settings is None:
        print(f"not running ({options.data_dir})")
        return EXIT_NOT_RUNNING
    print(f"running at https://{settings.host}/")
    print(f"Keep services: {' '.join(settings.keep_services)}")
    print(f"data: {settings.data_dir}")
    return 0


def _stop(options: argparse.Namespace) -> int:
    print("stopped" if stop_running(options.data_dir) else f"was not running ({options.data_dir})")
    return 0


def _env(options: argparse.Namespace) -> int:
    settings = _running(options)
    variables = settings.environment()
    if options.admin:
        variables["ARVADOS_API_TOKEN"] = settings.admin_token
    if options.insecure:
        variables["ARVADOS_API_HOST_INSECURE"] = "1"
        del variables["SSL_CERT_FILE"]
    if options.json:
        print(json.dumps(variables, indent=2))
    else:
        for name, value in variables.items():
            print(f"export {name}={shlex.quote(value)}" if value else f"unset {name}")
    return 0


def _user_create(options: argparse.Namespace) -> int:
    attributes = {
        "username": options.username,
        "email": options.email or f"{options.username}@localhost",
        "first_name": options.first_name or options.username.capitalize(),
        "last_name": options.last_name,
        "is_active": True,
        "is_admin": options.admin,
    }
    user = _call(options, "POST", "users", {"user": attributes})
    print(user["uuid"])
    print(_new_token(options, user["uuid"]))
    return 0


def _user_list(options: argparse.Namespace) -> int:
    after = ""
    while True:
        filters = quote(json.dumps([["uuid", ">", after]]))
        page = _call(options, "GET", f"users?order=uuid&limit=1000&filters={filters}")["items"]
        if not page:
            return 0
        for user in page:
            kind = "administrator" if user["is_admin"] else "user" if user["is_active"] else "inactive"
            print(f"{user['uuid']}  {user['username'] or '-':<16} {kind:<13} {user['email'] or ''}".rstrip())
        after = page[-1]["uuid"]


def _token_create(options: argparse.Namespace) -> int:
    filters = quote(json.dumps([["username", "=", options.username]]))
    found = _call(options, "GET", f"users?limit=1&filters={filters}")["items"]
    if not found:
        raise SetupError(f"There is no user called {options.username}; see the action `user list`")
    print(_new_token(options, found[0]["uuid"]))
    return 0


def _token_delete(options: argparse.Namespace) -> int:
    _call(options, "DELETE", f"api_client_authorizations/{quote(options.uuid, safe='')}")
    return 0


def _new_token(options: argparse.Namespace, user_uuid: str) -> str:
    body = {"api_client_authorization": {"owner_uuid": user_uuid}}
    made = _call(options, "POST", "api_client_authorizations", body)
    return f"v2/{made['uuid']}/{made['api_token']}"


def _call(options: argparse.Namespace, verb: str, path: str, body: dict[str, Any] | None = None) -> Any:
    settings = _running(options)
    return call(settings.host, settings.ca_file, settings.admin_token, verb, path, body)


def _running(options: argparse.Namespace) -> LocalSettings:
    settings = find_running(options.data_dir)
    if settings is None:
        data_dir = options.data_dir.absolute()
        where = (
            "" if data_dir == default_data_dir(os.environ) else f" --data-dir {shlex.quote(str(data_dir))}"
        )
        raise SetupError(
            f"No server is running on {data_dir}; start one with: python -m arvados_fuse.local serve{where}"
        )
    return settings
