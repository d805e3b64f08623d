#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The issuer zerossl against an API that the test plays, and ZeroSSL's external accounts for ACME; and
accounts that Debian's caddy made, used by portico and the other way round. As TAP.
Usage: zerossl_test.py ACME_DRIVER [TEXT]."""
import glob
import http.server
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
import urllib.request

sys.dont_write_bytecode = True
from forward_proxy import Proxy  # noqa: E402 (beside this file)
from server import free_port, has, run_tests, same  # noqa: E402 (beside this file)

DRIVER = sys.argv[1]
try:
    from acme_server import Authority, pem
    from cryptography import x509
    from dns_server import Names
except ImportError as e:
    print("1..0 # SKIP %s" % e)
    sys.exit(0)
TESTS = []


def test(sentence):
    return lambda function: TESTS.append((sentence, function))


class Api(Authority):
    """ZeroSSL's API; certificates are signed by the chain of an Authority."""

    def __init__(self, http_port, names=None):
        super().__init__()
        self.http_port, self.names, self.asked, self.fail, self.waits = http_port, names, [], None, 1
        self.order = None
        api = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args):
                pass

            def do_GET(self):
                length = int(self.headers.get("Content-Length") or 0)
                path, _, query = self.path.partition("?")
                answer = api.answer(path, urllib.parse.parse_qs(query), self.rfile.read(length))
                data = json.dumps(answer).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_POST = do_GET

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = "http://127.0.0.1:%d" % self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def answer(self, path, query, body):
        self.asked.append(path)
        if self.fail and path.endswith(self.fail):
            return {"success": False, "error": {"code": 2802, "type": "no_such_thing"}}
        if query.get("access_key") != ["the key&"]:
            return {"success": False, "error": {"code": 101, "type": "invalid_access_key"}}
        if path == "/certificates":
            return self.create(json.loads(body))
        if path.endswith("/challenges"):
            return self.verify(json.loads(body)["validation_method"])
        if path.endswith("/download/return"):
            leaf = self.leaf(self.order, self.chains[0])
            return {"certificate.crt": pem(leaf), "ca_bundle.crt": pem(self.chains[0].intermediate)}
        if path.endswith("/cancel"):
            return {"success": 1}
        self.waits -= 1
        return self.certificate("issued" if self.waits <= 0 else "pending_validation")

    def create(self, request):
        self.names_asked = request["certificate_domains"].split(",")
        self.request = request
        csr = x509.load_pem_x509_csr(request["certificate_csr"].encode())
        self.order = {"identifiers": [{"type": "dns", "value": n} for n in self.names_asked],
                      "csr": csr, "notAfter": None}
        return self.certificate("draft")

    def certificate(self, status):
        methods = {n: {"file_validation_url_http":
                       "http://%s/.well-known/pki-validation/AB%dC.txt" % (n, i),
                       "file_validation_content": ["line one of " + n, "sectigo.com", "third"],
                       "cname_validation_p1": "_AB%d.%s." % (i, n),
                       "cname_validation_p2": "x%d.comodoca.example" % i}
                   for i, n in enumerate(self.names_asked)}
        return {"id": "0123abcd", "type": "1", "status": status, "fingerprint_sha1": None,
                "validation": {"other_methods": methods}}

    def verify(self, method):
        for name, proof in self.certificate("")["validation"]["other_methods"].items():
            if method == "HTTP_CSR_HASH":
                path = urllib.parse.urlsplit(proof["file_validation_url_http"]).path
                got = urllib.request.urlopen("http://127.0.0.1:%d%s" % (self.http_port, path)).read()
                same(got.decode(), "\n".join(proof["file_validation_content"]))
            else:
                has(open(self.names.file).read(), proof["cname_validation_p1"].lower())
        return self.certificate("pending_validation")


class World:
    def __init__(self):
        self.folder, self.http = tempfile.mkdtemp(prefix="zerossl-"), free_port()
        self.names = Names(self.folder)
        self.api = Api(self.http, self.names)

    def __enter__(self):
        return self

    def __exit__(self, *args):
        self.api.server.shutdown()
        shutil.rmtree(self.folder)

    def run(self, names, issuer=None, **options):
        task = dict({"storage": self.folder + "/s", "action": "issue", "names": names,
                     "http_port": self.http, "zerossl": self.api.url}, **options)
        task["issuer"] = dict({"module": "zerossl", "api_key": "the key&"}, **(issuer or {}))
        p = subprocess.run([DRIVER, json.dumps(task)], capture_output=True, text=True, timeout=120)
        assert p.returncode == 0 and "Sanitizer" not in p.stderr and "runtime error" not in p.stderr, \
            p.stderr[-3000:]
        self.err = p.stderr
        return json.loads(p.stdout) if p.stdout else None


@test("a certificate comes by files, which are looked for by HTTP")
def _():
    with World() as w:
        result = w.run(["a.example", "b.example"], issuer={"validity_days": 90})
        assert result["ok"], result
        same(w.api.request["certificate_validity_days"], 90)
        same(w.api.request["strict_domains"], 1)
        meta = json.loads(result["metadata"])
        same((meta["id"], meta["status"]), ("0123abcd", "issued"))
        same(result["chain"].count("-----BEGIN CERTIFICATE-----"), 2)
        same("/certificates/0123abcd/cancel" in w.api.asked, False)


@test("the API is asked by a proxy, where the issuer names one")
def _():
    with World() as w, Proxy() as proxy:
        result = w.run(["a.example"], issuer={"network_proxy": {"from": "url", "url": proxy.url}})
        assert result["ok"], result
        asked = [a for a in proxy.asked if a.startswith("POST " + w.api.url + "/certificates?")]
        same(len(asked), 1)


@test("a certificate comes by CNAME records")
def _():
    with World() as w:
        dns = {"provider": {"name": "exec", "command": [w.names.script]}, "propagation_timeout": -1,
               "resolvers": ["127.0.0.1:%d" % w.names.port]}
        result = w.run(["a.example"], issuer={"cname_validation": dns})
        assert result["ok"], result
        same(open(w.names.file).read(), "")


@test("errors of the API are told, without the key, and what was begun is cancelled")
def _():
    with World() as w:
        result = w.run(["a.example"], issuer={"api_key": "wrong"})
        has(result["why"], "creating certificate: HTTP 200: API error 101: invalid_access_key")
        assert "wrong" not in result["why"] and "wrong" not in w.err
        w.api.fail = "/challenges"
        has(w.run(["a.example"])["why"], "verifying identifiers: HTTP 200: API error 2802")
        assert "/certificates/0123abcd/cancel" in w.api.asked
        w.api.fail = "/return"
        has(w.run(["a.example"])["why"], "downloading certificate")
        w.run(["a.example"], issuer={"api_key": ""})
        has(w.err, "api_key")


@test("ZeroSSL's ACME is asked with credentials that it gives for an email address")
def _():
    with World() as w:
        ca = Authority(binding={"zero": b"zero" * 8}, validate=False).start()
        issuer = {"module": "acme", "ca": ca.url, "email": "me@example.com"}
        task = {"storage": w.folder + "/s", "action": "binding", "names": [], "zerossl": ca.base,
                "issuer": issuer}
        p = subprocess.run([DRIVER, json.dumps(task)], capture_output=True, text=True, timeout=60)
        result = json.loads(p.stdout)
        assert result["ok"], result
        same([r for r, _ in ca.log if r == "zerossl"], ["zerossl"])
        has([p for r, p in ca.log if r == "zerossl"][0], "email=me%40example.com")
        ca.stop()


# --- accounts of Caddy ---


def caddy_config(w, ca, data, name):
    return {"admin": {"disabled": True}, "storage": {"module": "file_system", "root": data},
            "apps": {"http": {"http_port": w.http, "https_port": free_port(), "servers": {"s": {
                "listen": ["127.0.0.1:%d" % free_port()], "routes": [{"match": [{"host": [name]}]}]}}},
                "tls": {"automation": {"policies": [{"issuers": [{
                    "module": "acme", "ca": ca.url, "email": "me@example.com",
                    "challenges": {"tls-alpn": {"disabled": True}}}]}]},
                    "certificates": {"automate": [name]}}}}


def run_caddy(w, ca, data, name):
    path = w.folder + "/caddy.json"
    json.dump(caddy_config(w, ca, data, name), open(path, "w"))
    with open(w.folder + "/caddy.log", "w") as log:
        caddy = subprocess.Popen(["caddy", "run", "--config", path], stdout=log, stderr=log,
                                 env=dict(os.environ, HOME=w.folder))
        deadline = time.time() + 60
        pattern = data + "/certificates/*/%s/%s.crt" % (name, name)
        while time.time() < deadline and not glob.glob(pattern):
            time.sleep(0.1)
        caddy.terminate()
        caddy.wait()
    assert glob.glob(pattern), open(w.folder + "/caddy.log").read()[-3000:]


@test("caddy goes on with an account of portico, and portico with one of caddy")
def _():
    if shutil.which("caddy") is None:
        return
    for first in ("caddy", "portico"):
        with World() as w:
            ca = Authority(http_port=w.http, challenges=("http-01",), ari=False, validate=False).start()
            data = w.folder + "/data"
            issuer = {"module": "acme", "ca": ca.url, "email": "me@example.com"}
            task = {"storage": data, "action": "issue", "names": ["p.example"], "http_port": w.http,
                    "issuer": issuer}
            counts = []  # of accounts: the second one adds none (this caddy may ask twice at its start)
            for who in (("caddy", "portico") if first == "caddy" else ("portico", "caddy")):
                if who == "caddy":
                    run_caddy(w, ca, data, "c.example")
                else:
                    p = subprocess.run([DRIVER, json.dumps(task)], capture_output=True, text=True,
                                       timeout=60)
                    assert json.loads(p.stdout)["ok"], p.stdout
                counts.append((len(ca.accounts), ca.count("newAccount")))
            said = open(w.folder + "/caddy.log").read()[-3000:]
            assert counts[0] == counts[1] and (first == "caddy" or counts[0] == (1, 1)), \
                (first, counts, ca.log, said)
            same(len(glob.glob(data + "/acme/*/users/*/*")), 2)
            ca.stop()


sys.exit(run_tests(TESTS) > 0)
