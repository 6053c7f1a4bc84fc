"""The few requests that the command and `control` make to a running server, with the standard library alone.

Any thread. Programs use the Arvados SDK instead.
"""

import http.client
import json
import ssl
from pathlib import Path
from typing import Any

from arvados_fuse.errors import RequestRefused, Unreachable

TIMEOUT = 10.0
"""Seconds; the server is on this machine."""


def answers(host: str, ca_file: Path) -> bool:
    """Return whether a server with our certificate answers at `host` (`address:port`)."""
    try:
        status, _ = _request(host, ca_file, "GET", "/_health/ping", "", None, timeout=2.0)
    except (OSError, http.client.HTTPException):
        return False
    return status == 200


def call(
    host: str, ca_file: Path, token: str, verb: str, path: str, body: dict[str, Any] | None = None
) -> Any:
    """Return the JSON answer of one API request. Raises RequestRefused with the server's words,
    Unreachable.
    """
    try:
        status, text = _request(host, ca_file, verb, f"/arvados/v1/{path}", token, body, timeout=TIMEOUT)
        answer = json.loads(text)
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise Unreachable(f"The server at {host} does not answer: {error}", server=host) from error
    if status != 200:
        raise RequestRefused("; ".join(answer.get("errors", [f"status {status}"])), server=host)
    return answer


def _request(
    host: str,
    ca_file: Path,
    verb: str,
    path: str,
    token: str,
    body: dict[str, Any] | None,
    *,
    timeout: float,
) -> tuple[int, bytes]:
    # No proxy from the environment: http.client does not know of them.
    context = ssl.create_default_context(cafile=str(ca_file))
    connection = http.client.HTTPSConnection(host, timeout=timeout, context=context)
    try:
        headers = {"Content-Type": "application/json"}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        connection.request(verb, path, None if body is None else json.dumps(body), headers)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()
