"""The listening sockets of the server: on loopback only, on ports that are still free after a restart.

Used by `process` before it serves.
"""

import logging
import random
import socket

from arvados_fuse.errors import SetupError

ADDRESS = "127.0.0.1"
"""The only address that any socket of this server listens on."""

CHOICE = range(20000, 32000)
"""Ports to choose from. Linux gives 32768 and above to outgoing connections, which could sit on a
remembered port.
"""

ATTEMPTS = 50

logger = logging.getLogger("arvados.local")


def listen(port: int, what: str) -> socket.socket:
    """Return a socket that listens on loopback; port 0: a free one. Raises SetupError with one sentence."""
    try:
        return _bind(port) if port else _choose()
    except OSError as error:
        raise SetupError(
            f"The {what} port {port} on {ADDRESS} can't be used ({error.strerror}); stop what uses it or "
            "choose another port"
        ) from None


def listen_somewhere(port: int) -> socket.socket:
    """Return a socket on this port, or on another one when it is taken: clients ask the API for these
    ports.
    """
    try:
        return _bind(port) if port else _choose()
    except OSError as error:
        logger.warning("Keep port %d can't be used (%s); taking another one", port, error.strerror)
        return listen(0, "Keep")


def _choose() -> socket.socket:
    for port in random.sample(CHOICE, ATTEMPTS):
        try:
            return _bind(port)
        except OSError:
            continue
    return _bind(0)


def _bind(port: int) -> socket.socket:
    return socket.create_server((ADDRESS, port), backlog=512)
