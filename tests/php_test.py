#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""php_fastcgi in front of Debian's php-fpm and a small application of several files, as TAP: a front
controller, PATH_INFO, forms and uploads, sessions, redirects, errors, scripts that are slow or stream.
Usage: php_test.py PORTICO [TEXT]."""
import contextlib
import glob
import hashlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

sys.dont_write_bytecode = True
from server import Skip, free_port, has, run_cases, same  # noqa: E402 (beside this file)

PORTICO = sys.argv[1]
FPM = sorted(glob.glob("/usr/sbin/php-fpm*")) or [None]

APPLICATION = {
    "public/index.php": """<?php
require __DIR__ . '/../lib/router.php';
route('GET', '/', fn() => 'home');
route('GET', '/hello', fn() => 'hello ' . ($_GET['name'] ?? 'you'));
route('POST', '/form', fn() => 'got ' . $_POST['a'] . ' and ' . $_POST['b']['c']);
route('POST', '/upload', function () {
    $f = $_FILES['file'];
    return $f['name'] . ' ' . $f['size'] . ' ' . md5_file($f['tmp_name']) . ' ' . $f['error'];
});
route('PUT', '/raw', fn() => md5(file_get_contents('php://input')));
route('GET', '/count', function () {
    session_save_path(getenv('SESSIONS') ?: $_SERVER['SESSIONS']);
    session_start();
    return 'visit ' . ($_SESSION['n'] = ($_SESSION['n'] ?? 0) + 1);
});
route('GET', '/go', function () { header('Location: /hello'); return ''; });
route('GET', '/moved', function () { header('Location: https://other.example/', true, 301); return ''; });
route('GET', '/server', fn() => json_encode($_SERVER));
http_response_code(404);
echo 'the application has no ', htmlspecialchars($_SERVER['REQUEST_URI']);
""",
    "lib/router.php": """<?php
function route($method, $path, $do) {
    $is = parse_url($_SERVER['REQUEST_URI'], PHP_URL_PATH);
    $asked = str_replace('HEAD', 'GET', $_SERVER['REQUEST_METHOD']);
    if ($asked !== $method || $is !== $path)
        return;
    echo $do();
    exit;
}
""",
    "public/info.php": "<?php echo $_SERVER['SCRIPT_NAME'], '|', $_SERVER['PATH_INFO'] ?? '';\n",
    "public/admin/index.php": "<?php echo 'admin';\n",
    "public/style.css": "body {}\n",
    "public/slow.php": "<?php usleep(((int)$_GET['ms']) * 1000); echo 'done';\n",
    "public/stream.php": """<?php
for ($i = 0; $i < 3; $i++) { echo "part $i\\n"; flush(); usleep(800000); }
""",
    "public/large.php": "<?php for ($i = 0; $i < 64; $i++) echo str_repeat(chr(65 + $i % 26), 65536);\n",
    "public/fails.php": "<?php error_log('it went wrong'); http_response_code(500); echo 'oops';\n",
    "public/send.php": "<?php header('X-Accel-Redirect: /style.css'); echo 'not this';\n",
    "public/up/photo.jpg": "<?php echo 'it was', ' run';\n",
    "public/up/photo.php.jpg": "<?php echo 'it was', ' run';\n",
    "public/up/photo.PHP": "<?php echo 'it was', ' run';\n",
    "public/up/folder.php/photo.jpg": "<?php echo 'it was', ' run';\n",
    "public/pid.php": "<?php echo getmypid();\n",
    "public/dies.php": "<?php echo 'half'; flush(); posix_kill(getmypid(), 9);\n",
}

POOL = """[global]
daemonize = no
error_log = {folder}/fpm.log
[www]
{user}
listen = {folder}/fpm.sock
listen.mode = 0666
pm = static
pm.max_children = 3
ping.path = /fpm-ping
catch_workers_output = yes
php_admin_value[upload_max_filesize] = 16M
php_admin_value[post_max_size] = 17M
php_admin_value[output_buffering] = 0
php_admin_value[upload_tmp_dir] = {folder}
"""

CADDYFILE = """{{
	admin off
	auto_https off
	debug
	skip_install_trust
}}
http://127.0.0.1:{port} {{
	root * {folder}/app/public
	encode gzip
	php_fastcgi unix/{folder}/fpm.sock {{
		env SESSIONS {folder}
		env WHO {{http.request.header.X-Who}}
		{options}
	}}
	file_server
	{more}
}}
"""

HANDLED = """
		@accel header X-Accel-Redirect *
		handle_response @accel {
			rewrite * {rp.header.X-Accel-Redirect}
			file_server
		}
"""


class Site:
    """php-fpm and portico, both of this test's own."""

    def __init__(self, io, options="", more=""):
        if FPM[0] is None:
            raise Skip("no php-fpm is installed")
        self.folder = tempfile.mkdtemp(prefix="portico-php-")
        os.chmod(self.folder, 0o777)
        for name, text in APPLICATION.items():
            os.makedirs(os.path.dirname(f"{self.folder}/app/{name}"), exist_ok=True)
            with open(f"{self.folder}/app/{name}", "w", encoding="utf-8") as f:
                f.write(text)
        user = "user = nobody\ngroup = nogroup" if os.geteuid() == 0 else ""
        self.write("fpm.conf", POOL.format(folder=self.folder, user=user))
        self.port = free_port()
        self.write("Caddyfile", CADDYFILE.format(folder=self.folder, port=self.port,
                                                 options=options, more=more))
        self.log = open(f"{self.folder}/log", "w+b")
        self.fpm = subprocess.Popen([FPM[-1], "-y", f"{self.folder}/fpm.conf", "-F"],
                                    stdout=subprocess.DEVNULL, stderr=self.log)
        self.server = subprocess.Popen(
            [PORTICO, "run", "--config", f"{self.folder}/Caddyfile", "--adapter", "caddyfile"],
            stdout=self.log, stderr=self.log,
            env={**os.environ, "PORTICO_IO": io, "PORTICO_WORKERS": "2",
                 "XDG_DATA_HOME": self.folder, "XDG_CONFIG_HOME": self.folder})
        try:
            self.wait(lambda: os.path.exists(f"{self.folder}/fpm.sock") and self.reached())
        except BaseException:
            self.end()
            raise

    def write(self, name, text):
        with open(f"{self.folder}/{name}", "w", encoding="utf-8") as f:
            f.write(text)

    def reached(self):
        return socket.create_connection(("127.0.0.1", self.port)).close() is None

    def wait(self, condition):
        end = time.monotonic() + 30
        while time.monotonic() < end:
            with contextlib.suppress(OSError):
                if condition():
                    return
            time.sleep(0.02)
        raise AssertionError("not reached; log: " + self.text()[-3000:])

    def text(self):
        with open(f"{self.folder}/log", encoding="utf-8", errors="replace") as f:
            return f.read()

    def ask(self, path="/", method="GET", body=None, **fields):
        c = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            c.request(method, path, body, fields)
            a = c.getresponse()
            self.fields = dict((k.lower(), v) for k, v in a.getheaders())
            return a.status, a.read().decode()
        finally:
            c.close()

    def end(self):
        late = [p.args[0] for p in (self.server, self.fpm) if not self.ended(p)]
        text = self.text()
        self.log.close()
        shutil.rmtree(self.folder)
        assert not late, f"{late} did not end; log: {text[-3000:]}"
        assert "Sanitizer" not in text and "assertion failed" not in text, text[-6000:]

    @staticmethod
    def ended(process):
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            return False
        return True


@contextlib.contextmanager
def site(io, options="", more=""):
    s = Site(io, options, more)
    try:
        yield s
    finally:
        s.end()


def application(io):
    with site(io) as s:
        same(s.ask("/"), (200, "home"))
        same(s.ask("/hello?name=w%C3%B6rld"), (200, "hello wörld"))
        same(s.ask("/index.php"), (404, "the application has no /index.php"))
        same(s.ask("/nowhere?x=<y>"), (404, "the application has no /nowhere?x=&lt;y&gt;"))
        same(s.ask("/info.php"), (200, "/info.php|"))
        same(s.ask("/info.php/some/path"), (200, "/info.php|/some/path"))
        same(s.ask("/admin/"), (200, "admin"))
        same((s.ask("/admin")[0], s.fields["location"]), (308, "/admin/"))
        same(s.ask("/style.css"), (200, "body {}\n"))
        same(s.ask("/nothing.php")[0], 404)
        same((s.ask("/go")[0], s.fields["location"]), (302, "/hello"))
        same((s.ask("/moved")[0], s.fields["location"]), (301, "https://other.example/"))
        same(s.ask("/hello", "HEAD"), (200, ""))
        seen = json.loads(s.ask("/server?q=1", **{"X-Who": "me", "Proxy": "evil"})[1])
        same([seen[k] for k in ("WHO", "REQUEST_URI", "SCRIPT_NAME", "QUERY_STRING", "DOCUMENT_ROOT",
                                "SCRIPT_FILENAME", "HTTP_X_WHO", "PHP_SELF")],
             ["me", "/server?q=1", "/index.php", "q=1", f"{s.folder}/app/public",
              f"{s.folder}/app/public/index.php", "me", "/index.php"])
        assert "HTTP_PROXY" not in seen


def uploads_stay_files(io):
    """What users have put there is no script, however it is asked for."""
    with site(io) as s:
        for path in ("photo.jpg/x.php", "photo.jpg/.php", "photo.jpg%2fx.php", "photo.jpg%20/x.php",
                     "photo.jpg%00.php", "photo.jpg/x.php/y", "photo.jpg/x.PHP", "photo.jpg/../x.php",
                     "x/..%2fphoto.jpg/x.php", "%2e/photo.jpg/x.php", "photo.jpg;x.php",
                     "photo.jpg%3fx.php", "photo.jpg?x.php", "photo.jpg.php", "photo.jpg", "photo.php.jpg",
                     "photo.php", "photo.PHP", "photo.PHP/x.php", "folder.php/photo.jpg",
                     "folder.php/photo.jpg/x.php", "folder.php"):
            for before in ("/up/", "//up//", "/x.php/../up/", "/up/./"):
                status, body = s.ask(before + path)
                assert "it was run" not in body, (before + path, status)
        same(s.ask("/up/photo.jpg"), (200, APPLICATION["public/up/photo.jpg"]))
        same(s.ask("/up/photo.jpg/x.php")[0], 404)


def forms(io):
    with site(io) as s:
        same(s.ask("/form", "POST", "a=1&b[c]=2", **{"Content-Type":
                                                     "application/x-www-form-urlencoded"}),
             (200, "got 1 and 2"))
        data = os.urandom(5 << 20)
        body = (b"--xyz\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a b.bin\"\r\n"
                b"Content-Type: application/octet-stream\r\n\r\n" + data + b"\r\n--xyz--\r\n")
        same(s.ask("/upload", "POST", body, **{"Content-Type": "multipart/form-data; boundary=xyz"}),
             (200, f"a b.bin {len(data)} {hashlib.md5(data).hexdigest()} 0"))
        for size in (1, 16384, 70000, 300001):
            same(s.ask("/raw", "PUT", data[:size]), (200, hashlib.md5(data[:size]).hexdigest()))


def sessions(io):
    with site(io) as s:
        same(s.ask("/count"), (200, "visit 1"))
        cookie = s.fields["set-cookie"].split(";")[0]
        for n in (2, 3):
            same(s.ask("/count", Cookie=f"other=1; {cookie}"), (200, f"visit {n}"))


def answers(io):
    with site(io, options="capture_stderr") as s:
        status, body = s.ask("/large.php")
        same((status, len(body)), (200, 64 * 65536))
        same(body[65535:65537], "AB")
        same(s.ask("/fails.php"), (500, "oops"))
        s.wait(lambda: "it went wrong" in s.text())
        has(s.text(), '"level":"error"', '"msg":"stderr"')
        c = http.client.HTTPConnection("127.0.0.1", s.port, timeout=30)
        c.request("GET", "/stream.php")
        a, start = c.getresponse(), time.monotonic()
        same(a.read(7), b"part 0\n")
        first = time.monotonic() - start
        same(a.read(), b"part 1\npart 2\n")
        assert time.monotonic() - start > first + 0.3
        c.close()


def failures(io):
    with site(io, options="read_timeout 1500ms", more="handle_errors {\n"
              "\t\trespond \"sorry: {err.status_code}\"\n\t}") as s:
        same(s.ask("/slow.php?ms=1"), (200, "done"))
        same(s.ask("/slow.php?ms=8000"), (504, "sorry: 504"))
        with contextlib.suppress(http.client.IncompleteRead, ConnectionError):
            raise AssertionError(f"whole: {s.ask('/dies.php')}")
        s.fpm.send_signal(signal.SIGTERM)
        s.fpm.wait(60)
        same(s.ask("/"), (502, "sorry: 502"))
        s.wait(lambda: re.search("fpm.sock.*(no such file|connection refused)", s.text()))


def handled(io):
    with site(io, options=HANDLED) as s:
        same(s.ask("/send.php"), (200, "body {}\n"))
        assert "x-accel-redirect" not in s.fields
        same(s.ask("/hello"), (200, "hello you"))


def resolved(io):
    class Linked(Site):
        def write(self, name, text):
            if name == "Caddyfile":
                os.symlink("app", f"{self.folder}/current")
                text = text.replace("/app/public", "/current/public")
            super().write(name, text)
    s = Linked(io, options="resolve_root_symlink")
    try:
        seen = json.loads(s.ask("/server")[1])
        same(seen["DOCUMENT_ROOT"], f"{s.folder}/app/public")
        same(seen["SCRIPT_FILENAME"], f"{s.folder}/app/public/index.php")
    finally:
        s.end()


def kept(io):
    """keepalive: requests go over connections that are kept, one for each worker here, and each ties a
    process to itself; what breaks one costs no other request."""
    with site(io, options="keepalive 1") as s:
        pids = {s.ask("/pid.php")[1] for _ in range(30)}
        assert len(pids) <= 2, pids
        data = os.urandom(300001)
        for _ in range(5):
            same(s.ask("/hello?name=x"), (200, "hello x"))
            same(s.ask("/raw", "PUT", data), (200, hashlib.md5(data).hexdigest()))
            same(s.ask("/hello", "HEAD"), (200, ""))
            same(len(s.ask("/large.php")[1]), 64 << 16)
            same(s.ask("/fails.php"), (500, "oops"))
        with contextlib.suppress(http.client.IncompleteRead, ConnectionError):
            raise AssertionError(f"whole: {s.ask('/dies.php')}")
        same({s.ask("/hello") for _ in range(10)}, {(200, "hello you")})


def checked(io):
    """Active health checks by php-fpm's own ping; they notice when it goes, and when it is back."""
    options = "health_uri /fpm-ping\n\t\thealth_body pong\n\t\thealth_interval 50ms\n\t\thealth_timeout 20s"
    with site(io, options=options) as s:
        s.wait(lambda: s.ask("/") == (200, "home"))  # a check may have come before its first process
        s.fpm.send_signal(signal.SIGTERM)
        s.fpm.wait(60)
        s.wait(lambda: s.ask("/")[0] == 503)
        s.fpm = subprocess.Popen(s.fpm.args, stdout=subprocess.DEVNULL, stderr=s.log)
        s.wait(lambda: s.ask("/") == (200, "home"))
        s.wait(lambda: "host is up" in s.text())


CASES = [
    ("an application of several files, with its paths, redirects and missing pages", application),
    ("an uploaded file is no script, however it is asked for", uploads_stay_files),
    ("forms, uploads of megabytes and raw bodies arrive whole", forms),
    ("sessions last", sessions),
    ("large answers, streamed ones, and what a script says on stderr", answers),
    ("slow and dying scripts, and a server that is gone, are errors that a site can handle", failures),
    ("handle_response sends a file that a script names", handled),
    ("a root that is a link is resolved when that is wanted", resolved),
    ("connections are kept when that is wanted", kept),
    ("health checks ask php-fpm itself", checked),
]

if __name__ == "__main__":
    run_cases(CASES, at_once=2)
