"""The server's socket and its TLS certificate: taken first, so that a fault shows before a load."""

from __future__ import annotations

import errno
import os
import socket
import ssl
from pathlib import Path
from typing import NoReturn

from octavo.errors import OctavoError, UsageError

__all__ = ["bind", "tls_context", "url_of"]


def bind(host: str, port: int) -> socket.socket:
    """A socket that has its port, but does not listen yet. Raises OctavoError."""
    try:
        family, _, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (socket.gaierror, UnicodeError) as error:
        raise UsageError(
            f"{host!r} (--host) is not an address of this machine: {error}."
        ) from error
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        if os.name == "posix":
            # A port whose last connections have just ended can be taken again at once.
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as error:
        bound.close()
        cannot_listen(host, port, error)
    return bound


def cannot_listen(host: str, port: int, error: OSError) -> NoReturn:
    """Say why there is no listening at an address."""
    match error.errno:
        case errno.EADDRINUSE:
            why = f"port {port} is in use. Name another with --port, or --port 0 for any free one"
        case errno.EACCES:
            why = f"port {port} is not for everybody's use. Name one above 1023 with --port"
        case errno.EADDRNOTAVAIL:
            why = "no network interface here has this address (--host)"
        case _:
            why = error.strerror or str(error)
    raise OctavoError(f"Cannot listen at {host}: {why}.") from error


def tls_context(certfile: Path, keyfile: Path | None) -> ssl.SSLContext:
    """The TLS side of a server. Raises UsageError for files that cannot be used."""
    for flag, path in (("--ssl-certfile", certfile), ("--ssl-keyfile", keyfile)):
        if path is not None and not path.is_file():
            raise UsageError(f"{flag} {path}: there is no such file.")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(certfile, keyfile, password=_no_password)
    except ssl.SSLError as error:
        names = f"{certfile}" if keyfile is None else f"{certfile} and {keyfile}"
        raise UsageError(
            f"{names} cannot be used for TLS: {error.reason or error}. Expected a certificate and "
            "its private key, in PEM."
        ) from error
    except OSError as error:
        raise UsageError(f"{error.filename or certfile}: {error.strerror}.") from error
    return context


def _no_password() -> str:
    raise UsageError(
        "The TLS key (--ssl-keyfile) is encrypted, and a server has nobody to ask for its "
        "password: decrypt it, or give another."
    )


def url_of(bound: socket.socket, host: str, *, is_tls: bool) -> str:
    """Where the server is found, with the port that it has got."""
    port = bound.getsockname()[1]
    name = f"[{host}]" if ":" in host else host
    return f"{'https' if is_tls else 'http'}://{name}:{port}"
