"""What the embedded server was asked, counted from its log."""

from collections.abc import Callable

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
