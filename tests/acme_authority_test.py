#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""portico as an ACME authority (the handler acme_server), asked by its own client, by Debian's lego,
acme-tiny and caddy, and by requests made by hand. It looks for answers on ports 80 and 443: without
a network namespace of its own it is skipped. As TAP. Usage: acme_authority_test.py PORTICO DRIVER."""
import datetime
import glob
import http.server
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request

sys.dont_write_bytecode = True
from server import free_port, has, run_tests, same  # noqa: E402 (beside this file)

PORTICO, DRIVER = sys.argv[1:3]
WANTED = sys.argv[3] if len(sys.argv) > 3 else ""
try:
    from cryptography import x509
    from acme_server import b64, web_files
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec, utils
    from dns_server import Names
    with socket.create_server(("127.0.0.1", 80)), socket.create_server(("127.0.0.1", 443)):
        pass
except (ImportError, OSError) as e:
    print("1..0 # SKIP %s" % e)
    sys.exit(0)
TESTS = []
NAMESPACE = "urn:ietf:params:acme:error:"


def test(sentence):
    return lambda function: TESTS.append((sentence, function))


class World:
    """A portico that is an authority, with a certificate of the test's for its own name."""

    def __init__(self, **handler):
        self.folder = tempfile.mkdtemp(prefix="authority-")
        self.port, self.handler = free_port(), handler
        self.web_root = web_files(self.folder)[2]
        self.server = None
        self.start()

    def config(self):
        handler = dict({"handler": "acme_server"}, **self.handler)
        return {"admin": {"disabled": True},
                "storage": {"module": "file_system", "root": self.folder + "/storage"},
                "apps": {
                    "http": {"servers": {"srv0": {
                        "listen": ["127.0.0.1:%d" % self.port],
                        "automatic_https": {"disable": True},
                        "tls_connection_policies": [{}],
                        "routes": [{"handle": [handler, {"handler": "static_response",
                                                         "body": "besides"}]}]}}},
                    "tls": {"certificates": {"load_files": [
                        {"certificate": self.folder + "/chain.pem", "key": self.folder + "/key.pem"}]}},
                    "pki": {"certificate_authorities": {"local": {"install_trust": False}}}}}

    def start(self):
        path = self.folder + "/config.json"
        json.dump(self.config(), open(path, "w"))
        self.log = open(self.folder + "/log", "a+")
        env = dict(os.environ, HOME=self.folder, XDG_DATA_HOME=self.folder + "/data",
                   XDG_CONFIG_HOME=self.folder + "/config")
        self.server = subprocess.Popen([PORTICO, "run", "--config", path], env=env, stdout=self.log,
                                       stderr=self.log)
        self.url = "https://localhost:%d/acme/local/directory" % self.port
        deadline = time.time() + 30
        while time.time() < deadline:
            try:
                self.get(self.url)
                return
            except (OSError, ssl.SSLError):
                time.sleep(0.1)
        raise AssertionError(open(self.folder + "/log").read()[-3000:])

    def stop(self):
        self.server.send_signal(signal.SIGTERM)
        self.server.wait(30)

    def __enter__(self):
        return self

    def __exit__(self, *args):
        self.stop()
        text = open(self.folder + "/log").read()
        shutil.rmtree(self.folder, ignore_errors=True)
        assert "Sanitizer" not in text and "runtime error" not in text, text[-4000:]

    def open(self, request):
        context = ssl.create_default_context(cafile=self.web_root)
        try:
            with urllib.request.urlopen(request, context=context, timeout=20) as r:
                return r.status, r.headers, r.read()
        except urllib.error.HTTPError as e:
            return e.code, e.headers, e.read()

    def get(self, url, method="GET"):
        return self.open(urllib.request.Request(url, method=method))

    def run(self, names, issuer=None, **options):
        task = dict({"storage": self.folder + "/client", "action": "issue", "names": names,
                     "http_port": 80, "https_port": 443}, **options)
        task["issuer"] = dict({"module": "acme", "ca": self.url, "email": "me@example.com",
                               "trusted_roots_pem_files": [self.web_root]}, **(issuer or {}))
        p = subprocess.run([DRIVER, json.dumps(task)], capture_output=True, text=True, timeout=120)
        assert p.returncode == 0 and "Sanitizer" not in p.stderr, p.stderr[-3000:]
        return json.loads(p.stdout)

    def good(self, *args, **options):
        result = self.run(*args, **options)
        assert result["ok"], (result, open(self.folder + "/log").read()[-2000:])
        return result

    def bad(self, *args, **options):
        result = self.run(*args, **options)
        assert not result["ok"], result
        return result["why"]


def only(kind):
    return {"challenges": {"http": {"disabled": kind != "http"},
                           "tls-alpn": {"disabled": kind != "tls-alpn"}}}


def leaf(result):
    return x509.load_pem_x509_certificate(result["chain"].encode())


def names_of(certificate):
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return sorted(names.get_values_for_type(x509.DNSName) +
                  [str(i) for i in names.get_values_for_type(x509.IPAddress)])


# --- its own client ---


@test("HTTP-01 and TLS-ALPN-01 give certificates of the local authority, for names and addresses")
def _():
    with World() as w:
        for kind in ("http", "tls-alpn"):
            result = w.good(["a.localhost", "b.localhost", "127.0.0.1"], issuer=only(kind))
            same(names_of(leaf(result)), ["127.0.0.1", "a.localhost", "b.localhost"])
        blocks = result["chain"].split("-----BEGIN")[1:]
        same(len(blocks), 2)
        has(leaf(result).issuer.rfc4514_string(), "Caddy Local Authority - ECC Intermediate")
        left = leaf(result).not_valid_after - datetime.datetime.utcnow()
        assert datetime.timedelta(hours=11) < left < datetime.timedelta(hours=13), left


@test("DNS-01 gives a wildcard, by the resolvers that are named")
def _():
    folder = tempfile.mkdtemp(prefix="names-")
    names = Names(folder)
    with World(resolvers=["127.0.0.1:%d" % names.port]) as w:
        result = w.good(["a.example", "*.a.example"], issuer=names.options())
        same(names_of(leaf(result)), ["*.a.example", "a.example"])
        has(w.bad(["*.b.example"]), "no solvers available")
    shutil.rmtree(folder)


@test("lifetime, challenges and sign_with_root are heeded")
def _():
    with World(lifetime="3h", challenges=["http-01"], sign_with_root=True) as w:
        result = w.good(["a.localhost"])
        left = leaf(result).not_valid_after - datetime.datetime.utcnow()
        assert datetime.timedelta(hours=2) < left < datetime.timedelta(hours=4), left
        has(leaf(result).issuer.rfc4514_string(), "ECC Root")
        has(w.bad(["a.localhost"], issuer=only("tls-alpn")), "offered=[http-01]")
        result = w.good(["a.localhost"], issuer={"certificate_lifetime": "30m"})
        left = leaf(result).not_valid_after - datetime.datetime.utcnow()
        assert left < datetime.timedelta(minutes=31), left


@test("the policy allows and denies")
def _():
    with World(policy={"allow": {"domains": ["*.localhost"]},
                       "deny": {"domains": ["evil.localhost"]}}) as w:
        w.good(["a.localhost"])
        for name in ("evil.localhost", "a.b.localhost", "127.0.0.1", "*.localhost"):
            has(w.bad([name]), NAMESPACE + "rejectedIdentifier")


@test("accounts, orders and nonces: a restart in between loses nothing")
def _():
    with World() as w:
        first = w.good(["a.localhost"])
        w.stop()
        w.start()
        w.good(["b.localhost"])
        same(len(glob.glob(w.folder + "/storage/acme_server/local/accounts/*")), 1)
        assert w.run([], action="revoke", chain=first["chain"])["ok"]
        has(w.run([], action="revoke", chain=first["chain"])["why"], "alreadyRevoked")


@test("what cannot be proved is told, and why")
def _():
    with World() as w:
        why = w.bad(["a.localhost"], issuer={"challenges": {"http": {"alternate_port": free_port()},
                                                            "tls-alpn": {"disabled": True}}})
        has(why, NAMESPACE + "connection")


@test("many at once")
def _():
    with World() as w:
        task = {"storage": w.folder + "/client", "action": "issue", "names": ["a.localhost"],
                "http_port": 80, "https_port": 443, "parallel": 8,
                "issuer": {"module": "acme", "ca": w.url, "trusted_roots_pem_files": [w.web_root]}}
        p = subprocess.run([DRIVER, json.dumps(task)], capture_output=True, text=True, timeout=120)
        same([json.loads(line)["ok"] for line in p.stdout.splitlines()], [True] * 8)


# --- other clients ---


@test("lego gets one by HTTP-01 and by TLS-ALPN-01, and revokes it")
def _():
    if shutil.which("lego") is None:
        return
    with World() as w:
        env = dict(os.environ, LEGO_CA_CERTIFICATES=w.web_root)
        base = ["lego", "--server", w.url, "--accept-tos", "--email", "me@example.com", "--path",
                w.folder + "/lego"]
        for number, way in enumerate((["--http"], ["--tls"])):
            p = subprocess.run(base + ["--domains", "n%d.localhost" % number] + way + ["run"], env=env,
                               capture_output=True, text=True, timeout=120)
            assert p.returncode == 0, p.stderr
        certificate = x509.load_pem_x509_certificate(
            open(w.folder + "/lego/certificates/n0.localhost.crt", "rb").read())
        same(names_of(certificate), ["n0.localhost"])
        p = subprocess.run(base + ["--domains", "n0.localhost", "--http", "renew", "--days", "90",
                                   "--no-random-sleep"],
                           env=env, capture_output=True, text=True, timeout=120)
        assert p.returncode == 0, p.stderr
        p = subprocess.run(base + ["--domains", "n0.localhost", "--http", "revoke"], env=env,
                           capture_output=True, text=True, timeout=120)
        assert p.returncode == 0, p.stderr


@test("acme-tiny gets one")
def _():
    if shutil.which("acme-tiny") is None:
        return
    with World() as w:
        answers = w.folder + "/www/.well-known/acme-challenge"
        os.makedirs(answers)

        class Handler(http.server.SimpleHTTPRequestHandler):
            def __init__(self, *args):
                super().__init__(*args, directory=w.folder + "/www")

            def log_message(self, *args):
                pass
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 80), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        subprocess.run("openssl genrsa -out account.key 2048 && openssl genrsa -out site.key 2048 && "
                       "openssl req -new -sha256 -key site.key -subj /CN=t.localhost -out site.csr",
                       shell=True, cwd=w.folder, check=True, capture_output=True)
        p = subprocess.run(["acme-tiny", "--account-key", w.folder + "/account.key", "--csr",
                            w.folder + "/site.csr", "--acme-dir", answers, "--disable-check",
                            "--directory-url", w.url],
                           env=dict(os.environ, SSL_CERT_FILE=w.web_root), capture_output=True,
                           text=True, timeout=120)
        server.shutdown()
        server.server_close()
        assert p.returncode == 0, p.stderr
        same(names_of(x509.load_pem_x509_certificate(p.stdout.encode())), ["t.localhost"])


@test("caddy gets one")
def _():
    if shutil.which("caddy") is None:
        return
    with World() as w:
        data = w.folder + "/caddy"
        config = {"admin": {"disabled": True}, "storage": {"module": "file_system", "root": data},
                  "apps": {"http": {"http_port": 80, "https_port": 443, "servers": {"s": {
                      "listen": [":443"], "routes": [{"match": [{"host": ["c.localhost"]}]}]}}},
                      "tls": {"automation": {"policies": [{"issuers": [{
                          "module": "acme", "ca": w.url, "email": "c@example.com",
                          "trusted_roots_pem_files": [w.web_root]}]}]}}}}
        json.dump(config, open(w.folder + "/caddy.json", "w"))
        caddy = subprocess.Popen(["caddy", "run", "--config", w.folder + "/caddy.json"],
                                 env=dict(os.environ, HOME=w.folder), stdout=subprocess.DEVNULL,
                                 stderr=open(w.folder + "/caddy.log", "w"))
        deadline = time.time() + 60
        while time.time() < deadline and not glob.glob(data + "/certificates/*/*/*.crt"):
            time.sleep(0.2)
        caddy.terminate()
        caddy.wait()
        found = glob.glob(data + "/certificates/*/c.localhost/c.localhost.crt")
        assert found, open(w.folder + "/caddy.log").read()[-3000:]


# --- by hand ---


class Client:
    def __init__(self, w):
        self.w, self.key = w, ec.generate_private_key(ec.SECP256R1())
        numbers = self.key.public_key().public_numbers()
        self.jwk = {"kty": "EC", "crv": "P-256", "x": b64(numbers.x.to_bytes(32, "big")),
                    "y": b64(numbers.y.to_bytes(32, "big"))}
        self.base = w.url.rsplit("/", 1)[0]
        self.kid = None

    def nonce(self):
        status, headers, body = self.w.get(self.base + "/new-nonce", "HEAD")
        same((status, body), (200, b""))
        return headers["Replay-Nonce"]

    def body(self, path, payload, **changes):
        header = {"alg": "ES256", "nonce": changes.pop("nonce", None) or self.nonce(),
                  "url": self.base + path}
        header.update({"kid": self.kid} if self.kid else {"jwk": self.jwk})
        header.update(changes)
        protected = b64(json.dumps({k: v for k, v in header.items() if v is not None}).encode())
        body = b64(json.dumps(payload).encode()) if payload is not None else ""
        der = self.key.sign((protected + "." + body).encode(), ec.ECDSA(hashes.SHA256()))
        r, s = utils.decode_dss_signature(der)
        return {"protected": protected, "payload": body,
                "signature": b64(r.to_bytes(32, "big") + s.to_bytes(32, "big"))}

    def send(self, path, body, media="application/jose+json"):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        status, headers, answer = self.w.open(urllib.request.Request(
            self.base + path, data=data, headers={"Content-Type": media}))
        return status, headers, json.loads(answer) if answer[:1] == b"{" else answer

    def post(self, path, payload, **changes):
        return self.send(path, self.body(path, payload, **changes))

    def problem(self, *args, **changes):
        status, headers, answer = self.post(*args, **changes)
        has(headers["Content-Type"], "application/problem+json")
        assert headers["Replay-Nonce"]
        return status, answer["type"].replace(NAMESPACE, "")

    def register(self):
        status, headers, answer = self.post("/new-account", {"termsOfServiceAgreed": True})
        self.kid = headers["Location"]
        return status, answer


@test("requests that are not as they must be are refused with the right problem")
def _():
    with World() as w:
        c = Client(w)
        same(c.problem("/new-order", {})[1], "malformed")  # jwk where kid is needed
        same(c.problem("/new-account", {"onlyReturnExisting": True}), (400, "accountDoesNotExist"))
        same(c.register()[0], 201)
        kid = c.kid
        c.kid = None
        same(c.register()[0], 200)
        same(c.kid, kid)
        same(c.problem("/new-order", {}, nonce="AAAA")[1], "badNonce")
        nonce = c.nonce()
        c.post("/new-order", {}, nonce=nonce)
        same(c.problem("/new-order", {}, nonce=nonce)[1], "badNonce")
        same(c.problem("/new-order", {}, url=c.base + "/other"), (403, "unauthorized"))
        same(c.problem("/new-order", {}, kid=c.base + "/account/00")[1], "accountDoesNotExist")
        same(c.problem("/new-order", {}, kid=c.base + "/account/../../x")[1], "accountDoesNotExist")
        same(c.problem("/new-order", {}, alg="HS256")[1], "badSignatureAlgorithm")
        same(c.problem("/new-order", {}, alg="none")[1], "badSignatureAlgorithm")
        body = c.body("/new-order", {"identifiers": [{"type": "dns", "value": "a.localhost"}]})
        body["payload"] = b64(b'{"identifiers":[{"type":"dns","value":"evil.localhost"}]}')
        same(c.send("/new-order", body)[2]["type"], NAMESPACE + "unauthorized")
        same(c.send("/new-order", c.body("/new-order", {}), "application/json")[0], 415)
        for garbage in (b"", b"{", b"[]", b'{"a":' * 500, b"\0" * 100):
            same(c.send("/new-order", garbage)[2]["type"], NAMESPACE + "malformed")
        same(c.send("/new-order", b"x" * (300 << 10))[0], 413)
        same(c.problem("/new-order", {"identifiers": []})[1], "malformed")
        for value in ("", "a b", "*", "a..b", "x" * 300, "../x", "*.*.a", "127.0.0.1"):
            got = c.problem("/new-order", {"identifiers": [{"type": "dns", "value": value}]})[1]
            same(got, "malformed")
        same(c.problem("/new-order", {"identifiers": [{"type": "email", "value": "x"}]})[1],
             "unsupportedIdentifier")
        same(c.problem("/order/" + "0" * 32, None)[0], 404)
        same(c.problem("/order/..%2f..%2fx", None)[0], 403)  # the path was signed as it stands
        same(c.problem("/nothing", None)[0], 404)
        same(c.problem("/key-change", {})[0], 501)
        same(w.get(c.base + "/new-order")[0], 405)
        same(w.get(c.base + "/new-nonce")[0], 204)
        same(w.get("https://localhost:%d/acme/other/directory" % w.port)[0], 404)
        same(w.get("https://localhost:%d/else" % w.port)[2], b"besides")


@test("an order is its account's only, and is finalized when it is ready only")
def _():
    with World() as w:
        one, two = Client(w), Client(w)
        one.register()
        two.register()
        status, headers, order = one.post("/new-order", {"identifiers": [
            {"type": "dns", "value": "A.localhost"}, {"type": "dns", "value": "a.localhost"}]})
        same((status, order["status"]), (201, "pending"))
        same(order["identifiers"], [{"type": "dns", "value": "a.localhost"}])
        path = headers["Location"][len(one.base):]
        same(two.problem(path, None), (401, "unauthorized"))
        same(one.problem(path + "/finalize", {"csr": ""})[1], "orderNotReady")
        authz = order["authorizations"][0][len(one.base):]
        same(two.problem(authz, None), (401, "unauthorized"))
        status, headers, answer = one.post(authz, None)
        same(sorted(ch["type"] for ch in answer["challenges"]), ["dns-01", "http-01", "tls-alpn-01"])
        status, headers, answer = one.post(authz, {"status": "deactivated"})
        same(answer["status"], "deactivated")
        same(one.post(path, None)[2]["status"], "invalid")
        same(one.post(one.kid[len(one.base):], {"contact": ["mailto:x@example.com"]})[2]["contact"],
             ["mailto:x@example.com"])
        same(one.post(one.kid[len(one.base):], {"status": "deactivated"})[2]["status"], "deactivated")
        same(one.problem(path, None), (401, "unauthorized"))


sys.exit(run_tests(TESTS, WANTED) > 0)
