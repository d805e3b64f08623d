#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The same Caddyfiles and requests to portico and to Debian's Caddy, answers compared byte by byte, as
TAP. What newer versions of Caddy do otherwise is listed in NEWER, with the reason; names of servers,
dates, and the forms of entity tags do not count. Usage: oracle_test.py PORTICO."""
import gzip
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time

CADDY = shutil.which("caddy")
VERSION = "2.6.2"  # whose differences from the newest are listed below
GZIP = "Accept-Encoding: gzip"
HASH = ("JDJhJDA1JENDQ0NDQ0NDQ0NDQ0NDQ0NDQ0NDQy5FNVlQTzlrbXl1UkdZaDBYb3VRWWI0WU1KS3Z5T2VX")

NEWER = {
    ("files", "/a.txt/"): "a file with a slash at its end is redirected",
    ("files", "/sub?x=1&y=2"): "a redirect of the file server keeps the query",
    ("files", "POST /a.txt"): "405 for what is neither GET nor HEAD",
    ("files", "/sp%20dir"): "Caddy leaves a space in Location, which is no URI",
    ("files", "/zero.txt Range: bytes=0-"): "Go 1.20: a range of nothing is the whole",
    ("header", "/after"): "'>' sets a field when the answer leaves",
    ("match", "/z?k=v"): "all keys of a query matcher must match",
    ("match", "/z X-R: v12"): "{re.1} without a name",
    ("encode", "/big.html Accept-Encoding: gzip Cache-Control: no-transform"): "is obeyed",
    ("encode", "HEAD /big.html Accept-Encoding: gzip"): "Caddy tells the length of an empty gzip stream",
}

CASES = {
    "files": ("root * {$SITE}\nfile_server\n", [
        "/", "/a.txt", "/sub", "/sub/", "/sub/index.html", "/empty/", "/nope", "/a.txt/", "/sp%20dir",
        "/.hidden", "/noext", "/zero.txt", "HEAD /a.txt", "POST /a.txt", "/a.txt Range: bytes=0-3",
        "/a.txt Range: bytes=-5", "/a.txt Range: bytes=0-1,5-6", "/a.txt Range: bytes=0-9999",
        "/zero.txt Range: bytes=0-", "/a.txt If-None-Match: *", '/a.txt If-Match: "x"',
        "/a.txt If-Modified-Since: Tue, 14 Nov 2023 22:13:20 GMT", '/a.txt Range: bytes=0-1 If-Range: "x"',
        "//a.txt", "/./a.txt", "/sub/../a.txt", "/sub%2findex.html", "/../../etc/passwd",
        "/sub?x=1&y=2", "/sub/.", "/sub/..", "//sub", "/\\evil"]),
    "errors": ("root * {$SITE}\nhandle_errors {\n header X-Err {err.status_code}\n"
               " rewrite * /404.html\n file_server\n}\nerror /gone \"it is\" 410\nfile_server\n",
               ["/", "/nope", "HEAD /nope", "/gone"]),
    "spa": ("root * {$SITE}\nencode gzip\nhandle /api/* {\n reverse_proxy 127.0.0.1:{$UP}\n}\nhandle {\n"
            " try_files {path} {path}/ /index.html\n file_server\n}\nheader ?Cache-Control no-cache\n",
            ["/", "/login", "/api/x?y=1", "/sub", "/sub/", f"/login {GZIP}", "//", "/%2e%2e/x"]),
    "handle": ("handle /api/* {\n respond \"api {path}\"\n}\nhandle_path /strip/* {\n"
               " respond \"[{path}] [{uri}] [{http.request.orig_uri}]\"\n}\nroute /r/* {\n header X-A 1\n"
               " respond /r/x rx\n respond \"r {path}\" 201\n}\nhandle {\n respond \"{method} {host} "
               "{port} {scheme} {query} {file} {dir} {http.request.uri.path.0}\" 404\n}\n",
               ["/", "/api", "/api/x", "/strip", "/strip/a%20b?c=1", "/strip//x", "/STRIP/A", "/r/x", "/r/y",
                "//api/x", "/%61pi/x", "/api%2fx", "/./api/x", "/x/../api/x", "FOO /", "OPTIONS /"]),
    "redir": ("redir /a /b\nredir /p https://x.example{uri} permanent\nredir /307 /b 307\n"
              "redir /401 /login 401\nredir /old/* /new{path}?{query}\n@n path_regexp n ^/n/(.*)$\n"
              "redir @n https://{re.n.1}/ 302\n",
              ["/a", "/p?x=1", "/307", "/401", "/old/x?z=1", "/old/%0d%0aX:y", "/n/abc.d", "POST /a"]),
    "rewrite": ("rewrite /a /b\nrewrite /q /b?x=1\nrewrite /q2 /b?x=1&{query}\nrewrite /q3 ?y=2\n"
                "rewrite /f/* /index.php?p={path}#frag\nuri /sp/* strip_prefix /sp\n"
                "uri /ss/* strip_suffix .html\nuri /rp/* replace foo bar\nuri /rx/* path_regexp /{2,} /\n"
                "respond \"{uri} | {path} | {query} | {http.request.orig_uri}\"\n",
                ["/a?k=1", "/q?z=2", "/q2", "/q3?z=1", "/f/x%20y?z", "/sp/x%2fy", "/sp//x", "/sp/",
                 "/ss/a.html?x=.html", "/rp/foo?foo=foo", "/rx//a///b", "/%73p/x"]),
    "header": ("header X-A one\nheader +X-A two\nheader /d {\n X-D yes\n -X-A\n defer\n}\nheader ?X-B dflt\n"
               "header /b X-B set\nheader /r X-R abcabc\nheader /r X-R b Z\nheader /after >X-After yes\n"
               "header /lines Content-Security-Policy \"a 'self';\n b 'none'\"\nheader /w -X-*\n"
               "request_header X-Req in\nrequest_header -User-Agent\n"
               "respond \"{header.X-Req} {header.User-Agent}\"\n",
               ["/", "/d", "/b", "/r", "/after", "/lines", "/w", "/ User-Agent: x"]),
    "match": ("@h host a.example *.b.example\nrespond @h h\n@hd header X-A foo*\nrespond @hd hd\n"
              "@q query k=v z=*\nrespond @q q\n@m method DELETE PATCH\nrespond @m m\n"
              "@n {\n not path /nn/*\n path /n*\n}\nrespond @n n\n"
              "@ex expression `{path}.startsWith(\"/ex\") && {query.a} == \"1\"`\nrespond @ex ex\n"
              "@hr header_regexp X-R ^v(\\d+)\nrespond @hr \"hr {re.1}\"\n@p path /a/* *.php /mid*end\n"
              "respond @p p\nrespond none\n",
              ["/a/b", "/a", "/A/B", "/x/y.PHP", "/mid/x/end", "/z X-A: foobar", "/z?k=v", "/z?k=v&z=",
               "DELETE /z", "/nn/x", "/nx", "/ex?a=1", "/ex?a=2", "/z X-R: v12", "/a%2fb", "/a/%2e%2e/z"]),
    "auth": (f"basicauth /a/* {{\n bob {HASH}\n}}\nhandle_errors {{\n respond E{{err.status_code}}\n}}\n"
             "respond \"hi {http.auth.user.id}\"\n",
             ["/", "/a/x", "/a/x Authorization: Basic Ym9iOlUqVQ==", "/a/x Authorization: Basic !!",
              "/a/x Authorization: basic Ym9iOlUqVQ==", "//a/x", "/%61/x", "/A/x", "HEAD /a/x"]),
    "map": ("map {path} {x} {y} {\n /a 1 one\n /b 2 \"two {method}\"\n ~^/c(.*)$ 3 \"c${1}\"\n"
            " default unknown \"unk nown\"\n}\nvars k1 v1\nrespond \"{x} {y} {vars.k1} {cookie.c}\"\n",
            ["/a", "/b", "/cxx", "/e", "/e Cookie: a=1 Cookie: c=2"]),
    "encode": ("root * {$SITE}\nencode gzip\nrespond /s short\nfile_server\n",
               ["/big.html", f"/big.html {GZIP}", f"HEAD /big.html {GZIP}", f"/a.txt {GZIP}", f"/s {GZIP}",
                "/big.html Accept-Encoding: gzip;q=0", "/big.html Accept-Encoding: *",
                f"/big.html {GZIP} Cache-Control: no-transform", f"/nope {GZIP}"]),
    "proxy": ("reverse_proxy /x/* 127.0.0.1:{$UP}\nreverse_proxy 127.0.0.1:{$UP} {\n"
              " header_up X-In \"v {remote_host} {host}\"\n header_up -X-Del\n header_up +X-Add two\n"
              " header_down X-Down d\n header_down -X-Up\n @e status 404\n handle_response @e {\n"
              "  respond \"handled {rp.status_code} {rp.header.X-Up}\" 418\n }\n}\n",
              ["/", "/x/y?z=1", "/a%20b%2fc?q=%20", "HEAD /", "POST /", "FOO /", "/x//y/../z", "/st/404",
               "/x/st/404", "/x/a X-Forwarded-For: 1.2.3.4 Forwarded: for=x", "/ X-Del: 1 X-Add: one",
               "/x Connection: X-Foo X-Foo: 1 Keep-Alive: 5", "/x/close", "/x/garbage",
               '/x/[x]{y}|"<>^`?q="<>`{', "/x/%7Ex/%41;b=c,d!$&()*+=:@"]),
}


def make_site(root):
    files = {"index.html": b"<h1>hello</h1>\n", "a.txt": b"0123456789" * 10, "sub/index.html": b"sub",
             "empty/x": b"x", "sp dir/index.html": b"d", ".hidden": b"h", "noext": b"plain",
             "zero.txt": b"", "404.html": b"my 404", "big.html": b"<p>some text</p>\n" * 2000}
    for name, content in files.items():
        path = f"{root}/{name}"
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as f:
            f.write(content)
        os.utime(path, (1700000000, 1700000000))


def echo(c):
    """An upstream that tells what came, but for what newer versions add."""
    f = c.makefile("rb")
    while line := f.readline():
        head = [line]
        while (more := f.readline().strip()) != b"":
            head.append(more)
        path = line.split()[1]
        if path.endswith((b"/close", b"/garbage")):
            c.sendall(b"garbage\r\n\r\n" if path.endswith(b"/garbage") else b"")
            break
        status = b"404 Not Found" if path.endswith(b"/404") else b"200 OK"
        told = sorted(x for x in head[1:] if not re.match(rb"(?i)via:|accept-encoding:", x))
        body = b"" if line.startswith(b"HEAD") else b"\n".join([line.strip(), *told])
        c.sendall(b"HTTP/1.1 " + status + b"\r\nContent-Type: text/plain\r\nX-Up: yes\r\n"
                  b"Content-Length: %d\r\n\r\n" % len(body) + body)
    f.close()
    c.close()


def upstream():
    listener = socket.create_server(("127.0.0.1", 0), backlog=64)

    def accept():
        while True:
            c, _ = listener.accept()
            threading.Thread(target=echo, args=(c,), daemon=True).start()
    threading.Thread(target=accept, daemon=True).start()
    return listener.getsockname()[1]


class Program:
    def __init__(self, binary, caddyfile, folder, **environment):
        with socket.create_server(("127.0.0.1", 0)) as s:
            self.port = s.getsockname()[1]
        os.makedirs(folder)
        with open(f"{folder}/Caddyfile", "w") as f:
            f.write("{\n\tadmin off\n\tauto_https off\n}\n:{$PORT}\n" + caddyfile)
        self.log = open(f"{folder}/log", "w+")
        self.process = subprocess.Popen(
            [binary, "run", "--config", f"{folder}/Caddyfile", "--adapter", "caddyfile"], stdout=self.log,
            stderr=self.log, env={**os.environ, **environment, "PORT": str(self.port), "HOME": folder,
                                  "XDG_CONFIG_HOME": folder, "XDG_DATA_HOME": folder})
        for _ in range(600):
            try:
                socket.create_connection(("127.0.0.1", self.port)).close()
                return
            except OSError:
                time.sleep(0.05)
        self.end()
        self.log.seek(0)
        raise RuntimeError(f"{binary} does not start: {self.log.read()[-2000:]}")

    def end(self):
        self.process.terminate()
        self.process.wait(30)

    def ask(self, text):
        """Status line, sorted fields, body."""
        words = re.match(r"(?:([A-Z]+) )?(\S+)((?: [\w-]+: .*)?)$", text)
        fields = re.sub(r" (?=[A-Z][\w-]*: )", "\r\n", words[3])
        request = f"{words[1] or 'GET'} {words[2]} HTTP/1.1\r\nHost: localhost{fields}\r\n"
        with socket.create_connection(("127.0.0.1", self.port), 30) as c:
            c.sendall((request + "Connection: close\r\n\r\n").encode())
            answer = b""
            while piece := c.recv(65536):
                answer += piece
        return usual(answer)


def usual(answer):
    """An answer without what may differ."""
    head, _, body = answer.partition(b"\r\n\r\n")
    status, *fields = head.decode("latin-1").split("\r\n")
    chunked, packed = "Transfer-Encoding: chunked" in fields, "Content-Encoding: gzip" in fields
    if chunked:
        whole = b""
        while (size := int(body.split(b"\r\n")[0], 16)) > 0:
            body = body.split(b"\r\n", 1)[1]
            whole, body = whole + body[:size], body[size + 2:]
        body = whole
    if packed and body:
        body = gzip.decompress(body)
    fields = [re.sub(r"(?i)^(etag): .*|(?<=boundary=).*", r"\1", f) for f in fields]
    parts = any("multipart/byteranges" in f for f in fields)
    body = re.sub(rb"(?m)^--[0-9a-f]{30,}", b"--", body)
    ignored = "date: |server: |via: |connection: |vary: accept-encoding$|content-length: 0$"
    ignored += "|content-length: |transfer-encoding: " if parts or packed else ""
    return [status, *sorted(f for f in fields if not re.match(ignored, f.lower())), body]


def compare(name, folder, site, up):
    caddyfile, requests = CASES[name]
    environment = {"SITE": site, "UP": str(up)}
    programs = [Program(binary, caddyfile, f"{folder}/{name}-{i}", **environment)
                for i, binary in enumerate((CADDY, os.path.abspath(sys.argv[1])))]
    wrong = []
    try:
        for request in requests:
            want, got = (p.ask(request) for p in programs)
            if want != got and (name, request) not in NEWER:
                wrong.append(f"{request}\n  Caddy:   {want}\n  portico: {got}")
    finally:
        for p in programs:
            p.end()
    return wrong


def main():
    version = CADDY and subprocess.run([CADDY, "version"], capture_output=True, text=True).stdout
    if not version or VERSION not in version:
        print(f"1..0 # SKIP Caddy {VERSION} is not installed")
        return
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        make_site(f"{folder}/site")
        up = upstream()
        for n, name in enumerate(CASES, 1):
            try:
                wrong = compare(name, folder, f"{folder}/site", up)
            except Exception as e:  # every failure is a line, the others still run
                wrong = [f"{type(e).__name__}: {e}"]
            failed |= bool(wrong)
            print(f"{'not ' if wrong else ''}ok {n} - {name}: answers are Caddy's", flush=True)
            for line in "\n".join(wrong).split("\n") if wrong else []:
                print("# " + line[:1000], flush=True)
    print(f"1..{len(CASES)}")
    sys.exit(failed)


main()
