#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Static files through the whole program, on both I/O back ends, as TAP: the file matcher, listings,
conditions and ranges as exact bytes, files that change, hostile names. Usage: files_test.py PORTICO."""
import http.client
import os
import socket
import sys

from server import Server, run_cases, same


class Site:
    """A server and a folder of files; used as a context."""

    def __init__(self, io, files=None, handlers=None, environment=None, **file_server):
        self.files, self.io, self.environment = files or {}, io, environment
        self.handlers, self.file_server = handlers or [], file_server

    def __enter__(self):
        self.server = Server(sys.argv[1], self.io, environment=self.environment)
        self.root = f"{self.server.folder.name}/site"
        os.makedirs(self.root)
        for name, content in self.files.items():
            self.put(name, content)
        self.load([*self.handlers, {"handle": [{"handler": "file_server", **self.file_server}]}])
        return self

    def load(self, routes):
        doc = self.server.document
        doc["apps"]["http"]["servers"]["srv0"]["routes"] = [
            {"handle": [{"handler": "vars", "root": self.root}]}, *routes]
        status, text = self.server.api("POST", "/load", doc)
        assert status == 200, text

    def put(self, name, content, age=100):
        """`age`: how many seconds back its time lies, so that its bytes may be kept."""
        path = f"{self.root}/{name}"
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as f:
            f.write(content)
        if age:
            then = os.stat(path).st_mtime - age
            os.utime(path, (then, then))

    def __exit__(self, kind, value, trace):
        status = self.server.end()
        if kind is None:
            same(status, 0)

    def ask(self, path, method="GET", body=None, **fields):
        """Status, fields in lower case, body."""
        c = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=20)
        try:
            c.request(method, path, body,
                      headers={k.replace("_", "-"): v for k, v in fields.items()})
            answer = c.getresponse()
            return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
        finally:
            c.close()

    def raw(self, request, seconds=20):
        """Every byte that comes back until the server closes."""
        with socket.create_connection(("127.0.0.1", self.server.port), seconds) as c:
            c.sendall(request)
            answer = b""
            while piece := c.recv(65536):
                answer += piece
            return answer


def matched(pattern, **more):
    """A route that tells what the file matcher chose."""
    names = ("relative", "type", "remainder")
    text = "|".join(f"{{http.matchers.file.{n}}}" for n in names)
    return {"match": [{"file": {"try_files": pattern, **more}}], "terminal": True,
            "handle": [{"handler": "static_response", "body": text}]}


def try_files(io):
    files = {"a.txt": b"a", "dir/b.html": b"b", "dir/c.html": b"cc", "index.php": b"p", "[x].txt": b"x"}
    with Site(io, files) as s:
        s.load([matched(["{http.request.uri.path}", "{http.request.uri.path}/", "/dir/*.html"])])
        same(s.ask("/a.txt")[2], b"/a.txt|file|")
        same(s.ask("/dir")[2], b"/dir/|directory|")
        same(s.ask("/none")[2], b"/dir/b.html|file|")
        same(s.ask("/*.txt")[2], b"/dir/b.html|file|")
        same(s.ask("/%5Bx%5D.txt")[2], b"/[x].txt|file|")
        same(s.ask("/../../../etc/passwd")[2], b"/dir/b.html|file|")
        s.load([matched(["/*/?.html"], try_policy="largest_size")])
        same(s.ask("/")[2], b"/dir/c.html|file|")
        s.load([matched(["{http.request.uri.path}", "index.php"], split_path=[".php"])])
        same(s.ask("/index.php/some/where")[2], b"/index.php|file|/some/where")
        same(s.ask("/any/thing")[2], b"/index.php|file|")
        s.load([matched(["{http.request.uri.path}", "=410"])])
        same((s.ask("/a.txt")[0], s.ask("/none")[0]), (200, 410))
        s.load([{"match": [{"file": {"try_files": ["{http.request.uri.path}", "/a.txt"]}}],
                 "handle": [{"handler": "rewrite", "uri": "{http.matchers.file.relative}"}]},
                {"handle": [{"handler": "file_server"}]}])
        same([s.ask(p)[2] for p in ("/dir/b.html", "/none", "/%5Bx%5D.txt")], [b"b", b"a", b"x"])


CASES = [
    ("the file matcher tries names, patterns, splits and statuses", try_files),
]

if __name__ == "__main__":
    run_cases(CASES)
