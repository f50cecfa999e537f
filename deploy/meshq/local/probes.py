"""Short questions to servers: are you ready? Each answers True or False and never raises.

They speak just enough of each protocol over a socket, so that starting the system imports no driver.
"""

import http.client
import socket
import struct

_TIMEOUT = 1.0
_PROTOCOL_3 = 196608
_LONGEST = 4096


def http_get(host: str, port: int, path: str) -> tuple[int, bytes]:
    """The status and body of a page; (0, b"") if there is no answer."""
    connection = http.client.HTTPConnection(host, port, timeout=_TIMEOUT)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, _body(response)
    except (OSError, http.client.HTTPException):
        return 0, b""
    finally:
        connection.close()


def _body(response: http.client.HTTPResponse) -> bytes:
    try:
        return response.read()
    except http.client.IncompleteRead as cut:  # the status says enough
        return cut.partial


def etcd(host: str, port: int) -> bool:
    """Etcd has a leader and takes writes."""
    status, body = http_get(host, port, "/health")
    return status == http.HTTPStatus.OK and b'"true"' in body


def valkey(host: str, port: int) -> bool:
    """The shard answers PING; a shard that wants a password is up, too."""
    return _ask(host, port, b"PING\r\n")[:5] in (b"+PONG", b"-NOAU")


def postgres(host: str, port: int, user: str = "meshq") -> bool:
    """PostgreSQL lets people in: a server that is still starting answers with an error instead."""
    names = b"user\0" + user.encode() + b"\0database\0postgres\0\0"
    startup = struct.pack("!II", 8 + len(names), _PROTOCOL_3) + names
    return _ask(host, port, startup, goodbye=b"X\0\0\0\4")[:1] == b"R"


def _ask(host: str, port: int, question: bytes, goodbye: bytes = b"") -> bytes:
    try:
        with socket.create_connection((host, port), timeout=_TIMEOUT) as connection:
            connection.sendall(question)
            answer = connection.recv(_LONGEST)
            connection.sendall(goodbye)
            return answer
    except OSError:
        return b""
