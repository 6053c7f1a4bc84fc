"""The shape of answers that go wrong, and the request id that ties them to a log line.

Used by the API, the Keep services and the event connections. Pure functions.
"""

import json
import re
import secrets
import time
from collections.abc import Sequence

from aiohttp import web

_REQUEST_ID = re.compile(r"[A-Za-z0-9_.:-]{1,100}")
_ALPHABET = "0123456789abcdefghijklmnopqrstuvwxyz"


def request_id_of(request: web.BaseRequest) -> str:
    """Return the client's `X-Request-Id` when it is harmless to log and send back, else a new one."""
    given = request.headers.get("X-Request-Id", "")
    if _REQUEST_ID.fullmatch(given):
        return given
    return "req-" + "".join(secrets.choice(_ALPHABET) for _ in range(20))


def error_response(status: int, errors: Sequence[str], request_id: str) -> web.Response:
    """Return an Arvados error: `{"errors": [...], "error_token": "<unix time>+<8 hex>"}`."""
    text = json.dumps({"errors": list(errors), "error_token": f"{int(time.time())}+{secrets.token_hex(4)}"})
    return web.Response(
        status=status, text=text, content_type="application/json", headers={"X-Request-Id": request_id}
    )
