"""Names of a cluster's services, for its pods: what CoreDNS answers of them, and nothing else.

A question is one datagram: 12 bytes of header, a name of counted labels, its type and class. `A` of
`service.namespace.svc.<domain>` is answered with the service's address, other types of a known name with nothing,
everything else with NXDOMAIN.
"""

import socket
import struct
import threading

DOMAIN = "cluster.local"
NO_SUCH_NAME = 3
ADDRESS = 1


class NameServer:
    """Answers until the process ends. `lookup(service, namespace)` is an address in dots, or None."""

    def __init__(self, address: str, lookup):
        self.lookup = lookup
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind((address, 53))
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self) -> None:
        while True:
            question, asker = self.socket.recvfrom(512)
            try:
                answer = self.answer(question)
            except (IndexError, struct.error, UnicodeDecodeError):
                continue
            self.socket.sendto(answer, asker)

    def answer(self, question: bytes) -> bytes:
        labels, at = [], 12
        while question[at]:
            end = at + 1 + question[at]
            labels.append(question[at + 1:end].decode().lower())
            at = end
        kind = struct.unpack_from(">H", question, at + 1)[0]
        asked = question[12:at + 5]
        found = None
        if ".".join(labels[2:]) == f"svc.{DOMAIN}":
            found = self.lookup(labels[0], labels[1])
        record = b""
        if found and kind == ADDRESS:
            # A pointer to the name of the question, type A, class IN, five seconds, four bytes.
            record = struct.pack(">HHHIH", 0xC00C, ADDRESS, 1, 5, 4) + socket.inet_aton(found)
        flags = 0x8580 | (0 if found else NO_SUCH_NAME)
        return question[:2] + struct.pack(">HHHHH", flags, 1, 1 if record else 0, 0, 0) + asked + record
