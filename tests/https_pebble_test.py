#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""portico obtaining certificates from Pebble by itself: HTTP-01 and TLS-ALPN-01 on its own listeners,
DNS-01 with BIND and rfc2136, two instances with one storage. As TAP.
Usage: https_pebble_test.py PORTICO [TEXT]."""
import glob
import os
import shutil
import subprocess
import sys
import tempfile

sys.dont_write_bytecode = True
from pebble import PEBBLE, World, listening, same, wait_for  # noqa: E402 (beside this file)
from server import free_port, run_tests  # noqa: E402

PORTICO = sys.argv[1]
NAMED = shutil.which("named") or "/usr/sbin/named"
if PEBBLE is None:
    print("1..0 # SKIP pebble or python3-cryptography is missing")
    sys.exit(0)
TESTS = []


def test(sentence):
    return lambda function: TESTS.append((sentence, function))


@test("HTTP-01 and TLS-ALPN-01 are answered by the listeners that serve")
def _():
    for challenges in ({"tls-alpn": {"disabled": True}}, {"http": {"disabled": True}}):
        with World(PORTICO) as w:
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
        with World(PORTICO, dns_port=bind.port) as w:
            w.start(["*.w.example", "w.example"], challenges=bind.options())
            w.await_served("x.w.example", seconds=90)
            w.await_served("w.example", seconds=90)
    finally:
        bind.stop()


@test("two instances with one storage have one account and one certificate")
def _():
    with World(PORTICO, PEBBLE_VA_ALWAYS_VALID="1") as w:
        other = free_port(), free_port()
        w.start(["a.example"], 0)
        w.start(["a.example"], 1, http=other[0], https=other[1])
        w.await_served("a.example")
        w.await_served("a.example", other[1])
        same(w.accounts(), 1)
        same(open(w.folder + "/pebble.log").read().count("Issued certificate serial"), 1)


sys.exit(run_tests(TESTS) > 0)
