#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The ACME client against Pebble, the authority of Let's Encrypt's developers, with its faults on:
a third of all nonces refused (ten tries each), no authorization reused. As TAP.
Usage: pebble_test.py ACME_DRIVER [TEXT]."""
import glob
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
import urllib.request

sys.dont_write_bytecode = True
from server import free_port, has, run_tests, same  # noqa: E402 (beside this file)

DRIVER = sys.argv[1]
PEBBLE = shutil.which("pebble")
try:
    from cryptography import x509
    from acme_server import web_files
    from dns_server import Names
except ImportError as e:
    PEBBLE = None
if PEBBLE is None:
    print("1..0 # SKIP pebble or python3-cryptography is missing")
    sys.exit(0)
TESTS = []


def test(sentence):
    return lambda function: TESTS.append((sentence, function))


class World:
    """A Pebble of its own, a storage, a DNS server."""

    def __init__(self, binding=None, **env):
        self.folder = tempfile.mkdtemp(prefix="pebble-")
        self.storage, self.environment = self.folder + "/storage", {}  # … of what is tested
        self.http, self.https, self.port, self.management = (free_port() for _ in range(4))
        web_files(self.folder)
        self.names = Names(self.folder)
        config = {"pebble": {
            "listenAddress": "127.0.0.1:%d" % self.port,
            "managementListenAddress": "127.0.0.1:%d" % self.management,
            "certificate": self.folder + "/chain.pem", "privateKey": self.folder + "/key.pem",
            "httpPort": self.http, "tlsPort": self.https, "ocspResponderURL": "",
            "externalAccountBindingRequired": bool(binding), "externalAccountMACKeys": binding or {}}}
        json.dump(config, open(self.folder + "/config.json", "w"))
        env = dict({"PEBBLE_VA_NOSLEEP": "1", "PEBBLE_WFE_NONCEREJECT": "30",
                    "PEBBLE_AUTHZREUSE": "0"}, **env)
        self.log = open(self.folder + "/log", "w+")
        self.pebble = subprocess.Popen(
            [PEBBLE, "-config", self.folder + "/config.json", "-strict",
             "-dnsserver", "127.0.0.1:%d" % self.names.port], env=dict(os.environ, **env),
            stdout=self.log, stderr=self.log)
        self.url = "https://localhost:%d/dir" % self.port
        deadline = time.time() + 60
        for port in (self.port, self.management):
            while True:
                try:
                    socket.create_connection(("127.0.0.1", port), 1).close()
                    break
                except OSError:
                    assert time.time() < deadline, open(self.folder + "/log").read()
                    time.sleep(0.05)

    def __enter__(self):
        return self

    def __exit__(self, *args):
        self.pebble.terminate()
        self.pebble.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def start(self, names=("a.example",), issuer=None, **options):
        task = dict({"storage": self.storage, "action": "issue", "names": list(names),
                     "http_port": self.http, "https_port": self.https}, **options)
        task["issuer"] = dict({"module": "acme", "ca": self.url, "email": "me@example.com",
                               "trusted_roots_pem_files": [self.folder + "/root.pem"]}, **(issuer or {}))
        return subprocess.Popen([DRIVER, json.dumps(task)], stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, text=True, env={**os.environ, **self.environment})

    def finish(self, process):
        out, self.err = process.communicate(timeout=120)
        assert process.returncode == 0 and "Sanitizer" not in self.err and \
            "runtime error" not in self.err, self.err[-3000:]
        return json.loads(out)

    def run(self, *args, **options):
        return self.finish(self.start(*args, **options))

    def good(self, *args, **options):
        result = self.run(*args, **options)
        assert result["ok"], result
        return result

    def manage(self, path):
        context = ssl.create_default_context(cafile=self.folder + "/root.pem")
        return urllib.request.urlopen("https://localhost:%d%s" % (self.management, path),
                                      context=context).read().decode()

    def account(self):
        paths = glob.glob(self.storage + "/acme/*/users/*/*.json")
        same(len(paths), 1)
        return json.load(open(paths[0]))["location"]


def only(kind):
    challenges = {"http": {"disabled": kind != "http"}, "tls-alpn": {"disabled": kind != "tls-alpn"}}
    return {"challenges": challenges}


def names_of(result):
    certificate = x509.load_pem_x509_certificate(result["chain"].encode())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return sorted(names.get_values_for_type(x509.DNSName))


@test("HTTP-01 and TLS-ALPN-01, while a third of all nonces is refused")
def _():
    with World() as w:
        for kind in ("http", "tls-alpn"):
            same(names_of(w.good(["a.example", "b.example"], issuer=only(kind))),
                 ["a.example", "b.example"])


@test("DNS-01 gives a wildcard and its name")
def _():
    with World() as w:
        result = w.good(["a.example", "*.a.example"], issuer=w.names.options())
        same(names_of(result), ["*.a.example", "a.example"])
        same(open(w.names.file).read(), "")


@test("a validation that fails is told")
def _():
    with World(PEBBLE_WFE_NONCEREJECT="0") as w:
        result = w.run(issuer={"challenges": {"http": {"alternate_port": free_port()},
                                              "tls-alpn": {"disabled": True}}})
        assert not result["ok"]
        has(result["why"], "urn:ietf:params:acme:error:")


@test("an external account is bound")
def _():
    secret = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W"
    with World(binding={"kid-1": secret}) as w:
        has(w.run()["why"], "externalAccountRequired")
        w.good(issuer={"external_account": {"key_id": "kid-1", "mac_key": secret}})


@test("alternate chains are chosen by their root")
def _():
    with World(PEBBLE_ALTERNATE_ROOTS="2", PEBBLE_CHAIN_LENGTH="3") as w:
        roots = [x509.load_pem_x509_certificate(w.manage("/roots/%d" % i).encode()).subject
                 for i in range(3)]
        for root in roots:
            name = root.get_attributes_for_oid(x509.NameOID.COMMON_NAME)[0].value
            result = w.good(issuer={"preferred_chains": {"root_common_name": [name]}})
            blocks = result["chain"].split("-----BEGIN")[1:]
            same(len(blocks), 4)
            last = x509.load_pem_x509_certificate(("-----BEGIN" + blocks[-1]).encode())
            same(last.issuer, root)


@test("contacts and key of the account change, a certificate is revoked, the account ends")
def _():
    with World() as w:
        result = w.good()
        url = w.account()
        assert w.run(action="revoke", chain=result["chain"])["ok"]
        serial = "%x" % x509.load_pem_x509_certificate(result["chain"].encode()).serial_number
        has(w.manage("/cert-status-by-serial/" + serial), "Revoked")
        w.environment["SSL_CERT_FILE"] = w.folder + "/root.pem"  # these three use the system's roots
        assert w.run(action="contacts", contacts=["mailto:x@example.com"])["ok"]
        assert w.run(action="change_key")["ok"]
        w.good()
        same(w.account(), url)
        assert w.run(action="deactivate")["ok"]
        w.good()
        assert w.account() != url


@test("killed at any moment, there is one account and a certificate at last")
def _():
    with World() as w:
        url = None
        for i in range(25):
            p = w.start(["n%d.example" % i])
            time.sleep(random.random() * 2)
            p.send_signal(signal.SIGKILL)
            p.communicate()
            for path in glob.glob(w.storage + "/acme/*/users/*/*"):
                text = open(path).read()
                assert text.endswith("-----END EC PRIVATE KEY-----\n") or json.loads(text), text
        w.good()
        url = w.account()
        made = open(w.folder + "/log").read().count("There are now ")
        has(open(w.folder + "/log").read(), "There are now 1 accounts in memory")
        assert "There are now 2 accounts" not in open(w.folder + "/log").read(), made


@test("several instances with one storage have one account")
def _():
    with World(PEBBLE_VA_ALWAYS_VALID="1") as w:
        processes = [w.start(["n%d.example" % i]) for i in range(4)]
        for p in processes:
            assert w.finish(p)["ok"]
        assert "There are now 2 accounts" not in open(w.folder + "/log").read()


sys.exit(run_tests(TESTS, at_once=3) > 0)  # they wait more than they compute
