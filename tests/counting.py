"""What the embedded server was asked, counted from its log."""

from collections.abc import Callable, Iterable

from servers import LocalServer, wait_for

Requests = Callable[[], list[str]]


def request_counter(server: LocalServer) -> Requests:
    """A function that gives the lines of the API requests since its last call, its own call left out."""
    log = server.data_dir / "server.log"
    seen = log.stat().st_size

    def new() -> list[str]:
        nonlocal seen
        marker = f"req-{'m' * 12}{seen:08d}"
        server.call("GET", "users/current", headers={"X-Request-Id": marker})
        text = wait_for(lambda: marker in (new := log.read_text()[seen:]) and new, "the log is written")
        assert isinstance(text, str)
        seen += len(text.encode())
        return [line for line in text.splitlines() if "arvados.local.api" in line and marker not in line]

    return new


def changing(lines: Iterable[str]) -> list[str]:
    """Those of the API requests that change something."""
    return [
        line for line in lines if any(f" {verb} /" in line for verb in ("POST", "PUT", "PATCH", "DELETE"))
    ]


def stored_blocks(server: LocalServer) -> dict[str, int]:
    """The blocks that all Keep services of the server have, and their bytes."""
    found: dict[str, int] = {}
    for path in (server.data_dir / "keep").rglob("*"):
        if len(path.name) == 32 and path.is_file():
            found[path.name] = path.stat().st_size
    return found
