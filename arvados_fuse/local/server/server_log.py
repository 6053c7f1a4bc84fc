"""The server's log file: limited in size, private, and without secrets.

Used by `process`. Set up once, before any other thread starts; then any thread may log.
"""

import logging
import logging.handlers
import re
from pathlib import Path

MAX_BYTES = 8 * 1024 * 1024
KEPT_FILES = 3
"""The newest 8 MiB and three files before it: some days of ordinary use."""

_NAMED = r"(?i)((?:api_token|reader_tokens|authorization)[\"']?\s*[=:]\s*[\"']?(?:bearer |oauth2 )?)"
_SECRETS = (
    re.compile(_NAMED + r"[^\s&\"',)]+"),
    re.compile(r"(v2/[a-z0-9]{5}-[a-z0-9]{5}-[a-z0-9]{15}/)[A-Za-z0-9]+"),
    # A bare token is 41 or more digits and letters; hashes and signatures are at most 40.
    re.compile(r"()\b[A-Za-z0-9]{41,}\b"),
)


def redact(text: str) -> str:
    """Return the text with everything that looks like an API token replaced."""
    for pattern in _SECRETS:
        text = pattern.sub(r"\1[redacted]", text)
    return text


class RedactingFormatter(logging.Formatter):
    """Formats a record, its traceback included, and takes tokens out of the result."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line or lines for a record."""
        return redact(super().format(record))


def start_logging(path: Path, *, debug: bool = False) -> None:
    """Send all log records to the file at `path` (0600 by the process's umask). Raises OSError."""
    handler = logging.handlers.RotatingFileHandler(path, maxBytes=MAX_BYTES, backupCount=KEPT_FILES)
    handler.setFormatter(
        RedactingFormatter(
            "%(asctime)s %(name)s[%(process)d] %(levelname)s: %(message)s", "%Y-%m-%d %H:%M:%S"
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.DEBUG if debug else logging.INFO)
    # At DEBUG aiohttp and asyncio log what they do for each connection.
    logging.getLogger("asyncio").setLevel(logging.WARNING)
    logging.getLogger("aiohttp").setLevel(logging.WARNING)
