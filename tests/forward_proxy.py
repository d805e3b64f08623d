# SPDX-License-Identifier: Apache-2.0
"""A forward proxy that a test plays: CONNECT, and requests for whole URLs."""
import base64
import contextlib
import re
import socket
import threading


class Proxy:
    def __init__(self, user=None):
        self.credentials = base64.b64encode(user.encode()).decode() if user else None
        self.asked = []  # "CONNECT host:port", "GET http://…"
        self.server = socket.create_server(("127.0.0.1", 0))
        self.port = self.server.getsockname()[1]
        self.url = f"http://{user + '@' if user else ''}127.0.0.1:{self.port}"
        threading.Thread(target=self.accept, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.server.close()

    def accept(self):
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=self.serve, args=(self.server.accept()[0],), daemon=True).start()

    def serve(self, client):
        with contextlib.suppress(OSError), client:
            head = b""
            while b"\r\n\r\n" not in head:
                piece = client.recv(65536)
                if not piece:
                    return
                head += piece
            lines, _, rest = head.partition(b"\r\n\r\n")
            method, target = lines.decode("latin-1").split(" ")[:2]
            self.asked.append(f"{method} {target}")
            if self.credentials and f"Basic {self.credentials}" not in lines.decode("latin-1"):
                client.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
                return
            if method == "CONNECT":
                where, first = target, rest
                client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            else:  # one request a connection
                where, path = re.match(r"http://([^/]+)(.*)", target).groups()
                first = lines.replace(target.encode(), path.encode() or b"/", 1)
                first += b"\r\nConnection: close\r\n\r\n" + rest
            host, _, port = where.rpartition(":")
            with socket.create_connection((host, int(port)), 60) as server:
                server.sendall(first)
                if method != "CONNECT":
                    self.answer_once(server, client)
                    return
                back = threading.Thread(target=self.pass_on, args=(server, client), daemon=True)
                back.start()
                self.pass_on(client, server)
                back.join(30)

    @staticmethod
    def answer_once(server, client):
        answer = b""
        while piece := server.recv(65536):
            answer += piece
        client.sendall(answer.replace(b"\r\n", b"\r\nConnection: close\r\n", 1))

    @staticmethod
    def pass_on(source, to):
        with contextlib.suppress(OSError):
            while piece := source.recv(65536):
                to.sendall(piece)
            to.shutdown(socket.SHUT_WR)
