"""What sockets are connected to, from the kernel's tables as they are written."""

from supervisor.core.sockets import parse_inet, parse_unix

TCP = """  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1538 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 101 1 0000000000000000 100 0 0 10 0
   1: 0100007F:D431 0100007F:1538 01 00000000:00000000 00:00000000 00000000     0        0 102 1 0000000000000000 20 4 30 10 -1
   2: nonsense
   3: 0100007F:XYZW 0100007F:1538 01 00000000:00000000 00:00000000 00000000     0        0 103 1
"""
TCP6 = """  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000000000000000000001000000:0050 00000000000000000000000001000000:C350 01 00000000:00000000 00:00000000 00000000     0        0 201 1
"""
UDP = """  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops
  24: 0100007F:14E9 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 301 2 0000000000000000 0
"""
UNIX = """Num       RefCount Protocol Flags    Type St Inode Path
0000000000000000: 00000002 00000000 00010000 0001 01 401 /run/app/app sock
0000000000000000: 00000003 00000000 00000000 0001 03 402
0000000000000000: 00000002 00000000 00000000 0002 01 403 @abstract
short line
"""


def test_a_connection_is_told_by_its_other_end_and_a_listener_by_its_own():
    assert parse_inet(TCP, "tcp") == {101: "tcp 127.0.0.1:5432, listening", 102: "tcp 127.0.0.1:5432"}
    assert parse_inet(TCP6, "tcp") == {201: "tcp [::1]:50000"}
    assert parse_inet(UDP, "udp") == {301: "udp on 127.0.0.1:5353"}


def test_a_unix_socket_has_a_path_where_it_was_bound():
    assert parse_unix(UNIX) == {401: "a unix socket /run/app/app sock", 402: "a unix socket", 403: "a unix socket @abstract"}


def test_nothing_is_made_of_nothing():
    assert parse_inet("", "tcp") == parse_unix("") == {}
