# SPDX-License-Identifier: Apache-2.0
"""Upstreams that a test plays: each connection is a thread that runs the test's function over a Peer."""
import contextlib
import re
import socket
import threading


class Peer:
    """One connection, as bytes. `upstream` keeps the heads and bodies that were taken."""

    def __init__(self, sock, upstream=None, patience=60):
        self.sock, self.upstream, self.seen = sock, upstream, b""
        sock.settimeout(patience)

    def send(self, data):
        self.sock.sendall(data)

    def more(self):
        piece = self.sock.recv(65536)
        if not piece:
            raise EOFError(f"ended; had {len(self.seen)}: {self.seen[:200]!r}")
        self.seen += piece

    def until(self, mark):
        """Up to and with the mark; what comes behind it is kept."""
        while mark not in self.seen:
            self.more()
        at = self.seen.index(mark) + len(mark)
        out, self.seen = self.seen[:at], self.seen[at:]
        return out

    def head(self):
        return self.until(b"\r\n\r\n")

    def take(self, n):
        parts, have = [], 0
        while have + len(self.seen) < n:
            parts.append(self.seen)
            have, self.seen = have + len(self.seen), b""
            self.more()
        parts.append(self.seen[:n - have])
        self.seen = self.seen[n - have:]
        return b"".join(parts)

    def request(self):
        """The next one, head and body."""
        while b"\r\n\r\n" not in self.seen:
            self.more()
        end = self.seen.index(b"\r\n\r\n") + 4
        length = re.search(rb"\r\nContent-Length: (\d+)", self.seen[:end])
        end += int(length.group(1)) if length else 0
        while len(self.seen) < end:
            self.more()
        out, self.seen = self.seen[:end], self.seen[end:]
        if self.upstream:
            self.upstream.requests.append(out)
        return out

    def ended(self):
        """Waits for the other side's end; true when it said nothing more."""
        with contextlib.suppress(ConnectionResetError):
            return self.sock.recv(1) == b""
        return True


def answer(body=b"ok", status=b"200 OK", extra=b""):
    return b"HTTP/1.1 " + status + b"\r\n" + extra + b"Content-Length: %d\r\n\r\n" % len(body) + body


def always(body=b"ok", **more):
    """Answers every request so."""
    def play(peer):
        while True:
            peer.request()
            peer.send(answer(body, **more))
    return play


class Upstream:
    def __init__(self, play):
        self.sock = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.dial = f"127.0.0.1:{self.sock.getsockname()[1]}"
        self.play, self.requests, self.connections = play, [], 0
        self.ended = []  # for what notes that connections end
        self.errors = []
        self.gate = threading.Event()  # for what is to wait
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        with contextlib.suppress(OSError):
            while True:
                peer = Peer(self.sock.accept()[0], self)
                self.connections += 1
                threading.Thread(target=self.run, args=(peer,), daemon=True).start()

    def run(self, peer):
        try:
            self.play(peer)
        except (OSError, EOFError):
            pass
        except Exception as e:  # pylint: disable=broad-except
            self.errors.append(e)
        peer.sock.close()

    def close(self):
        self.gate.set()
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)
        self.sock.close()
        if self.errors:
            raise self.errors[0]
