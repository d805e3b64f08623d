#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""portico obtaining certificates from Pebble by itself: HTTP-01 and TLS-ALPN-01 on its own listeners,
DNS-01 with BIND and rfc2136, two instances with one storage, kill -9 at any moment. As TAP.
Usage: https_pebble_test.py PORTICO [TEXT]."""
import datetime
import glob
import http.client
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
from server import free_port  # noqa: E402 (beside this file)

PORTICO = sys.argv[1]
WANTED = sys.argv[2] if len(sys.argv) > 2 else ""
PEBBLE = shutil.which("pebble")
NAMED = shutil.which("named") or "/usr/sbin/named"
try:
    from cryptography import x509
    from acme_server import Chain, pem
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from dns_server import Names
except ImportError as e:
    PEBBLE = None
if PEBBLE is None:
    print("1..0 # SKIP pebble or python3-cryptography is missing")
    sys.exit(0)
TESTS = []


def test(sentence):
    return lambda function: TESTS.append((sentence, function))


def same(got, want):
    assert got == want, "got %r, want %r" % (got, want)


def wait_for(condition, seconds, what):
    deadline = time.time() + seconds
    while time.time() < deadline:
        if condition():
            return
        time.sleep(0.1)
    raise AssertionError("%s did not come" % (what() if callable(what) else what))


def listening(port):
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
        return True
    except OSError:
        return False


class World:
    def __init__(self, dns_port=None, **env):
        self.folder = tempfile.mkdtemp(prefix="https-")
        self.http, self.https, self.port, self.management = (free_port() for _ in range(4))
        self.make_certificate()
        self.dns_port = dns_port or Names(self.folder).port
        json.dump({"pebble": {
            "listenAddress": "127.0.0.1:%d" % self.port,
            "managementListenAddress": "127.0.0.1:%d" % self.management,
            "certificate": self.folder + "/chain.pem", "privateKey": self.folder + "/key.pem",
            "httpPort": self.http, "tlsPort": self.https, "ocspResponderURL": ""}},
            open(self.folder + "/pebble.json", "w"))
        env = dict({"PEBBLE_VA_NOSLEEP": "1", "PEBBLE_WFE_NONCEREJECT": "30",
                    "PEBBLE_AUTHZREUSE": "0"}, **env)
        self.log = open(self.folder + "/pebble.log", "w+")
        self.pebble = subprocess.Popen(
            [PEBBLE, "-config", self.folder + "/pebble.json", "-strict", "-dnsserver",
             "127.0.0.1:%d" % self.dns_port], env=dict(os.environ, **env), stdout=self.log,
            stderr=self.log)
        wait_for(lambda: listening(self.port) and listening(self.management), 20, "pebble")
        self.servers = []

    def make_certificate(self):
        root, key, now = Chain("Web"), ec.generate_private_key(ec.SECP256R1()), datetime.datetime.utcnow()
        certificate = (x509.CertificateBuilder().subject_name(x509.Name([])).issuer_name(root.name)
                       .public_key(key.public_key()).serial_number(7).not_valid_before(now)
                       .not_valid_after(now + datetime.timedelta(days=5))
                       .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), True)
                       .sign(root.key, hashes.SHA256()))
        open(self.folder + "/chain.pem", "w").write(pem(certificate) + pem(root.intermediate))
        open(self.folder + "/root.pem", "w").write(pem(root.root))
        open(self.folder + "/key.pem", "wb").write(key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption()))

    def __enter__(self):
        return self

    def __exit__(self, *args):
        for server in self.servers:
            self.stop(server)
        self.pebble.terminate()
        self.pebble.wait()
        text = self.portico_log()
        shutil.rmtree(self.folder, ignore_errors=True)
        assert "Sanitizer" not in text and "runtime error" not in text, text[-4000:]

    def portico_log(self):
        return "".join(open(p).read() for p in glob.glob(self.folder + "/portico*.log"))

    def config(self, names, challenges=None, http=None, https=None):
        issuer = {"module": "acme", "ca": "https://localhost:%d/dir" % self.port,
                  "email": "me@example.com", "trusted_roots_pem_files": [self.folder + "/root.pem"]}
        if challenges:
            issuer["challenges"] = challenges
        https = https or self.https
        return {"admin": {"disabled": True},
                "storage": {"module": "file_system", "root": self.folder + "/storage"},
                "apps": {"http": {"http_port": http or self.http, "https_port": https,
                                  "servers": {"srv0": {"listen": ["127.0.0.1:%d" % https], "routes": [
                                      {"match": [{"host": names}],
                                       "handle": [{"handler": "static_response", "body": "hello"}]}]}}},
                         "tls": {"automation": {"policies": [{"issuers": [issuer]}]}},
                         "pki": {"certificate_authorities": {"local": {"install_trust": False}}}}}

    def start(self, names, number=0, **options):
        path = self.folder + "/portico%d.json" % number
        json.dump(self.config(names, **options), open(path, "w"))
        log = open(self.folder + "/portico%d.log" % number, "a")
        env = dict(os.environ, HOME=self.folder, XDG_DATA_HOME=self.folder + "/data",
                   XDG_CONFIG_HOME=self.folder + "/config")
        server = subprocess.Popen([PORTICO, "run", "--config", path], env=env, stdout=log, stderr=log,
                                  start_new_session=True)
        self.servers.append(server)
        return server

    def stop(self, server, how=signal.SIGTERM):
        if server in self.servers:
            self.servers.remove(server)
        if how == signal.SIGKILL:
            os.killpg(server.pid, how)
        else:
            server.send_signal(how)
        server.wait(60)

    def roots(self):
        context = ssl.create_default_context(cafile=self.folder + "/root.pem")
        c = http.client.HTTPSConnection("localhost", self.management, context=context, timeout=10)
        c.request("GET", "/roots/0")
        return c.getresponse().read().decode()

    def get(self, name, port=None):
        context = ssl.create_default_context(cadata=self.roots())
        with socket.create_connection(("127.0.0.1", port or self.https), 5) as raw, \
                context.wrap_socket(raw, server_hostname=name) as s:
            s.sendall(b"GET / HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n" % name.encode())
            answer = b""
            while True:
                piece = s.recv(65536)
                if not piece:
                    return answer
                answer += piece

    def served(self, name, port=None):
        try:
            return b"hello" in self.get(name, port)
        except (OSError, ssl.SSLError):
            return False

    def await_served(self, name, port=None, seconds=60):
        wait_for(lambda: self.served(name, port), seconds,
                 lambda: "%s over https; %s" % (name, self.portico_log()[-3000:]))

    def accounts(self):
        text = open(self.folder + "/pebble.log").read()
        count = 0
        while "There are now %d accounts in memory" % (count + 1) in text:
            count += 1
        return count


@test("HTTP-01 and TLS-ALPN-01 are answered by the listeners that serve")
def _():
    for challenges in ({"tls-alpn": {"disabled": True}}, {"http": {"disabled": True}}):
        with World() as w:
            w.start(["a.example", "b.example"], challenges=challenges)
            w.await_served("a.example")
            w.await_served("b.example")
            same(w.accounts(), 1)
            assert glob.glob(w.folder + "/storage/certificates/localhost-%d-dir/a.example/a.example.crt"
                             % w.port)
            same(glob.glob(w.folder + "/storage/acme/*/challenge_tokens/*"), [])


class Bind:
    """named with one zone that a key may change."""

    def __init__(self):
        self.folder = tempfile.mkdtemp(prefix="bind-")
        os.chmod(self.folder, 0o777)
        self.port = free_port()
        open(self.folder + "/zone", "w").write(
            "$TTL 1\n@ IN SOA ns.example. host.example. 1 60 60 60 1\n@ IN NS ns.example.\n"
            "ns IN A 127.0.0.1\n* IN A 127.0.0.1\n@ IN A 127.0.0.1\n")
        open(self.folder + "/named.conf", "w").write("""
            options { directory "%(f)s"; listen-on port %(p)d { 127.0.0.1; }; listen-on-v6 { none; };
                      recursion no; pid-file "%(f)s/pid"; session-keyfile "%(f)s/session";
                      managed-keys-directory "%(f)s"; dnssec-validation no; };
            controls { };
            key "portico" { algorithm hmac-sha256; secret "c2VjcmV0c2VjcmV0c2VjcmV0"; };
            zone "example" { type primary; file "%(f)s/zone";
                             update-policy { grant portico zonesub TXT; }; };
            """ % {"f": self.folder, "p": self.port})
        os.chmod(self.folder + "/zone", 0o666)
        self.log = open(self.folder + "/log", "w")
        self.process = subprocess.Popen([NAMED, "-g", "-c", self.folder + "/named.conf"],
                                        stdout=self.log, stderr=self.log)
        wait_for(lambda: listening(self.port), 20, lambda: open(self.folder + "/log").read())

    def options(self):
        return {"dns": {"provider": {"name": "rfc2136", "key_name": "portico", "key_alg": "hmac-sha256",
                                     "key": "c2VjcmV0c2VjcmV0c2VjcmV0",
                                     "server": "127.0.0.1:%d" % self.port},
                        "resolvers": ["127.0.0.1:%d" % self.port]}}

    def stop(self):
        self.process.terminate()
        self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


@test("DNS-01 with BIND: a wildcard by rfc2136")
def _():
    if not os.path.exists(NAMED):
        return
    bind = Bind()
    try:
        with World(dns_port=bind.port) as w:
            w.start(["*.w.example", "w.example"], challenges=bind.options())
            w.await_served("x.w.example", seconds=90)
            w.await_served("w.example", seconds=90)
    finally:
        bind.stop()


@test("two instances with one storage have one account and one certificate")
def _():
    with World(PEBBLE_VA_ALWAYS_VALID="1") as w:
        other = free_port(), free_port()
        w.start(["a.example"], 0)
        w.start(["a.example"], 1, http=other[0], https=other[1])
        w.await_served("a.example")
        w.await_served("a.example", other[1])
        same(w.accounts(), 1)
        same(open(w.folder + "/pebble.log").read().count("Issued certificate serial"), 1)


@test("killed at any moment of the issuance: nothing is lost, no second account, and it goes on")
def _():
    with World(PEBBLE_VA_ALWAYS_VALID="1") as w:
        names = []
        for i in range(8):
            names.append("n%d.example" % i)
            server = w.start(names)
            time.sleep(random.random() * 3)
            w.stop(server, signal.SIGKILL)
            for path in glob.glob(w.folder + "/storage/**/*.*", recursive=True):
                if path.endswith((".key", ".crt")):
                    assert open(path).read().endswith("-----\n"), path
                elif path.endswith(".json"):
                    json.load(open(path))
        w.start(names)
        for name in names:
            w.await_served(name, seconds=120)
        same(w.accounts(), 1)


def main():
    done = failed = 0
    for sentence, function in TESTS:
        if WANTED not in sentence:
            continue
        done += 1
        try:
            function()
            print("ok %d - %s" % (done, sentence), flush=True)
        except Exception as e:
            failed += 1
            print("not ok %d - %s" % (done, sentence))
            print("# line %d: %s: %s" % (sys.exc_info()[2].tb_next.tb_lineno, type(e).__name__,
                                         str(e).replace("\n", "\n# ")), flush=True)
    print("1..%d" % done)
    return failed > 0


sys.exit(main())
