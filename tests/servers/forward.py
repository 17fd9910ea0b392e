#!/usr/bin/env python3
"""Makes a loopback port of this network namespace reachable at the same port of another one.

    forward.py NAMESPACE PORT...       runs until it is ended; prints `ready` when it listens

The servers of the suites listen on the loopback address only. A daemon in a network namespace of its
own still reaches them through this: the listening sockets are made inside NAMESPACE (a name under
/run/netns, or a path), the connections to the servers are made outside. Needs root.
"""

import ctypes
import os
import selectors
import socket
import sys
import threading

CLONE_NEWNET = 0x40000000
PIECE = 1 << 18


def enter(path: str) -> None:
    """Moves the calling thread into a network namespace."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open(path) as namespace:
        if libc.setns(namespace.fileno(), CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), f"setns {path}")


def listen_inside(path: str, ports: list[int]) -> list[socket.socket]:
    """Listening sockets that belong to the namespace; the caller stays where it is."""
    listeners: list[socket.socket] = []
    failures: list[OSError] = []

    def inside() -> None:
        try:
            enter(path)
            for port in ports:
                listeners.append(socket.create_server(("127.0.0.1", port), backlog=128))
        except OSError as error:
            failures.append(error)

    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    if failures:
        raise failures[0]
    return listeners


def copy(source: socket.socket, target: socket.socket) -> None:
    """Copies one direction to its end."""
    buffer = memoryview(bytearray(PIECE))
    try:
        while count := source.recv_into(buffer):
            target.sendall(buffer[:count])
    except OSError:
        pass
    for end, how in ((target, socket.SHUT_WR), (source, socket.SHUT_RD)):
        try:
            end.shutdown(how)
        except OSError:
            pass


def serve(client: socket.socket, port: int) -> None:
    """Joins one client with the server outside."""
    with client:
        try:
            server = socket.create_connection(("127.0.0.1", port), timeout=10)
        except OSError:
            return
        with server:
            server.settimeout(None)
            back = threading.Thread(target=copy, args=(server, client), daemon=True)
            back.start()
            copy(client, server)
            back.join()


def main() -> None:
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    path = sys.argv[1] if "/" in sys.argv[1] else f"/run/netns/{sys.argv[1]}"
    if not os.path.exists(path):
        sys.exit(f"forward: no network namespace {path}")
    ready = selectors.DefaultSelector()
    for listener in listen_inside(path, [int(port) for port in sys.argv[2:]]):
        ready.register(listener, selectors.EVENT_READ)
    print("ready", flush=True)
    while True:
        for key, _ in ready.select():
            client, _ = key.fileobj.accept()
            port = key.fileobj.getsockname()[1]
            threading.Thread(target=serve, args=(client, port), daemon=True).start()


if __name__ == "__main__":
    main()
