#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Static files through the whole program, on both I/O back ends, as TAP: the file matcher, listings,
conditions and ranges as exact bytes, files that change, hostile names. Usage: files_test.py PORTICO."""
import http.client
import json
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
        c = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=60)
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


HOSTILE = "<script>alert(1)</script>&\"'.html"


def browse_tree(s):
    s.put("b.txt", b"22")
    s.put("A.txt", b"1")
    s.put("dir/inner", b"")
    s.put("dir/.git/config", b"secret")
    s.put("secret.key", b"secret")
    s.put(HOSTILE.replace("/", "\u2044"), b"")
    os.symlink("dir", f"{s.root}/link")
    os.symlink("/nowhere", f"{s.root}/lost")
    os.mkfifo(f"{s.root}/pipe")
    with open(os.fsencode(s.root) + b"/bad\xff\n", "wb"):
        pass


def browse_programs(io):
    with Site(io, browse={}, hide=[".git", "*.key"]) as s:
        browse_tree(s)
        status, fields, body = s.ask("/", Accept="application/json")
        same((status, fields["content-type"], body[-1:]),
             (200, "application/json; charset=utf-8", b"\n"))
        same([v for v in fields["vary"].split(", ")], ["Accept", "Accept-Encoding"])
        items = json.loads(body)
        same([i["name"] for i in items], ["dir/", "link/", HOSTILE.replace("/", "\u2044"), "A.txt",
                                          "b.txt", "bad\ufffd\n", "lost", "pipe"])
        same(list(items[3]), ["name", "size", "url", "mod_time", "mode", "is_dir", "is_symlink"])
        same([items[3][k] for k in ("size", "url", "mode", "is_dir", "is_symlink")],
             [1, "./A.txt", 0o644, False, False])
        same((items[0]["mode"], items[0]["url"]), (0o755 | 1 << 31, "./dir/"))
        same((items[1]["mode"], items[1]["is_symlink"], items[1]["is_dir"]),
             (0o777 | 1 << 27, True, True))
        same((items[5]["url"], items[7]["mode"]), ("./bad%FF%0A", 0o644 | 1 << 25))
        assert b"\\u003cscript" in body and b"symlink_path" not in body
        names = [i["name"] for i in json.loads(s.ask(
            "/?sort=size&order=desc&limit=2&offset=1", Accept="application/json")[2])]
        same(len(names), 2)
        text = s.ask("/dir/", Accept="text/plain")[2]
        same(text.split(b"\n")[:2], [b"Name\tSize\tModified", b"----\t----\t--------"])
        same((text.split(b"\t")[4].split(b"\n")[1], text.count(b"\n")), (b"inner", 3))
        same(s.ask("/dir")[0::2][0], 308)
        same(s.ask("/dir?x=1")[1]["location"], "/dir/?x=1")
        same(s.ask("//dir/../dir/.")[1]["location"], "/dir/")
        same((s.ask("/dir/.git/")[0], s.ask("/none/")[0]), (404, 404))
        status, fields, _ = s.ask("/", "POST")
        same((status, fields["allow"]), (405, "GET, HEAD"))
        modified = s.ask("/", "HEAD")[1]["last-modified"]
        same(s.ask("/", If_Modified_Since=modified)[0::2], (304, b""))
        same(s.ask("/?sort=time")[1]["set-cookie"], "sort=time; HttpOnly; SameSite=Lax")
        same(s.raw(b"GET /pipe HTTP/1.0\r\n\r\n").split(b" ")[1], b"403")


def browse_people(io):
    with Site(io, browse={"reveal_symlinks": True, "file_limit": 50, "sort": ["name", "desc"]},
              hide=["*.key"]) as s:
        browse_tree(s)
        status, fields, body = s.ask("/?filter=&layout=grid")
        page = body.decode()
        same((status, fields["content-type"]), (200, "text/html; charset=utf-8"))
        nonce = fields["content-security-policy"].split("'nonce-")[1].split("'")[0]
        same(page.count(f'nonce="{nonce}"'), 2)
        assert "<script>alert" not in page and "&lt;script&gt;alert(1)" in page
        assert "secret" not in page and "http://" not in page and "https://" not in page
        assert "bad\ufffd\ufffd" in page and './bad%FF%0A"' in page
        assert "\u2192" in s.ask("/")[2].decode()
        page = s.ask("/?filter=%22%3E%3Cscript%3E")[2].decode()
        assert 'value="&#34;&gt;&lt;script&gt;"' in page and "No name contains" in page
        for i in range(60):
            s.put(f"many/{i}", b"")
        assert "Only 50 names" in s.ask("/many/")[2].decode()
        page = s.ask("/many/?limit=10&offset=10")[2].decode()
        assert 'rel="prev"' in page and 'rel="next"' in page and page.count("data-item>") == 10
        s.load([{"handle": [{"handler": "file_server", "browse": {}}]}])
        os.chmod(f"{s.root}/many", 0o311)
        same(s.ask("/many/7")[0], 200)


def refused(io):
    with Site(io) as s:
        for members, want in (({"browse": {"template_file": "x"}}, "template_file"),
                              ({"browse": {"sort": ["age"]}}, "the first option must be one of"),
                              ({"browse": {"sort": ["size", "up"]}}, "the second option"),
                              ({"browse": {"sort": ["size", "asc", "x"]}}, "only max 2 sort"),
                              ({"browse": {"nothing": 1}}, "nothing"), ({"fs": "s3"}, "s3"),
                              ({"precompressed": {"lzma": {}}}, "http.precompressed.lzma")):
            doc = s.server.document
            doc["apps"]["http"]["servers"]["srv0"]["routes"] = [
                {"handle": [{"handler": "file_server", **members}]}]
            status, text = s.server.api("POST", "/load", doc)
            assert status == 400 and want in text, (members, status, text)


def sidecars(io):
    files = {"a.css": b"plain", "a.css.gz": b"GZ", "a.css.br": b"BR", "a.css.etag": b'"mine"\n',
             "b.css": b"b", "b.css.zst": b"ZST"}
    with Site(io, files, precompressed={"gzip": {}, "br": {}, "zstd": {}},
              precompressed_order=["br", "gzip"], etag_file_extensions=[".sum", ".etag"]) as s:
        def packed(path, accept):
            status, fields, body = s.ask(path, Accept_Encoding=accept)
            same((status, fields["vary"]), (200, "Accept-Encoding"))
            return fields.get("content-encoding"), body
        same(packed("/a.css", "gzip, br"), ("br", b"BR"))
        same(packed("/a.css", "gzip, br;q=0.5"), ("gzip", b"GZ"))
        same(packed("/a.css", "gzip;q=0, br;q=0"), (None, b"plain"))
        same(packed("/a.css", "zstd"), (None, b"plain"))
        same(packed("/b.css", "zstd"), ("zstd", b"ZST"))
        same(s.ask("/a.css")[1]["etag"], '"mine"')
        same(s.ask("/a.css", If_None_Match='"mine"')[0], 304)
        assert s.ask("/b.css")[1]["etag"] != '"mine"'
        same(s.ask("/a.css", Accept_Encoding="br")[1]["content-type"], "text/css; charset=utf-8")


CASES = [
    ("listings for programs: JSON, text, order, window, hidden names", browse_programs),
    ("listings for people: escaped, without foreign resources, paged", browse_people),
    ("sidecars by the client's wish, then the server's; etag files", sidecars),
    ("what the file server does not have is refused by name", refused, ("epoll",)),
    ("the file matcher tries names, patterns, splits and statuses", try_files),
]

if __name__ == "__main__":
    run_cases(CASES)
