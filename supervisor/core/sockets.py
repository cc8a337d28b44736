"""What a socket is connected to, from the tables in /proc/net (proc_net(5)); reads nothing itself."""

import ipaddress
import struct

_LISTENING = "0A"


def parse_inet(text: str, protocol: str) -> dict[int, str]:
    """Inode → words ("tcp 127.0.0.1:5432") out of /proc/net/tcp, tcp6, udp or udp6. Lines of another shape are left out."""
    found = {}
    for line in text.splitlines()[1:]:
        fields = line.split()
        try:
            inode = int(fields[9])
            local, remote = _address(fields[1]), _address(fields[2])
        except (ValueError, IndexError, struct.error):
            continue
        unconnected = fields[2].endswith(":0000")
        if fields[3] == _LISTENING:
            found[inode] = f"{protocol} {local}, listening"
        else:
            found[inode] = f"{protocol} on {local}" if unconnected else f"{protocol} {remote}"
    return found


def parse_unix(text: str) -> dict[int, str]:
    """Inode → words out of /proc/net/unix. Only the end that was bound has a path; an abstract one is shown with its @."""
    found = {}
    for line in text.splitlines()[1:]:
        fields = line.split(None, 7)
        if len(fields) >= 7 and fields[6].isdigit():
            found[int(fields[6])] = f"a unix socket{f' {fields[7]}' if len(fields) > 7 else ''}"
    return found


def _address(text: str) -> str:
    """Of "0100007F:1538": "127.0.0.1:5432": each word of four bytes stands in the order of the (little-endian) machine."""
    host, _, port = text.partition(":")
    words = struct.unpack(f">{len(host) // 8}I", bytes.fromhex(host))
    raw = struct.pack(f"<{len(words)}I", *words)
    address = ipaddress.ip_address(raw)
    number = int(port, 16)
    return f"{address}:{number}" if address.version == 4 else f"[{address}]:{number}"
