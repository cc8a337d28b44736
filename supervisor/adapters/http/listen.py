"""Listening sockets, and words for why one cannot be had. What is served on them is ``server``'s business."""

import errno
import os
import socket
import stat

from supervisor.errors import SupervisorError

MAX_SOCKET_PATH_BYTES = 107  # sun_path holds 108 with the closing NUL, unix(7)


def listen_tcp(host: str, port: int) -> socket.socket:
    """A listening socket. ``SupervisorError`` with the mend if host and port cannot be had."""
    place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except (OSError, UnicodeError) as err:  # the second: a name that cannot be one
        raise SupervisorError(
            f"{place}: the host is not known ({getattr(err, 'strerror', None) or err}); set supervisor.listen to an address of this machine"
        ) from err
    sock = socket.socket(family, kind | socket.SOCK_CLOEXEC, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(address)
        sock.listen(128)
        sock.setblocking(False)
    except OSError as err:
        sock.close()
        raise SupervisorError(_tcp_words(place, port, err)) from err
    return sock


def _tcp_words(place: str, port: int, err: OSError) -> str:
    match err.errno:
        case errno.EADDRINUSE:
            return f"{place} is in use{_holder(port)}; set supervisor.listen to another port or stop that program"
        case errno.EADDRNOTAVAIL:
            return f"{place}: the host is not an address of this machine; set supervisor.listen to one that is"
        case errno.EACCES:
            return f"{place}: ports below 1024 need a privilege; set supervisor.listen to a higher port"
        case _:
            return f"{place} cannot be listened on: {err.strerror}; set supervisor.listen to another address"


def _holder(port: int) -> str:
    """Words for who listens on *port*, as far as this user may know; else nothing."""
    import psutil  # here: it is only needed to word an error

    try:
        for connection in psutil.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr.port == port and connection.pid:
                return f" (by pid {connection.pid}, {psutil.Process(connection.pid).name()})"
    except (psutil.Error, OSError):
        return ""
    return ""


def listen_unix(path: str) -> socket.socket:
    """A listening socket at *path*, mode 0600 from its first instant; a stale one that nobody answers on is replaced."""
    length = len(os.fsencode(path))
    if length > MAX_SOCKET_PATH_BYTES:
        raise SupervisorError(
            f"{path}: {length} bytes long, and the path of a unix socket holds {MAX_SOCKET_PATH_BYTES}; set supervisor.state_dir to a shorter path"
        )
    _clear_stale(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        os.fchmod(sock.fileno(), 0o600)  # before bind: Linux makes the file with the mode of the socket, so there is no open moment
        sock.bind(path)
        sock.listen(128)
        sock.setblocking(False)
    except OSError as err:
        sock.close()
        raise SupervisorError(f"{path} cannot be listened on: {err.strerror}; see that supervisor.state_dir exists and is ours") from err
    return sock


def _clear_stale(path: str) -> None:
    try:
        mode = os.stat(path, follow_symlinks=False).st_mode
    except FileNotFoundError:
        return
    except OSError as err:
        raise SupervisorError(f"{path}: {err.strerror}; see that supervisor.state_dir exists and is ours") from err
    if not stat.S_ISSOCK(mode):
        raise SupervisorError(f"{path} is in the way and is not a socket; move it away")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as probe:
        probe.settimeout(2)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            _unlink(path)
            return
        except OSError as err:
            raise SupervisorError(
                f"{path} is a socket that does not answer ({err.strerror or err}); remove it if no Mainstay runs"
            ) from err
    raise SupervisorError(f"another Mainstay answers on {path}; stop it, or set supervisor.state_dir to another directory")


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return
    except OSError as err:
        raise SupervisorError(f"{path} is left over and cannot be removed: {err.strerror}; remove it") from err
