"""First contact with the API server: what can go wrong there, as one sentence with the next step.

Used by `main.py` while a mount is set up. `check()` finds what no repetition will heal (a name that does not
exist, a certificate that is not trusted) before the client starts to repeat; `explain()` turns what the
client reports into what a person can do.
"""

import contextlib
import socket
import ssl
from collections.abc import Iterator
from typing import TYPE_CHECKING
from urllib.request import getproxies, proxy_bypass

from arvados_fuse.errors import AccessDenied, ArvadosFuseError, NotFoundError, SetupError, Unreachable

if TYPE_CHECKING:
    from arvados_fuse.api import ApiSettings

HTTPS = 443
TIMEOUT = 10.0
"""Seconds for the name, the connection and the handshake each; slower is left to the client's patience."""


def check(settings: "ApiSettings") -> None:
    """Look the name up, connect and shake hands once. Raises SetupError for what will not go away by itself.

    What may (a server that is down, a slow network) is no error here. Nothing is sent but the handshake.
    """
    host, port = _address(settings.host)
    if not 0 < port < 65536:
        raise SetupError(f"ARVADOS_API_HOST names port {port}, and ports are 1 to 65535; correct it")
    if "https" in getproxies() and not proxy_bypass(host):
        return
    with contextlib.ExitStack() as stack:
        try:
            connection = stack.enter_context(socket.create_connection((host, port), TIMEOUT))
            stack.enter_context(_context(settings).wrap_socket(connection, server_hostname=host))
        except socket.gaierror as error:
            if error.errno != socket.EAI_AGAIN:
                raise SetupError(
                    f"ARVADOS_API_HOST names {host}, and no machine has that name; correct it"
                ) from error
        except ssl.SSLCertVerificationError as error:
            if settings.ca_file_missing:
                raise SetupError(
                    f"the certificate of {settings.host} is not trusted here ({error.verify_message}), and "
                    f"SSL_CERT_FILE names {settings.ca_file_missing}, which does not exist; correct it, or "
                    "for a test cluster set ARVADOS_API_HOST_INSECURE=1"
                ) from error
            raise SetupError(
                f"the certificate of {settings.host} is not trusted here ({error.verify_message}); "
                "point SSL_CERT_FILE at its authority, or for a test cluster set ARVADOS_API_HOST_INSECURE=1"
            ) from error
        except ssl.SSLEOFError:
            pass  # a server that is being restarted closes like this
        except ssl.SSLError as error:
            raise SetupError(
                f"{settings.host} does not speak HTTPS ({error.reason or error}); correct ARVADOS_API_HOST"
            ) from error
        except UnicodeError as error:
            raise SetupError(f"ARVADOS_API_HOST is {host!r}, which is no host name; correct it") from error
        except OSError:
            pass


@contextlib.contextmanager
def explain(settings: "ApiSettings") -> Iterator[None]:
    """Add the next step to what the API server answered. Raises SetupError."""
    try:
        yield
    except SetupError:
        raise
    except AccessDenied as error:
        raise SetupError(
            f"{_plain(error)}; get a new token in Workbench (Get API token) and set ARVADOS_API_TOKEN"
        ) from error
    except NotFoundError as error:
        if error.subject == settings.host:
            raise SetupError(
                f"{settings.host} answers, but is no Arvados API server; correct ARVADOS_API_HOST"
            ) from error
        raise SetupError(f"{_plain(error)}; check the uuid, and that this token may read it") from error
    except Unreachable as error:
        raise SetupError(f"{_plain(error)}; check ARVADOS_API_HOST and the network, and try again") from error


def _plain(error: ArvadosFuseError) -> str:
    return str(error).rstrip(". ")


def _address(host: str) -> tuple[str, int]:
    """Host and port of `name`, `name:port` or `[v6]:port`."""
    name, colon, port = host.rpartition(":")
    if colon and port.isdecimal() and (name.endswith("]") or ":" not in name):
        return name.strip("[]"), int(port)
    return host.strip("[]"), HTTPS


def _context(settings: "ApiSettings") -> ssl.SSLContext:
    if settings.insecure:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context
    return ssl.create_default_context(cafile=settings.ca_file or None)
