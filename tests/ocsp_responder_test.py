#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""OCSP with a real responder, `openssl ocsp`, as TAP: what `openssl s_client -status` is shown of a
certificate that is good, revoked, unknown, or must have a staple. Usage: ocsp_responder_test.py PORTICO [TEXT]."""
import glob
import json
import os
import subprocess
import sys
import tempfile
import time

sys.dont_write_bytecode = True
from acme_server import Authority, pem  # noqa: E402 (beside this file)
from cryptography.hazmat.primitives import serialization  # noqa: E402
from https_test import PORTICO, Site  # noqa: E402
from server import Skip, free_port, run_cases, same  # noqa: E402

with open(PORTICO, "rb") as program:
    IS_DEBUG = b"PORTICO_TEST_CLOCK" in program.read()
NAME = "a.example.com"
MINUTES = 4  # that an answer is good for


class Responder:
    """openssl ocsp for an Authority whose certificates name it; self.status: what it says of a serial number
    ("V", "R", "R,keyCompromise"; None: nothing)."""

    def __init__(self):
        self.folder = tempfile.TemporaryDirectory(prefix="portico-ocsp-")
        self.port, self.process, self.status, self.leaves = free_port(), None, {}, []
        self.ignorant = False
        self.authority = Authority(validate=False)
        self.authority.ocsp = f"http://127.0.0.1:{self.port}/"
        self.authority.issued = self.issued
        self.authority.start()
        chain = self.authority.chains[0]
        self.write("ca.pem", pem(chain.intermediate))
        self.write("ca.key", chain.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption()).decode())
        self.clock(0)

    def write(self, name, text):
        with open(f"{self.folder.name}/{name}", "w", encoding="ascii") as f:
            f.write(text)

    def clock(self, seconds):
        self.write("clock.new", str(seconds))
        os.rename(f"{self.folder.name}/clock.new", f"{self.folder.name}/clock")

    def issued(self, leaf):
        self.leaves.append(leaf)
        self.begin()

    def line(self, leaf):
        status = None if self.ignorant else self.status.get(leaf.serial_number, "V")
        if status is None:
            return ""
        when = time.strftime("%y%m%d%H%M%SZ", time.gmtime(time.time() - 60))
        return "\t".join([status[0], leaf.not_valid_after.strftime("%y%m%d%H%M%SZ"),
                          when + status[1:] if status[0] == "R" else "", serial(leaf), "unknown",
                          "/CN=a"]) + "\n"

    def begin(self):
        """Anew, with what is known now."""
        self.end()
        self.write("index.txt", "".join(map(self.line, self.leaves)))
        self.write("index.txt.attr", "unique_subject = no\n")
        self.process = subprocess.Popen(
            ["openssl", "ocsp", "-index", "index.txt", "-port", str(self.port), "-rsigner", "ca.pem",
             "-rkey", "ca.key", "-CA", "ca.pem", "-nmin", str(MINUTES)], cwd=self.folder.name,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        assert any(b"waiting for OCSP" in line for line in iter(self.process.stdout.readline, b""))

    def end(self):
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process.stdout.close()
            self.process = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.end()
        self.authority.stop()
        self.folder.cleanup()


def site(io, r, **policy):
    document = {
        "admin": {"listen": "localhost:ADMIN"},
        "storage": {"module": "file_system", "root": "FOLDER/storage"},
        "apps": {"http": {"http_port": "HTTP", "https_port": "HTTPS", "servers": {"s": {
            "listen": [":HTTPS"], "routes": [{"match": [{"host": [NAME]}], "handle": [
                {"handler": "static_response", "body": "hi"}]}]}}},
            "pki": {"certificate_authorities": {"local": {"install_trust": False}}},
            "tls": {"automation": {"policies": [
                {"issuers": [{"module": "acme", "ca": r.authority.url}], **policy}]}}}}
    text = json.dumps(document).replace('"HTTP"', "HTTP").replace('"HTTPS"', "HTTPS")
    return Site(io, text, config="config.json",
                environment={"PORTICO_TEST_CLOCK": f"{r.folder.name}/clock"})


def serial(leaf):
    text = "%X" % leaf.serial_number
    return "0" * (len(text) % 2) + text


def shown(s):
    """The certificate's serial number, and what s_client says about its staple."""
    done = subprocess.run(["openssl", "s_client", "-connect", f"127.0.0.1:{s.ports['HTTPS']}", "-servername",
                           NAME, "-status"], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          timeout=20, check=False)
    own = done.stdout.partition("Server certificate")[2]  # the responder's stands before
    leaf = subprocess.run(["openssl", "x509", "-noout", "-serial"], input=own, capture_output=True, text=True,
                          check=False)
    number = leaf.stdout.strip().partition("=")[2]
    status = [line.split(": ")[1] for line in done.stdout.splitlines() if "Cert Status" in line]
    return number, status[0] if status else "none" if "no response sent" in done.stdout else "?"


def good(io):
    with Responder() as r:
        with site(io, r) as s:
            s.wait(lambda: shown(s)[1] == "good")
            same(shown(s)[0], serial(r.leaves[0]))
            assert glob.glob(f"{s.folder.name}/storage/ocsp/{NAME}-*")
    with Responder() as r:
        with site(io, r, disable_ocsp_stapling=True) as s:
            s.wait(lambda: shown(s)[0] != "")
            same(shown(s)[1], "none")


def revoked(io):
    if not IS_DEBUG:
        raise Skip("a release build's clock cannot be moved")
    for reason, aside in (("", 0), (",keyCompromise", 1)):
        with Responder() as r:
            with site(io, r) as s:
                s.wait(lambda: shown(s)[1] == "good")
                place = f"{s.folder.name}/storage/certificates/*/{NAME}/"
                with open(glob.glob(place + "*.key")[0], "rb") as f:
                    key = f.read()
                r.status[r.leaves[0].serial_number] = "R" + reason
                r.begin()
                r.clock(MINUTES * 60 * 2 // 3)
                s.wait(lambda: len(r.leaves) == 2 and shown(s) == (serial(r.leaves[1]), "good"))
                s.wait(lambda: "OCSP status for managed certificate is REVOKED" in s.text())
                same(len(glob.glob(place + "*.compromised")), aside)
                with open(glob.glob(place + "*.key")[0], "rb") as f:
                    assert f.read() != key


def unknown(io):
    with Responder() as r:
        r.ignorant = True
        with site(io, r) as s:
            s.wait(lambda: shown(s)[0] != "")
            time.sleep(0.3)
            same(shown(s), (serial(r.leaves[0]), "none"))
            same(s.get(NAME, ca=None), (200, "hi"))
            same(glob.glob(f"{s.folder.name}/storage/ocsp/*"), [])
            if IS_DEBUG:  # it is asked again later, and then known
                r.ignorant = False
                r.begin()
                r.clock(30)
                s.wait(lambda: shown(s)[1] == "good")
            same(len(r.leaves), 1)


def must_staple(io):
    with Responder() as r:
        with site(io, r, must_staple=True) as s:
            s.wait(lambda: shown(s)[0] != "")
            assert shown(s) == (serial(r.leaves[0]), "good"), (len(r.leaves), s.text())
            text = subprocess.run(["openssl", "x509", "-noout", "-text", "-in", glob.glob(
                f"{s.folder.name}/storage/certificates/*/{NAME}/*.crt")[0]], capture_output=True, text=True,
                check=True).stdout
            assert "TLS Feature" in text and "status_request" in text, text


CASES = [
    ("a good answer is stapled and kept, and not asked for where that is off", good),
    ("a revoked certificate is replaced, with another key", revoked),
    ("a certificate that the responder does not know is served without a staple", unknown),
    ("one that must have a staple has it from the first handshake on", must_staple),
]

if __name__ == "__main__":
    run_cases(CASES, at_once=2)
