#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Caddyfiles through the whole program, as TAP: run, reload, the admin API, validate, environment
files, what an error looks like. Usage: caddyfile_test.py PORTICO [TEXT]."""
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time

sys.dont_write_bytecode = True
from server import free_port, run_cases, same  # noqa: E402 (beside this file)

PORTICO = sys.argv[1]


class Site:
    """portico run on a Caddyfile in a folder of its own; `text` may hold PORT, ADMIN and FOLDER."""

    def __init__(self, io, text, arguments=(), files=(), environment=None):
        self.port, self.admin = free_port(), free_port()
        self.folder = tempfile.TemporaryDirectory(prefix="portico-caddyfile-")
        for name, content in (("Caddyfile", "{\n\tadmin localhost:ADMIN\n}\n" + text), *files):
            self.write(name, content)
        self.log = open(f"{self.folder.name}/log", "w+b")
        self.process = subprocess.Popen(
            [PORTICO, "run", *arguments], cwd=self.folder.name, stdout=self.log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PORTICO_IO": io, "PORTICO_WORKERS": "1", "HOME": self.folder.name,
                 **(environment or {})})
        self.wait(lambda: self.get() is not None)

    def write(self, name, text):
        text = text.replace("PORT", str(self.port)).replace("ADMIN", str(self.admin))
        with open(f"{self.folder.name}/{name}", "w", encoding="utf-8") as f:
            f.write(text.replace("FOLDER", self.folder.name))

    def get(self, path="/", host="localhost"):
        c = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            c.request("GET", path, headers={"Host": host})
            answer = c.getresponse()
            return answer.status, answer.read().decode()
        finally:
            c.close()

    def post(self, path, text, kind="text/caddyfile"):
        c = http.client.HTTPConnection("127.0.0.1", self.admin, timeout=60)
        try:
            text = text.replace("PORT", str(self.port)).replace("ADMIN", str(self.admin))
            c.request("POST", path, text.encode(),
                      {"Host": f"localhost:{self.admin}", "Content-Type": kind})
            answer = c.getresponse()
            return answer.status, answer.read().decode()
        finally:
            c.close()

    def text(self):
        with open(f"{self.folder.name}/log", encoding="utf-8", errors="replace") as f:
            return f.read()

    def wait(self, condition, seconds=30):
        end = time.monotonic() + seconds
        while True:
            try:
                if condition():
                    return
            except OSError:
                pass
            assert self.process.poll() is None and time.monotonic() < end, self.text()[-3000:]
            time.sleep(0.02)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        text = self.text()
        self.log.close()
        self.folder.cleanup()
        assert "Sanitizer" not in text and "assertion failed" not in text, text[-6000:]


def command(*arguments, text=None, name="Caddyfile"):
    """Exit status, stdout and stderr of a command in a folder with that Caddyfile."""
    with tempfile.TemporaryDirectory(prefix="portico-caddyfile-") as folder:
        if text is not None:
            with open(f"{folder}/{name}", "w", encoding="utf-8") as f:
                f.write(text)
        done = subprocess.run([PORTICO, *arguments], cwd=folder, stdin=subprocess.DEVNULL,
                              env={**os.environ, "HOME": folder}, capture_output=True, text=True,
                              timeout=60, check=False)
        return done.returncode, done.stdout, done.stderr


def sites(io):
    text = """http://a.test:PORT {
	@old path /old/*
	redir @old /new{uri}
	handle /api/* {
		respond "api {path}" 201
	}
	handle {
		root * FOLDER/www
		file_server
	}
}
http://b.test:PORT {
	header X-Site b
	respond "b"
}
:PORT {
	respond "any"
}
"""
    with Site(io, text) as s:
        os.mkdir(f"{s.folder.name}/www")
        s.write("www/index.html", "home")
        same(s.get("/", "a.test"), (200, "home"))
        same(s.get("/api/x", "a.test"), (201, "api /api/x"))
        same(s.get("/old/x", "a.test")[0], 302)
        same(s.get("/", "b.test"), (200, "b"))
        same(s.get("/", "c.test"), (200, "any"))


def reload_by_signal(io):
    with Site(io, ":PORT {\n\trespond one\n}\n") as s:
        same(s.get(), (200, "one"))
        s.write("Caddyfile", "{\n\tadmin localhost:ADMIN\n}\n:PORT {\n\trespond two\n}\n")
        s.process.send_signal(signal.SIGUSR1)
        s.wait(lambda: s.get() == (200, "two"))
        s.write("Caddyfile", ":PORT {\n\trespnd three\n}\n")
        s.process.send_signal(signal.SIGUSR1)
        s.wait(lambda: "did you mean 'respond'" in s.text())
        same(s.get(), (200, "two"))


def admin(io):
    with Site(io, ":PORT {\n\trespond one\n}\n") as s:
        status, text = s.post("/adapt", ":PORT\nrespond hi\n")
        same(status, 200)
        listen = json.loads(text)["result"]["apps"]["http"]["servers"]["srv0"]["listen"]
        same(listen, [f":{s.port}"])
        status, text = s.post("/load", ":PORT {\n\trespond\n}\n")
        same(status, 400)
        assert "wrong argument count" in text, text
        same(s.get(), (200, "one"))
        status, text = s.post("/load", "{\n\tadmin localhost:ADMIN\n}\n:PORT {\n\trespond two\n}\n")
        same(status, 200)
        s.wait(lambda: s.get() == (200, "two"))
        same(s.post("/adapt", "x", "text/unknown")[0], 400)


def environment_file(io):
    files = [("env", "NAME=from-file\nGIVEN=file\n")]
    with Site(io, ":PORT {\n\trespond \"{$NAME} {$GIVEN} {$NONE:default}\"\n}\n",
              ("--envfile", "env"), files, {"GIVEN": "environment"}) as s:
        same(s.get(), (200, "from-file environment default"))


def imports(io):
    files = [("snippets.conf", "(greet) {\n\trespond \"hello {args[0]}\"\n}\n")]
    with Site(io, "import snippets.conf\n:PORT {\n\timport greet world\n}\n", files=files) as s:
        same(s.get(), (200, "hello world"))


def errors_show_the_place(io):
    status, out, said = command("adapt", text=":80 {\n\thandle {\n\t\trespond a b c\n\t}\n}\n")
    same((status, out), (1, ""))
    assert re.search(r"Caddyfile:3:15\n +respond a b c\n +\^", said), said
    assert "at Caddyfile:3" in said, said


def warnings_are_told(io):
    status, out, said = command("adapt", text=":80 {\n respond hi\n}\n")
    same(status, 0)
    assert "Caddyfile input is not formatted" in said and json.loads(out)["apps"], said
    same(command("adapt")[0], 1)
    same(command("adapt", "--adapter", "nginx", text=":80")[0], 1)
    same(command("adapt", "--validate", text=":8080 {\n\trespond hi\n}\n")[0], 0)
    same(command("adapt", "--validate", text=":80 {\n\t@x path_regexp (\n\trespond @x hi\n}\n")[0], 1)


BOTH = ("epoll", "uring")
ONE = ("epoll",)
run_cases([
    ("a Caddyfile's sites answer by their hosts, directives in their order", sites, BOTH),
    ("SIGUSR1 takes the Caddyfile again; a wrong one changes nothing", reload_by_signal, BOTH),
    ("the admin API adapts and loads Caddyfiles", admin, BOTH),
    ("variables of a file are there unless the environment has them", environment_file, ONE),
    ("snippets of another file are imported with arguments", imports, ONE),
    ("an error shows file, line, column, the line and a mark", errors_show_the_place, ONE),
    ("adapt tells warnings on stderr and validates when asked", warnings_are_told, ONE),
])
