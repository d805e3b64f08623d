#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A DNS server for tests: one zone, over UDP and TCP, whose TXT records a script changes (the
provider "exec"), whose names all have the address 127.0.0.1."""
import os
import socket
import struct
import threading
import time

from server import free_port


class Names:
    """A DNS server for one zone, over UDP and TCP, with records that a script writes to a file."""

    def __init__(self, folder, cut=False, zone="example", delay=0, noise=False):
        self.file, self.cut, self.zone, self.delay = folder + "/records", cut, zone, delay
        self.cnames, self.asked, self.since, self.noise = {}, [], {}, noise
        self.records, self.fails, self.only_records, self.silent = {}, {}, False, set()
        self.bind()
        threading.Thread(target=self.serve_udp, daemon=True).start()
        threading.Thread(target=self.serve_tcp, daemon=True).start()
        self.script = folder + "/hook"
        with open(self.script, "w") as f:
            f.write("#!/bin/sh\nset -e\ncase $1 in\npresent) echo \"$2 $3\" >> %s ;;\n"
                    "cleanup) grep -v \"^$2 $3\\$\" %s > %s.new || true; mv %s.new %s ;;\nesac\n" %
                    ((self.file,) * 5))
        os.chmod(self.script, 0o755)

    def set(self, name, *values):
        """Addresses, or (priority, weight, port, target) of a service; none: no such name."""
        name = name.rstrip(".") + "."
        self.only_records = True
        self.records = {k: v for k, v in self.records.items() if k[0] != name}
        for v in values:
            if isinstance(v, tuple):
                self.records.setdefault((name, 33), []).append(
                    struct.pack("!HHH", *v[:3]) + self.name(v[3]))
            elif ":" in v:
                self.records.setdefault((name, 28), []).append(socket.inet_pton(socket.AF_INET6, v))
            else:
                self.records.setdefault((name, 1), []).append(socket.inet_aton(v))

    def bind(self):
        while True:
            self.port = free_port()
            self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            try:
                self.udp.bind(("127.0.0.1", self.port))
                self.tcp = socket.create_server(("127.0.0.1", self.port))
                return
            except OSError:  # of the one protocol only
                self.udp.close()

    def texts(self, name):
        name = name.rstrip(".").lower() + "."
        name = self.cnames.get(name, name)
        try:
            lines = [line.split() for line in open(self.file)]
        except OSError:
            return []
        found = [text for owner, text in lines if owner.lower() == name]
        if found and self.delay:
            until = self.since.setdefault(name, time.time() + self.delay)
            return found if time.time() >= until else []
        return found

    @staticmethod
    def name(text):
        labels = [p.encode() for p in text.rstrip(".").split(".") if p]
        return b"".join(bytes([len(p)]) + p for p in labels) + b"\0"

    def record(self, owner, kind, data):
        return self.name(owner) + struct.pack("!HHIH", kind, 1, 60, len(data)) + data

    def answer(self, query, udp):
        at, labels = 12, []
        while query[at]:
            labels.append(query[at + 1:at + 1 + query[at]].decode())
            at += 1 + query[at]
        name, kind = ".".join(labels) + ".", struct.unpack("!H", query[at + 1:at + 3])[0]
        self.asked.append((name, kind, "udp" if udp else "tcp"))
        records, code = [], 0
        if kind == 16:
            if name in self.cnames:
                records.append(self.record(name, 5, self.name(self.cnames[name])))
            records += [self.record(self.cnames.get(name, name), 16, bytes([len(t)]) + t.encode())
                        for t in self.texts(name)]
            code = 0 if records else 3
        elif name in self.fails:
            code = self.fails[name]
        elif (name, kind) in self.records:
            records = [self.record(name, kind, data) for data in self.records[name, kind]]
        elif self.only_records:
            code = 0 if any(n == name for n, _ in self.records) else 3
        elif kind == 1:
            records = [self.record(name, 1, bytes([127, 0, 0, 1]))]
        elif kind == 6 and name.rstrip(".") == self.zone:
            records = [self.record(name, 6, self.name("ns." + self.zone) * 2 + b"\0" * 20)]
        elif kind == 2 and name.rstrip(".") == self.zone:
            records = [self.record(name, 2, self.name("localhost"))]
        flags = 0x8180 | code
        if udp and self.cut:
            records, flags = [], 0x8380
        return query[:2] + struct.pack("!HHHHH", flags, 1, len(records), 0, 0) + query[12:at + 5] + \
            b"".join(records)

    def serve_udp(self):
        while True:
            try:
                query, who = self.udp.recvfrom(4096)
                if self.noise:
                    self.udp.sendto(b"garbage", who)
                reply = self.answer(query, True)
                if self.asked[-1][0] not in self.silent:
                    self.udp.sendto(reply, who)
            except OSError:
                return

    def serve_tcp(self):
        while True:
            try:
                with self.tcp.accept()[0] as c:
                    n = struct.unpack("!H", c.recv(2))[0]
                    reply = self.answer(c.recv(n), False)
                    c.sendall(struct.pack("!H", len(reply)) + reply)
            except OSError:
                return

    def options(self, **more):
        return {"challenges": {"dns": dict({"provider": {"name": "exec", "command": [self.script]},
                                            "resolvers": ["127.0.0.1:%d" % self.port]}, **more)}}
