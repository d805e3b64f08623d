#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Sites with certificates of the local authority, as TAP: issued and verified, killed at any moment,
on disks that are full or read-only, and in one folder with Debian's Caddy. Usage:
local_https_test.py PORTICO."""
import json
import os
import random
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time

sys.dont_write_bytecode = True
from server import Skip, free_port, run_tests, same  # noqa: E402 (beside this file)

PORTICO = os.path.abspath(sys.argv[1])
CADDY = "/usr/bin/caddy"
NAMES = ["localhost", "a.internal", "b.internal", "127.0.0.1"]
LOCAL = "pki/authorities/local"


class Site:
    """A data folder, and a server of NAMES that keeps its certificates there."""

    def __init__(self, **authority):
        self.folder = tempfile.mkdtemp(prefix="portico-local-")
        self.storage = f"{self.folder}/data"
        self.port, self.plain = free_port(), free_port()
        self.process = None
        self.document = {
            "admin": {"disabled": True, "config": {"persist": False}},
            "storage": {"module": "file_system", "root": self.storage},
            "apps": {
                "pki": {"certificate_authorities": {"local": {"install_trust": False, **authority}}},
                "tls": {"automation": {"policies": [{"issuers": [{"module": "internal"}]}]}},
                "http": {"http_port": self.plain, "https_port": self.port, "servers": {"s": {
                    "listen": [f"127.0.0.1:{self.port}"], "protocols": ["h1"],
                    "automatic_https": {"disable_redirects": True},
                    "routes": [{"match": [{"host": NAMES}],
                                "handle": [{"handler": "static_response", "body": "hello"}]}]}}}}}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def start(self, program=PORTICO, prefix=()):
        path = f"{self.folder}/config.json"
        with open(path, "w", encoding="utf-8") as f:
            json.dump(self.document, f)
        env = dict(os.environ, HOME=self.folder, XDG_CONFIG_HOME=self.folder,
                   XDG_DATA_HOME=self.folder, PORTICO_WORKERS="1")
        self.log = open(f"{self.folder}/log", "w+b")
        self.process = subprocess.Popen([*prefix, program, "run", "--config", path], env=env,
                                        stdin=subprocess.DEVNULL, stdout=self.log,
                                        stderr=subprocess.STDOUT, start_new_session=True)

    def stop(self):
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.kill()
        text = self.text() if self.process is not None else ""
        self.process = None
        assert "Sanitizer" not in text, text

    def kill(self):
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def text(self):
        with open(f"{self.folder}/log", encoding="utf-8", errors="replace") as f:
            return f.read()

    def read(self, name):
        with open(f"{self.storage}/{name}", encoding="ascii") as f:
            return f.read()

    def wait(self, condition, seconds=40):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                if condition():
                    return
            except OSError:
                pass
            time.sleep(0.05)
        raise AssertionError("not reached; log: " + self.text()[-3000:])

    def serial(self, name):
        """Of the certificate that a verified handshake shows; the answer is looked at, too."""
        context = ssl.create_default_context(cafile=f"{self.storage}/{LOCAL}/root.crt")
        with socket.create_connection(("127.0.0.1", self.port), timeout=30) as raw, \
                context.wrap_socket(raw, server_hostname=name) as c:
            serial = c.getpeercert()["serialNumber"]
            c.sendall(f"GET / HTTP/1.1\r\nHost: {name}:{self.port}\r\nConnection: close\r\n\r\n".encode())
            answer = b""
            while piece := c.recv(4096):
                answer += piece
        assert answer.startswith(b"HTTP/1.1 200") and answer.endswith(b"hello"), answer
        return serial

    def serials(self):
        got = {}
        for name in NAMES:
            self.wait(lambda name=name: got.setdefault(name, self.serial(name)))
        return got


def check_whole(site):
    """Every certificate that is there has its key, and a chain to the root."""
    places = [(f"{site.storage}/{LOCAL}/intermediate.crt", f"{site.storage}/{LOCAL}/intermediate.key"),
              (f"{site.storage}/{LOCAL}/root.crt", f"{site.storage}/{LOCAL}/root.key")]
    for name in NAMES:
        base = f"{site.storage}/certificates/local/{name}/{name}"
        if os.path.exists(base + ".crt"):
            places.append((base + ".crt", base + ".key"))
    for certificate, key in places:
        public = [subprocess.run(["openssl", *words], capture_output=True, text=True, check=True).stdout
                  for words in (["x509", "-in", certificate, "-noout", "-pubkey"],
                                ["pkey", "-in", key, "-pubout"])]
        same(public[0], public[1])
        subprocess.run(["openssl", "verify", "-CAfile", f"{site.storage}/{LOCAL}/root.crt",
                        "-untrusted", f"{site.storage}/{LOCAL}/intermediate.crt", certificate],
                       capture_output=True, check=True)


def check_modes(site):
    for folder, _, names in os.walk(site.storage):
        same(oct(os.stat(folder).st_mode & 0o777), "0o700")
        for name in names:
            same(oct(os.stat(f"{folder}/{name}").st_mode & 0o777), "0o600")


def test_issued():
    """each name gets a certificate that verifies, keys 0600 and folders 0700; none is logged"""
    with Site() as s:
        s.start()
        first = s.serials()
        same(len(set(first.values())), len(NAMES))
        check_whole(s)
        check_modes(s)
        assert "PRIVATE KEY" not in s.text()
        s.stop()
        s.start()
        same(s.serials(), first)  # nothing is asked for twice


def test_killed():
    """killed at any moment while it makes and issues: 40 rounds, one root, nothing corrupt"""
    with Site() as s:
        root, seen = None, {}
        for number in range(40):
            s.start()
            time.sleep(random.uniform(0.02, 0.7))
            s.kill()
            if os.path.exists(f"{s.storage}/{LOCAL}/root.crt"):
                assert root in (None, s.read(f"{LOCAL}/root.crt")), "another root"
                root = s.read(f"{LOCAL}/root.crt")
            for name in NAMES:
                path = f"certificates/local/{name}/{name}.json"
                if os.path.exists(f"{s.storage}/{path}"):  # stored last: it was whole
                    now = s.read(path.replace(".json", ".crt"))
                    same(seen.setdefault(name, now), now)
            if number < 39:  # the last one's locks are waited for
                shutil.rmtree(f"{s.storage}/locks", ignore_errors=True)
        s.start()
        s.serials()
        check_whole(s)
        check_modes(s)
        left = [n for _, _, names in os.walk(s.storage) for n in names if n.endswith(".lock")]
        same(left, [])


def test_renewed():
    """the intermediate is made anew in time while it runs, and leaves that were issued go on"""
    with Site(intermediate_lifetime="20s", maintenance_interval="500ms",
              renewal_window_ratio=0.8) as s:
        s.start()
        s.wait(lambda: os.path.exists(f"{s.storage}/{LOCAL}/intermediate.crt"))
        before = s.read(f"{LOCAL}/intermediate.crt")
        s.wait(lambda: s.read(f"{LOCAL}/intermediate.crt") != before)
        s.wait(lambda: "renewed intermediate" in s.text())
        s.serials()
        check_modes(s)


def test_caddy():
    """Caddy goes on with our certificates, and we with Caddy's: none is issued twice"""
    if not os.access(CADDY, os.X_OK):
        raise Skip("there is no /usr/bin/caddy")
    for first, second in ((PORTICO, CADDY), (CADDY, PORTICO)):
        with Site() as s:
            s.start(first)
            serials = s.serials()
            s.stop()
            s.start(second)
            same(s.serials(), serials)
            s.stop()
            s.start(first)
            same(s.serials(), serials)
            check_modes(s)


def test_together():
    """two servers that begin together in one folder share one authority and one set of certificates"""
    with Site() as a, Site() as b:
        b.storage = a.storage
        b.document["storage"] = a.document["storage"]
        a.start()
        b.start()
        same(a.serials(), b.serials())
        check_whole(a)


def on_disk(options, prepare=None):
    """A prefix that runs a program where the data folder is a file system of its own."""
    if os.geteuid() != 0 or subprocess.run(["unshare", "--mount", "true"], check=False,
                                           capture_output=True).returncode:
        raise Skip("no file system may be mounted here")
    def prefix(s):
        os.makedirs(s.storage, exist_ok=True)
        words = f"mount {options} && {prepare or 'true'} && exec \"$@\""
        return ["unshare", "--mount", "--propagation", "private", "sh", "-c",
                words.replace("DATA", s.storage), "sh"]
    return prefix


def test_full():
    """a disk that is full is told in a sentence, and nothing half-written is left for the next start"""
    prefix = on_disk("-t tmpfs -o size=16k none DATA", "head -c 12000 /dev/zero > DATA/filler")
    with Site() as s:
        s.start(prefix=prefix(s))
        same(s.process.wait(60), 1)
        assert "No space left on device" in s.text(), s.text()
        assert s.storage in s.text()
        s.start()
        s.serials()


def test_read_only():
    """from a read-only folder it serves what is there; what cannot be kept is told with its reason"""
    prefix = on_disk("--bind DATA DATA", "mount -o remount,bind,ro DATA")
    with Site() as s:
        s.start()
        serials = s.serials()
        s.stop()
        shutil.rmtree(f"{s.storage}/certificates/local/b.internal")
        s.start(prefix=prefix(s))
        for name in NAMES:
            if name != "b.internal":
                s.wait(lambda name=name: s.serial(name))
                same(s.serial(name), serials[name])
        s.wait(lambda: "Read-only file system" in s.text())
        s.stop()
        s.start()
        s.wait(lambda: s.serial("b.internal"))


TESTS = [test_issued, test_killed, test_renewed, test_caddy, test_together, test_full, test_read_only]


sys.exit(run_tests([(test.__doc__, test) for test in TESTS]) > 0)
