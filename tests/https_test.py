#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""HTTPS through the whole program, as TAP: certificates of the configuration and of the local
authority, automatic redirects, who is let in, reloads and the end. Usage: https_test.py PORTICO
[TEXT]."""
import http.client
import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.request

sys.dont_write_bytecode = True
from server import SANDBOX, Skip, free_port, run_cases, same  # noqa: E402 (beside this file)

PORTICO = sys.argv[1]
KEYS = tempfile.TemporaryDirectory(prefix="portico-https-keys-")


def openssl(*arguments):
    done = subprocess.run(["openssl", *arguments], cwd=KEYS.name, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def make_ca(name):
    openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
            "-keyout", f"{name}.key", "-out", f"{name}.pem", "-subj", f"/CN={name}", "-days", "30",
            "-addext", "keyUsage=keyCertSign")


def make_leaf(name, ca, names, subject=None, extra=""):
    openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout",
            f"{name}.key", "-out", f"{name}.csr", "-subj", subject or f"/O={name}/CN={names[0]}")
    with open(f"{KEYS.name}/{name}.ext", "w", encoding="ascii") as f:
        f.write("subjectAltName=" + ",".join(
            ("IP:" if re.fullmatch(r"[\d.]+|.*:.*", n) else "DNS:") + n for n in names) + "\n" + extra)
    openssl("x509", "-req", "-in", f"{name}.csr", "-CA", f"{ca}.pem", "-CAkey", f"{ca}.key",
            "-CAcreateserial", "-days", "30", "-extfile", f"{name}.ext", "-out", f"{name}.pem")


def make_keys():
    make_ca("ca")
    make_ca("people")
    make_ca("strangers")
    make_leaf("web", "ca", ["localhost", "127.0.0.1"])
    for name in ("a.test", "b.test", "other.test"):
        make_leaf(name, "ca", [name])
    make_leaf("star", "ca", ["*.star.test"])
    make_leaf("second", "ca", ["a.test"])
    for who, ca in (("alice", "people"), ("bob", "people"), ("mallory", "strangers")):
        make_leaf(who, ca, [who], extra="extendedKeyUsage=clientAuth\n")


def key(name):
    return f"{KEYS.name}/{name}"


class Site:
    """portico run on a Caddyfile (or a JSON document) in a folder of its own. HTTP, HTTPS, ADMIN,
    OTHER, FOLDER and KEYS in texts are filled in."""

    def __init__(self, io, text, options="", files=(), environment=None, awaited=True,
                 config="Caddyfile", ports=None, program=None,
                 arguments=()):
        self.ports = {k: free_port() for k in ("HTTPS", "HTTP", "ADMIN", "OTHER")} | (ports or {})
        self.folder = tempfile.TemporaryDirectory(prefix="portico-https-")
        self.options = options
        for name, content in files:
            os.makedirs(os.path.dirname(f"{self.folder.name}/{name}"), exist_ok=True)
            self.write(name, content)
        self.write(config, text if config != "Caddyfile" else self.caddyfile(text))
        self.log = open(f"{self.folder.name}/log", "w+b")
        self.process = subprocess.Popen(
            [program or PORTICO, "run", "--config", config, *arguments], cwd=self.folder.name, stdout=self.log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PORTICO_IO": io, "PORTICO_WORKERS": "2", "HOME": self.folder.name,
                 "XDG_DATA_HOME": f"{self.folder.name}/data",
                 "XDG_CONFIG_HOME": f"{self.folder.name}/config", **(environment or {})})
        if awaited:
            self.wait(lambda: "serving initial configuration" in self.text())

    def caddyfile(self, text):
        return ("{\n\tadmin localhost:ADMIN\n\thttp_port HTTP\n\thttps_port HTTPS\n"
                f"\tskip_install_trust\n{self.options}\n" + "\tsandbox on\n" * SANDBOX + "}\n" + text)

    def fill(self, text):
        for k, v in self.ports.items():
            text = re.sub(rf"\b{k}\b", str(v), text)
        return text.replace("FOLDER", self.folder.name).replace("KEYS", KEYS.name)

    def write(self, name, text):
        with open(f"{self.folder.name}/{name}", "w", encoding="utf-8") as f:
            f.write(self.fill(text))

    def reload(self, text):
        self.write("Caddyfile", self.caddyfile(text))
        done = subprocess.run([PORTICO, "reload", "--config", "Caddyfile", "--address",
                               f"localhost:{self.ports['ADMIN']}"], cwd=self.folder.name,
                              capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr

    def text(self):
        with open(f"{self.folder.name}/log", encoding="utf-8", errors="replace") as f:
            return f.read()

    def wait(self, condition, seconds=40):
        end = time.monotonic() + seconds
        while True:
            try:
                if condition():
                    return
            except (OSError, http.client.HTTPException):
                pass
            assert self.process.poll() is None and time.monotonic() < end, self.text()[-4000:]
            time.sleep(0.02)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.end()

    def end(self, status=0, told=False):
        if self.process.poll() is None and not told:
            self.process.send_signal(signal.SIGTERM)
        try:
            got = self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError("did not end; log: " + self.text()[-3000:]) from None
        self.said = text = self.text()
        self.log.close()
        self.folder.cleanup()
        assert "Sanitizer" not in text and "assertion failed" not in text, text[-6000:]
        same(got, status)

    # --- talking to it ---

    def connect(self, name, port="HTTPS", ca="ca.pem", client=None, context=None, source=None):
        """A TLS connection; `name` None sends no server name."""
        if context is None:
            context = ssl.create_default_context(cafile=os.path.join(KEYS.name, ca) if ca else None)
            context.check_hostname = name is not None and ca is not None
            if ca is None:
                context.verify_mode = ssl.CERT_NONE
        if client:
            context.load_cert_chain(key(f"{client}.pem"), key(f"{client}.key"))
        raw = socket.create_connection(("127.0.0.1", self.ports[port]), 30,
                                       (source, 0) if source else None)
        try:
            return context.wrap_socket(raw, server_hostname=name)
        except BaseException:
            raw.close()
            raise

    def get(self, name, path="/", host=None, **how):
        """Status and body over a TLS connection of its own."""
        with self.connect(name, **how) as c:
            return ask(c, path, host or name)

    def refuses(self, name):
        try:
            self.connect(name).close()
        except OSError:
            return True
        return False

    def plain(self, path="/", host="a.test", port="HTTP", method="GET"):
        """Status, fields and body over clear text."""
        with socket.create_connection(("127.0.0.1", self.ports[port]), 30) as c:
            c.sendall(f"{method} {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
            answer = http.client.HTTPResponse(c, method=method)
            answer.begin()
            return answer.status, answer.headers, answer.read().decode()


def ask(c, path="/", host="a.test"):
    c.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    answer = http.client.HTTPResponse(c)
    answer.begin()
    return answer.status, answer.read().decode()


def fails(call, *arguments, kinds=(OSError, http.client.HTTPException), **more):
    try:
        got = call(*arguments, **more)
    except kinds as e:
        return e
    raise AssertionError(f"got {got!r}, where a failure was due")


def subject(c):
    return dict(pair[0] for pair in c.getpeercert()["subject"])


TWO_SITES = """
a.test {
    tls KEYS/a.test.pem KEYS/a.test.key
    respond "a {scheme} {host}"
}
b.test {
    tls KEYS/b.test.pem KEYS/b.test.key
    respond "b"
}
"""


# --- certificates of the configuration ---

def loaded(io):
    with Site(io, TWO_SITES) as s:
        same(s.get("a.test"), (200, "a https a.test"))
        same(s.get("b.test"), (200, "b"))
        with s.connect("a.test") as c:
            same(subject(c)["commonName"], "a.test")
            same(ask(c), (200, "a https a.test"))
            same(ask(c, host="b.test"), (200, "b"))  # one listener, no client authentication
        fails(s.get, "c.test", ca=None)
        s.wait(lambda: '"enabling automatic HTTP->HTTPS redirects"' in s.text())
        s.wait(lambda: "skipping automatic certificate management" in s.text())


def other_loaders(io):
    texts = {}
    for name in ("a.test.pem", "a.test.key", "star.pem", "star.key"):
        with open(key(name), encoding="ascii") as f:
            texts[name] = f.read()
    document = {
        "admin": {"disabled": True},
        "apps": {
            "tls": {"certificates": {
                "load_folders": ["FOLDER/certs"],
                "load_pem": [{"certificate": texts["star.pem"], "key": texts["star.key"]}],
                "load_files": [{"certificate": "KEYS/second.pem", "key": "KEYS/second.key",
                                "tags": ["second"]}]}},
            "http": {"servers": {"s": {
                "listen": ["127.0.0.1:HTTPS"],
                "automatic_https": {"disable_redirects": True},
                "tls_connection_policies": [
                    {"match": {"remote_ip": {"ranges": ["127.0.0.2"]}},
                     "certificate_selection": {"any_tag": ["second"]}},
                    {"match": {"sni": ["gone.test"]}, "drop": True},
                    {"match": {"sni": ["a.test"]},
                     "certificate_selection": {"subject_organization": ["a.test"]}},
                    {"default_sni": "a.test"}],
                "routes": [{"handle": [{"handler": "static_response", "body": "hi"}]}]}}}}}
    with Site(io, json.dumps(document), config="config.json",
              files=[("certs/below/a.PEM", texts["a.test.pem"] + texts["a.test.key"])]) as s:
        same(s.get("a.test"), (200, "hi"))
        same(s.get("x.star.test"), (200, "hi"))
        for source, want in ((None, "a.test"), ("127.0.0.2", "second")):
            with s.connect("a.test", source=source) as c:
                same(subject(c)["organizationName"], want)
        with s.connect(None) as c:
            same(subject(c)["commonName"], "a.test")
        fails(s.get, "gone.test", ca=None)


# --- redirects ---

def redirects(io):
    with Site(io, TWO_SITES + """
other.test:OTHER {
    tls KEYS/other.test.pem KEYS/other.test.key
    respond "other"
}
""") as s:
        for host, path, want in (
                ("a.test", "/", "https://a.test/"),
                ("a.test", "/x/y%20z?q=1&r=%2F", "https://a.test/x/y%20z?q=1&r=%2F"),
                (f"a.test:{s.ports['HTTP']}", "/p?", "https://a.test/p?"),
                ("other.test", "/o", f"https://other.test:{s.ports['OTHER']}/o"),
                ("unnamed.test", "/u", "https://unnamed.test/u"),
                ("127.0.0.1", "/", "https://127.0.0.1/"),
                ("[::1]", "/six", "https://[::1]/six"),
                (f"[::1]:{s.ports['HTTP']}", "/six", "https://[::1]/six")):
            status, fields, body = s.plain(path, host)
            same((status, fields["Location"], fields["Connection"], body), (308, want, "close", ""))
        same(s.plain("/", "a.test", method="HEAD")[0], 308)
    with Site(io, TWO_SITES + "http://plain.test {\n\trespond plain\n}\n") as s:
        same(s.plain("/", "plain.test")[::2], (200, "plain"))
        same(s.plain("/x", "a.test")[1]["Location"], "https://a.test/x")


def no_redirects(io):
    with Site(io, TWO_SITES, "\tauto_https disable_redirects") as s:
        same(s.get("a.test"), (200, "a https a.test"))
        fails(s.plain)
    with Site(io, "http://a.test {\n\trespond clear\n}\n") as s:
        same(s.plain()[::2], (200, "clear"))
    with Site(io, "http://a.test:OTHER {\n\trespond clear\n}\n", "\tauto_https off") as s:
        same(s.plain(port="OTHER")[::2], (200, "clear"))


# --- clear text where TLS is spoken ---

def clear_text(io):
    with Site(io, TWO_SITES) as s:
        status, _, body = s.plain(port="HTTPS")
        same(status, 400)
        assert "HTTPS" in body, body
        with socket.create_connection(("127.0.0.1", s.ports["HTTPS"]), 30) as c:
            c.sendall(b"\x00" * 64)
            c.settimeout(30)
            c.recv(64)
        same(s.get("a.test"), (200, "a https a.test"))


def wrappers(io):
    with Site(io, TWO_SITES, """
    servers :HTTPS {
        listener_wrappers {
            http_redirect
            tls
        }
    }""") as s:
        status, fields, _ = s.plain("/x?y", port="HTTPS", host=f"a.test:{s.ports['HTTPS']}")
        same((status, fields["Location"]), (308, f"https://a.test:{s.ports['HTTPS']}/x?y"))
        same(s.get("a.test"), (200, "a https a.test"))
    with Site(io, TWO_SITES.replace("{host}", "{remote_host}"), """
    servers :HTTPS {
        listener_wrappers {
            proxy_protocol {
                allow 127.0.0.0/8
            }
            tls
        }
    }""") as s:
        with socket.create_connection(("127.0.0.1", s.ports["HTTPS"]), 30) as raw:
            raw.sendall(b"PROXY TCP4 192.0.2.7 127.0.0.1 4711 443\r\n")
            context = ssl.create_default_context(cafile=key("ca.pem"))
            with context.wrap_socket(raw, server_hostname="a.test") as c:
                same(ask(c), (200, "a https 192.0.2.7"))


# --- versions, suites ---

def versions(io):
    with Site(io, """
a.test {
    tls KEYS/a.test.pem KEYS/a.test.key {
        protocols tls1.3
    }
    respond "{tls_version}"
}
b.test {
    tls KEYS/b.test.pem KEYS/b.test.key {
        protocols tls1.2 tls1.2
        ciphers TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
        curves secp256r1
    }
    respond "{tls_version} {tls_cipher}"
}
""") as s:
        old = ssl.create_default_context(cafile=key("ca.pem"))
        old.maximum_version = ssl.TLSVersion.TLSv1_2
        same(s.get("a.test"), (200, "tls1.3"))
        fails(s.get, "a.test", context=old)
        same(s.get("b.test"), (200, "tls1.2 TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"))


# --- who is let in ---

def client_auth(io):
    with Site(io, """
a.test {
    tls KEYS/a.test.pem KEYS/a.test.key {
        client_auth {
            MODE
            trust_pool file KEYS/people.pem
        }
    }
    respond "{tls_client_subject}"
}
b.test {
    tls KEYS/b.test.pem KEYS/b.test.key
    respond b
}
""".replace("MODE", "mode require_and_verify")) as s:
        same(s.get("a.test", client="alice"), (200, "CN=alice,O=alice"))
        fails(s.get, "a.test")
        fails(s.get, "a.test", client="mallory")
        same(s.get("b.test"), (200, "b"))
        # The other site's name in the handshake opens no door.
        same(s.get("b.test", host="a.test")[0], 421)
        same(s.get("a.test", host="b.test", client="alice")[0], 421)
        same(s.get("a.test", host=f"A.test:{s.ports['HTTPS']}", client="bob")[0], 200)
        s.wait(lambda: "enabling strict SNI-Host enforcement" in s.text())


def client_modes(io):
    site = """
a.test {
    tls KEYS/a.test.pem KEYS/a.test.key {
        client_auth {
            MODE
        }
    }
    respond "{tls_client_subject}"
}
"""
    everybody, nobody = (200, "CN=alice,O=alice"), (200, "")
    for mode, alice, without, mallory in (
            ("mode request", everybody, nobody, (200, "CN=mallory,O=mallory")),
            ("mode require", everybody, None, (200, "CN=mallory,O=mallory")),
            ("mode verify_if_given\n trust_pool file KEYS/people.pem", everybody, nobody, None),
            ("trust_pool file KEYS/people.pem", everybody, None, None),
            ("trust_pool file KEYS/people.pem\n verifier leaf file KEYS/alice.pem", everybody, None,
             None)):
        with Site(io, site.replace("MODE", mode)) as s:
            for who, want in (("alice", alice), (None, without), ("mallory", mallory)):
                if want is not None:
                    same(s.get("a.test", client=who), want)
                else:
                    fails(s.get, "a.test", client=who)
            if "leaf" in mode:
                fails(s.get, "a.test", client="bob")


def strict(io):
    with Site(io, TWO_SITES, "\tservers {\n\t\tstrict_sni_host on\n\t}") as s:
        for protocol, version in (("--http2", "2"), ("--http1.1", "1.1")):
            for host, want in (("a.test", "200"), ("b.test", "421")):
                same(curl(s, "https://a.test:HTTPS/", protocol, "--cacert", key("ca.pem"), "-o",
                          "/dev/null", "-w", "%{http_code} %{http_version}", "-H", f"Host: {host}",
                          "--resolve", s.fill("a.test:HTTPS:127.0.0.1")), f"{want} {version}")
        same(s.get("a.test", host="b.test")[0], 421)
        same(s.get("a.test"), (200, "a https a.test"))


# --- reloads, the end ---

def reload(io):
    with Site(io, TWO_SITES) as s:
        with s.connect("a.test") as c:
            same(ask(c), (200, "a https a.test"))
            s.reload(TWO_SITES.replace('"a {scheme} {host}"', "anew"))
            same(ask(c), (200, "anew"))
        s.reload(TWO_SITES.replace("KEYS/a.test.", "KEYS/second.").replace("a {scheme} {host}", "2"))
        with s.connect("a.test") as c:
            same(subject(c)["organizationName"], "second")
            same(ask(c), (200, "2"))
        s.reload(TWO_SITES.replace("b.test {", "b.test:OTHER {"))
        same(s.get("b.test", port="OTHER"), (200, "b"))
        s.reload("http://a.test:OTHER {\n\trespond clear\n}\n")
        s.wait(lambda: s.plain(port="OTHER")[2] == "clear")
        s.reload(TWO_SITES)
        s.wait(lambda: s.get("b.test") == (200, "b"))


def drain(io):
    s = Site(io, """
a.test {
    tls KEYS/a.test.pem KEYS/a.test.key
    reverse_proxy 127.0.0.1:OTHER
}
""")
    with socket.socket() as upstream, s.connect("a.test") as c:
        upstream.bind(("127.0.0.1", s.ports["OTHER"]))
        upstream.listen()
        c.sendall(b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n")
        peer, _ = upstream.accept()
        with peer:
            peer.recv(4096)
            s.process.send_signal(signal.SIGTERM)
            s.wait(lambda: s.refuses("a.test"))
            peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlast")
            answer = http.client.HTTPResponse(c)
            answer.begin()
            same((answer.status, answer.read()), (200, b"last"))
    s.end(told=True)


# --- the local authority ---

LOCAL = """
localhost {
    respond "local {http.request.proto}"
}
*.wild.localhost {
    respond "wild {http.request.host.labels.2}"
}
127.0.0.1 {
    respond "address"
}
"""


def curl(s, url, *arguments):
    done = subprocess.run(["curl", "-sS", "--max-time", "60", *arguments, s.fill(url)],
                          capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr + s.text()[-2000:]
    return done.stdout


def local_root(s, program="portico"):
    return f"{s.folder.name}/data/{program}/pki/authorities/local/root.crt"


def certificates(s, issuer="local"):
    folder = f"{s.folder.name}/data/portico/certificates/{issuer}"
    return sorted(os.listdir(folder)) if os.path.isdir(folder) else []


def internal(io):
    with Site(io, LOCAL) as s:
        s.wait(lambda: s.text().count("certificate obtained successfully") == 3)
        trust = ["--cacert", local_root(s)]
        same(curl(s, "https://localhost:HTTPS/", *trust), "local HTTP/2.0")
        same(curl(s, "https://localhost:HTTPS/", "--http1.1", *trust), "local HTTP/1.1")
        same(curl(s, "https://x.wild.localhost:HTTPS/", "--resolve",
                  f"x.wild.localhost:{s.ports['HTTPS']}:127.0.0.1", *trust), "wild x")
        same(curl(s, "https://127.0.0.1:HTTPS/", *trust), "address")
        same(s.plain("/p?q", "localhost")[1]["Location"], "https://localhost/p?q")
        with s.connect("localhost", ca=local_root(s)) as c:
            first = c.getpeercert(True)
        for folder, _, names in os.walk(f"{s.folder.name}/data"):
            same((folder, os.stat(folder).st_mode & 0o077), (folder, 0))
            for name in names:
                same((name, os.stat(f"{folder}/{name}").st_mode & 0o077), (name, 0))
        s.wait(lambda: '"enabling automatic TLS certificate management"' in s.text())
        s.reload(LOCAL + "new.localhost {\n\trespond new\n}\n")
        s.wait(lambda: s.get("new.localhost", ca=local_root(s)) == (200, "new"))
        with s.connect("localhost", ca=local_root(s)) as c:
            same(c.getpeercert(True), first)
    assert "PRIVATE KEY" not in s.said


def on_demand(io):
    with Site(io, """
http://localhost:OTHER {
    @yes query domain=yes.test
    respond @yes 200
    respond 403
}
https:// {
    tls internal {
        on_demand
    }
    respond "{host}"
}
""", "\ton_demand_tls {\n\t\task http://localhost:OTHER/check\n\t}") as s:
        fails(s.get, "no.test", ca=None)
        same(s.get("yes.test", ca=local_root(s)), (200, "yes.test"))
        same(s.get("yes.test", ca=local_root(s)), (200, "yes.test"))
        same(certificates(s), ["yes.test"])
        same(s.plain("/x", "any.test")[1]["Location"], "https://any.test/x")


def ask_without_scheme(io):
    """As some write it: that shuts what is asked for, and nothing else."""
    with Site(io, """
https:// {
    tls internal {
        on_demand
    }
    respond "{host}"
}
localhost {
    respond "mine"
}
""", "\ton_demand_tls {\n\t\task localhost:OTHER/check\n\t}") as s:
        s.wait(lambda: s.get("localhost", ca=local_root(s)) == (200, "mine"))  # once it has been made
        fails(s.get, "yes.test", ca=None)
        s.wait(lambda: "the endpoint must be a URL" in s.text())


# --- an authority over ACME ---

class Pebble:
    """The authority of Let's Encrypt's developers, which looks at the ports of a Site."""

    def __init__(self):
        if shutil.which("pebble") is None:
            raise Skip("pebble is not installed")
        try:
            from dns_server import Names
        except ImportError as why:
            raise Skip(str(why)) from None
        self.folder = tempfile.TemporaryDirectory(prefix="portico-pebble-")
        self.names = Names(self.folder.name)
        self.port, self.management = free_port(), free_port()
        self.ports = {"HTTP": free_port(), "HTTPS": free_port()}
        config = {"pebble": {
            "listenAddress": f"127.0.0.1:{self.port}",
            "managementListenAddress": f"127.0.0.1:{self.management}",
            "certificate": key("web.pem"), "privateKey": key("web.key"),
            "httpPort": self.ports["HTTP"], "tlsPort": self.ports["HTTPS"]}}
        with open(f"{self.folder.name}/config.json", "w", encoding="utf-8") as f:
            json.dump(config, f)
        self.log = open(f"{self.folder.name}/log", "w+b")
        self.process = subprocess.Popen(
            ["pebble", "-config", f"{self.folder.name}/config.json", "-dnsserver",
             f"127.0.0.1:{self.names.port}"], stdout=self.log, stderr=self.log,
            env={**os.environ, "PEBBLE_VA_NOSLEEP": "1"})
        end = time.monotonic() + 60
        for port in (self.port, self.management):
            while True:
                try:
                    socket.create_connection(("127.0.0.1", port), 1).close()
                    break
                except OSError:
                    assert time.monotonic() < end, "pebble does not listen"
                    time.sleep(0.05)

    def root(self):
        path = f"{self.folder.name}/root.pem"
        context = ssl.create_default_context(cafile=key("ca.pem"))
        with urllib.request.urlopen(f"https://localhost:{self.management}/roots/0",
                                    context=context, timeout=60) as answer, open(path, "wb") as f:
            f.write(answer.read())
        return path

    def options(self):
        return (f"\temail me@example.com\n\tacme_ca https://localhost:{self.port}/dir\n"
                f"\tacme_ca_root {key('ca.pem')}")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()
        self.log.close()
        self.folder.cleanup()


def from_pebble(io, challenge):
    other = "disable_tlsalpn_challenge" if challenge == "http-01" else "disable_http_challenge"
    with Pebble() as pebble:
        site = f"""
one.example, two.example {{
    tls {{
        issuer acme {{
            {other}
        }}
    }}
    respond "{{host}}"
}}
"""
        with Site(io, site, pebble.options(), ports=pebble.ports) as s:
            s.wait(lambda: s.text().count("certificate obtained successfully") == 2, 60)
            root = pebble.root()
            for name in ("one.example", "two.example"):  # told, then published
                s.wait(lambda host=name: s.get(host, ca=root) == (200, host))
            same(s.plain("/", "one.example")[0], 308)
            assert challenge in s.text(), s.text()[-3000:]
            same(s.plain("/.well-known/acme-challenge/nothing", "one.example")[0], 308)


def http_01(io):
    from_pebble(io, "http-01")


def tls_alpn_01(io):
    from_pebble(io, "tls-alpn-01")


def of_another_instance(io):
    with Site(io, "one.example {\n\trespond x\n}\n", "\tacme_ca https://localhost:1/dir") as s:
        folder = f"{s.folder.name}/data/portico/acme/localhost-1-dir/challenge_tokens"
        os.makedirs(folder, exist_ok=True)
        with open(f"{folder}/one.example.json", "w", encoding="ascii") as f:
            json.dump({"type": "http-01", "token": "there", "keyAuthorization": "there.thumb",
                       "identifier": {"type": "dns", "value": "one.example"}}, f)
        path = "/.well-known/acme-challenge/"
        same(s.plain(path + "there", "one.example")[::2], (200, "there.thumb"))
        same(s.plain(path + "elsewhere", "one.example")[0], 308)
        for host in ("two.example", "../one.example", "..", "*"):
            same(s.plain(path + "there", host)[0] in (308, 400), True)


# --- commands without a configuration, Debian's caddy ---

class Command(Site):
    """A command that listens on ports 80 and 443 of a network of our own."""

    def __init__(self, io, *arguments):
        self.ports = {"HTTP": 80, "HTTPS": 443}
        self.folder = tempfile.TemporaryDirectory(prefix="portico-https-")
        self.write("a.txt", "a file")
        self.log = open(f"{self.folder.name}/log", "w+b")
        self.process = subprocess.Popen(
            [PORTICO, *arguments], cwd=self.folder.name, stdout=self.log, stderr=subprocess.STDOUT,
            env={**os.environ, "PORTICO_IO": io, "HOME": self.folder.name,
                 "PORTICO_SKIP_INSTALL_TRUST": "1", "XDG_DATA_HOME": f"{self.folder.name}/data"})


def commands(io):
    for port in (80, 443):
        with socket.socket() as s:
            try:
                s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                s.bind(("", port))
            except OSError as why:
                raise Skip(f"port {port} is not to be had: {why}") from None
    with Command(io, "file-server", "--domain", "localhost") as s:
        s.wait(lambda: s.get("localhost", "/a.txt", ca=local_root(s)) == (200, "a file"))
        same(s.plain("/a.txt", "localhost")[1]["Location"], "https://localhost/a.txt")
    with Command(io, "reverse-proxy", "--from", "x.localhost", "--to", "127.0.0.1:1",
                 "--internal-certs", "--disable-redirects") as s:
        s.wait(lambda: s.get("x.localhost", ca=local_root(s))[0] == 502)
        fails(s.plain, "/", "x.localhost")


ORACLE = """{
    admin off
    skip_install_trust
    http_port HTTP
    https_port HTTPS
    local_certs
}
a.test, b.test:OTHER {
    respond x
}
http://plain.test {
    respond plain
}
*.wild.test {
    respond wild
}
"""


def as_caddy(io):
    caddy = shutil.which("caddy")
    if caddy is None:
        raise Skip("Debian's caddy is not installed")
    answers = []
    for program in (caddy, PORTICO):
        with Site(io, ORACLE, config="Oracle", program=program,
                  arguments=("--adapter", "caddyfile")) as s:
            got = []
            for target in ("a.test /x?y=1&z", "b.test /", "plain.test /", "c.wild.test /w", "d.test /%2F",
                           "none.test:8080 /n", "127.0.0.1 /"):
                host, path = target.split()
                status, fields, body = s.plain(path, host)
                where = (fields["Location"] or "").replace(str(s.ports["OTHER"]), "OTHER")
                got.append((target, status, where, fields["Connection"], body))
            answers.append(got)
    same(answers[1], answers[0])


CASES = [
    ("sites answer over TLS with their own certificates", loaded),
    ("certificates come from folders, texts and files; a policy chooses by tag", other_loaders),
    ("HTTP is redirected: path, query, port, address, and names that are not known", redirects),
    ("redirects, or all of it, can be turned off", no_redirects),
    ("clear text on the HTTPS port is told so; nonsense ends its connection only", clear_text),
    ("http_redirect and proxy_protocol stand before TLS", wrappers),
    ("versions, suites and curves are those of the site", versions),
    ("clients show certificates, and another name in the handshake opens no door", client_auth),
    ("each mode of client authentication lets in whom it says", client_modes),
    ("strict_sni_host refuses other hosts than the handshake's", strict),
    ("a reload keeps connections, and goes over to new certificates and to clear text", reload),
    ("requests in hand end over TLS when the server stops", drain),
    ("names without public DNS get certificates of the local authority", internal),
    ("a certificate on demand is asked for, given, and kept", on_demand),
    ("an address to ask that is no URL shuts what is asked for, and no other site", ask_without_scheme),
    ("an authority finds its HTTP-01 challenges on the running server", http_01),
    ("an authority finds its TLS-ALPN-01 challenges on the running server", tls_alpn_01),
    ("challenges of another instance with the same storage are answered", of_another_instance),
    ("file-server --domain and reverse-proxy --internal-certs have HTTPS by themselves", commands),
    ("redirects are those of Debian's caddy", as_caddy, ("epoll",)),
]

if __name__ == "__main__":
    make_keys()
    run_cases(CASES, at_once=1)
