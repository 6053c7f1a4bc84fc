"""What systemd wants to know of a service of `Type=notify`, where it runs us (sd_notify(3)).

Used by `inside.py`. Without NOTIFY_SOCKET in the environment nothing is done. The protocol is one datagram of
`NAME=VALUE` lines for each message.
"""

import logging
import os
import socket
import threading
from collections.abc import Mapping

logger = logging.getLogger("arvados.arv-mount")


class Systemd:
    """Tells systemd how the mount is doing. Constructing does nothing. environment: that of the process."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._address = environment.get("NOTIFY_SOCKET", "")
        self._every = _watchdog_seconds(environment)
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def ready(self, status: str) -> None:
        """The mount is there: tell so, and that we live, again and again if that is wanted."""
        if not self._address:
            return
        self._tell(f"READY=1\nMAINPID={os.getpid()}\nSTATUS={status}")
        if self._every:
            self._thread = threading.Thread(target=self._beat, name="systemd-watchdog", daemon=True)
            self._thread.start()

    def stopping(self, status: str) -> None:
        """The mount ends. That we live is told until `close`."""
        if self._address:
            self._tell(f"STOPPING=1\nSTATUS={status}")

    def close(self) -> None:
        """Tell no more; safe to call twice."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _beat(self) -> None:
        while True:
            self._tell("WATCHDOG=1")
            if self._stopping.wait(self._every):
                return

    def _tell(self, message: str) -> None:
        # A leading @ stands for the zero byte of an abstract socket.
        address = f"\0{self._address[1:]}" if self._address.startswith("@") else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
                sender.settimeout(1.0)
                sender.sendto(message.encode(), address)
        except OSError as error:
            logger.debug("systemd could not be told %s: %s", message.partition("\n")[0], error)


def _watchdog_seconds(environment: Mapping[str, str]) -> float:
    """Half of the time after which systemd believes us dead, as sd_watchdog_enabled(3) advises; 0: never."""
    if environment.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return 0.0
    try:
        return max(0, int(environment.get("WATCHDOG_USEC", "0"))) / 2e6
    except ValueError:
        return 0.0
