#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Certificates kept over crashes, restarts, instances and time, through the whole program, as TAP.
Usage: certs_test.py PORTICO [TEXT]. NAMES in the environment makes it longer; crash_test.py kills more."""
import glob
import hashlib
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time

sys.dont_write_bytecode = True
from acme_server import Authority, Fault  # noqa: E402 (beside this file)
from server import Skip, free_port, run_cases, same  # noqa: E402

PORTICO = sys.argv[1]
NAMES = int(os.environ.get("NAMES", "300"))


def is_debug():
    with open(PORTICO, "rb") as f:
        return b"PORTICO_TEST_CLOCK" in f.read()


class Instance:
    """One process on a storage that outlives it."""

    all = []

    def __init__(self, io, folder, sites, options="", program=None, environment=None, name="log"):
        self.ports = {k: free_port() for k in ("HTTP", "HTTPS", "ADMIN")}
        self.folder, self.path = folder, f"{folder}/{name}"
        text = (f"{{\n\tadmin localhost:{self.ports['ADMIN']}\n\thttp_port {self.ports['HTTP']}\n"
                f"\thttps_port {self.ports['HTTPS']}\n\tskip_install_trust\n"
                f"\tstorage file_system {folder}/storage\n{options}\n}}\n{sites}")
        with open(f"{folder}/{name}.Caddyfile", "w", encoding="utf-8") as f:
            f.write(text)
        self.log = open(self.path, "ab")
        Instance.all.append(self)
        self.process = subprocess.Popen(
            [program or PORTICO, "run", "--config", f"{folder}/{name}.Caddyfile", "--adapter",
             "caddyfile"], cwd=folder,
            stdout=self.log, stderr=self.log, start_new_session=True,
            env={**os.environ, "PORTICO_IO": io, "PORTICO_WORKERS": "1", "HOME": folder,
                 "PORTICO_SKIP_INSTALL_TRUST": "1", "XDG_DATA_HOME": f"{folder}/data",
                 "XDG_CONFIG_HOME": f"{folder}/{name}-config", **(environment or {})})

    def text(self):
        with open(self.path, encoding="utf-8", errors="replace") as f:
            return f.read()

    def wait(self, condition, seconds=30):
        end = time.monotonic() + seconds
        while True:
            try:
                if condition():
                    return
            except OSError:
                pass
            assert self.process.poll() is None and time.monotonic() < end, self.text()[-4000:]
            time.sleep(0.02)

    def connect(self, name):
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        raw = socket.create_connection(("127.0.0.1", self.ports["HTTPS"]), 60)
        try:
            return context.wrap_socket(raw, server_hostname=name)
        except BaseException:
            raw.close()
            raise

    def shown(self, name):
        """The hash of the certificate that handshakes for the name get."""
        with self.connect(name) as c:
            return hashlib.sha256(c.getpeercert(True)).hexdigest()

    def crash(self):
        pids = children(self.process.pid)
        for pid in [self.process.pid, *pids]:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        self.process.wait()
        self.log.close()

    def end(self):
        self.process.send_signal(signal.SIGTERM)
        same(self.process.wait(60), 0)
        self.log.close()
        assert "Sanitizer" not in self.text(), self.text()[-6000:]


def children(pid):
    return [int(x) for x in subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)],
                                           capture_output=True, text=True).stdout.split()]


class folder:
    """Of a case; what still runs in it at the end is killed."""

    def __enter__(self):
        self.path = tempfile.mkdtemp(prefix="portico-certs-")
        return self.path

    def __exit__(self, *_):
        for p in [p for p in Instance.all if p.folder == self.path]:
            if p.process.poll() is None:
                p.crash()
            Instance.all.remove(p)
        shutil.rmtree(self.path, ignore_errors=True)


def acme(authority, extra=""):
    return f"\temail me@example.com\n\tcert_issuer acme {{\n\t\tdir {authority.url}\n{extra}\t}}"


def asked(authority, name):
    """How many certificates the authority has made for a name."""
    return sum(1 for order in authority.orders.values()
               if order.get("certificate") and any(i["value"] == name for i in order["identifiers"]))


def stored(f, name, ending=".crt"):
    return glob.glob(f"{f}/storage/certificates/*/{name}/{name}{ending}")


def is_whole(f, name):
    """The key is the certificate's."""
    crt, key = stored(f, name), stored(f, name, ".key")
    if len(crt) != 1 or len(key) != 1 or len(stored(f, name, ".json")) != 1:
        return False
    public = [subprocess.run(["openssl", *what, "-in", path, "-pubout" if what[0] == "pkey" else "-pubkey",
                              *(["-noout"] if what[0] == "x509" else [])], capture_output=True,
                             check=True).stdout
              for what, path in ((["x509"], crt[0]), (["pkey"], key[0]))]
    return public[0] == public[1]


# --- crashes ---

def crash_before_download(io):
    authority = Authority(validate=False).start()
    authority.faults.append(Fault("certificate", delay=5))
    site = "a.example.com {\n\trespond a\n}\n"
    with folder() as f:
        p = Instance(io, f, site, acme(authority))
        p.wait(lambda: authority.faults[0].times == 0)  # it is asked for the certificate
        p.crash()
        same(asked(authority, "a.example.com"), 1)
        p = Instance(io, f, site, acme(authority), name="again")
        p.wait(lambda: is_there(p, "a.example.com"))
        p.wait(lambda: "an order that was begun before has its certificate" in p.text())
        assert is_whole(f, "a.example.com")
        same((authority.count("newOrder"), authority.count("finalize")), (1, 1))
        p.end()
    authority.stop()


def is_there(p, name):
    try:
        return bool(p.shown(name))
    except OSError:
        return False


# --- several of us ---

def two_instances(io):
    authority = Authority(validate=False).start()
    names = [f"n{i}.example.com" for i in range(6)]
    sites = "".join(f"{n} {{\n\trespond {n}\n}}\n" for n in names)
    with folder() as f:
        both = [Instance(io, f, sites, acme(authority), name=n) for n in ("one", "two")]
        for p in both:
            p.wait(lambda: all(is_there(p, n) for n in names), 60)
        for n in names:
            same((n, asked(authority, n)), (n, 1))
            same(both[0].shown(n), both[1].shown(n))
        for p in both:
            p.end()
    authority.stop()


def caddy_and_we(io):
    caddy = shutil.which("caddy")
    if caddy is None:
        raise Skip("caddy is not installed")
    site = "localhost {\n\trespond hi\n}\n"
    authority = Authority(validate=False).start()
    both = site + "a.example.com {\n\ttls {\n\t\tissuer acme {\n\t\t\tdir " + authority.url + "\n\t\t}\n\t}\n}\n"
    with folder() as f:
        p = Instance(io, f, both)
        p.wait(lambda: is_there(p, "localhost") and is_there(p, "a.example.com"))
        ours = p.shown("localhost"), p.shown("a.example.com")
        p.end()
        q = Instance(io, f, both, program=caddy, name="caddy")
        q.wait(lambda: is_there(q, "localhost") and is_there(q, "a.example.com"))
        same((q.shown("localhost"), q.shown("a.example.com")), ours)
        q.process.send_signal(signal.SIGTERM)
        q.process.wait(60)
        same(asked(authority, "a.example.com"), 1)
        # and from its folder
        shutil.rmtree(f"{f}/storage/certificates")
        q = Instance(io, f, both, program=caddy, name="caddy")
        q.wait(lambda: is_there(q, "localhost") and is_there(q, "a.example.com"))
        theirs = q.shown("localhost"), q.shown("a.example.com")
        q.process.send_signal(signal.SIGTERM)
        q.process.wait(60)
        p = Instance(io, f, both, name="again")
        p.wait(lambda: "serving initial" in p.text())
        same((p.shown("localhost"), p.shown("a.example.com")), theirs)
        same(asked(authority, "a.example.com"), 2)
        p.end()
    authority.stop()


# --- time ---

def time_passes(io):
    if not is_debug():
        raise Skip("a release build's clock cannot be moved")
    with folder() as f:
        with open(f"{f}/clock", "w", encoding="ascii") as c:
            c.write("0")
        p = Instance(io, f, "localhost {\n\trespond {http.request.uri}\n}\n",
                     environment={"PORTICO_TEST_CLOCK": f"{f}/clock"})
        p.wait(lambda: is_there(p, "localhost"))
        first = p.shown("localhost")
        old = p.connect("localhost")
        with open(f"{f}/clock", "w", encoding="ascii") as c:
            c.write(str(9 * 3600))
        p.wait(lambda: p.shown("localhost") != first)
        p.wait(lambda: "certificate renewed successfully" in p.text())
        old.sendall(b"GET /x HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        answer = b""
        while piece := old.recv(4096):
            answer += piece
        assert answer.startswith(b"HTTP/1.1 200") and answer.endswith(b"/x"), answer
        p.end()


# --- a storage in trouble ---

def cannot_write(io):
    """Folders where files should be: nothing of it can be written."""
    authority = Authority(validate=False).start()
    with folder() as f:
        p = Instance(io, f, "localhost {\n\trespond hi\n}\n")
        p.wait(lambda: is_there(p, "localhost"))
        shown = p.shown("localhost")
        p.end()
        shutil.rmtree(f"{f}/storage/locks", ignore_errors=True)
        with open(f"{f}/storage/locks", "w", encoding="ascii"):
            pass
        p = Instance(io, f, "localhost {\n\trespond hi\n}\na.example.com {\n\ttls {\n\t\tissuer acme {\n"
                     f"\t\t\tdir {authority.url}\n\t\t}}\n\t}}\n}}\n", name="again")
        p.wait(lambda: "will retry" in p.text())
        same(p.shown("localhost"), shown)
        line = next(json.loads(x) for x in p.text().splitlines() if "will retry" in x)
        assert "unable to acquire lock" in line["error"], line
        same(asked(authority, "a.example.com"), 0)
        p.end()
    authority.stop()


# --- many ---

def make_many(f, count):
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    import datetime
    now = datetime.datetime.utcnow()
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "many")])
    text = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL,
                             serialization.NoEncryption())
    ca = (x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
          .serial_number(1).not_valid_before(now).not_valid_after(now + datetime.timedelta(days=900))
          .sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    for i in range(count):
        host = f"s{i}.example.com"
        leaf = (x509.CertificateBuilder().subject_name(x509.Name([])).issuer_name(name)
                .public_key(key.public_key()).serial_number(i + 2)
                .not_valid_before(now - datetime.timedelta(days=1))
                .not_valid_after(now + datetime.timedelta(days=89))
                .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), False)
                .sign(key, hashes.SHA256()))
        at = f"{f}/storage/certificates/127.0.0.1-1-directory/{host}"
        os.makedirs(at)
        for ending, value in ((".crt", leaf.public_bytes(serialization.Encoding.PEM) + ca),
                              (".key", text), (".json", b'{"sans":["%s"],"issuer_data":null}' % host.encode())):
            with open(f"{at}/{host}{ending}", "wb") as out:
                out.write(value)


def resident_kib(pid):
    total = 0
    for child in children(pid):
        with open(f"/proc/{child}/status", encoding="ascii") as f:
            total += next(int(x.split()[1]) for x in f if x.startswith("VmRSS"))
    return total


def many(io):
    with folder() as f:
        make_many(f, NAMES)
        issuer = "\tcert_issuer acme {\n\t\tdir http://127.0.0.1:1/directory\n\t}"
        figures = []
        for n in (1, NAMES):
            hosts = ", ".join(f"s{i}.example.com" for i in range(n))
            began = time.monotonic()
            p = Instance(io, f, hosts + " {\n\trespond {host}\n}\n", issuer, name=f"of{n}")
            p.wait(lambda: "serving initial" in p.text(), 120)
            figures.append((time.monotonic() - began, resident_kib(p.process.pid)))
            for i in range(0, n, max(1, n // 20)):
                assert is_there(p, f"s{i}.example.com"), i
            assert "obtaining certificate" not in p.text()
            p.end()
        (t1, m1), (t2, m2) = figures
        print(f"# {NAMES} names: start {t2:.2f} s (one name: {t1:.2f} s), "
              f"{(m2 - m1) / NAMES:.2f} KiB each")


CASES = [
    ("killed between issuance and download, it fetches what was issued", crash_before_download),
    ("two instances on one folder ask once", two_instances),
    ("caddy goes on with our certificates, and we with its", caddy_and_we),
    ("when time passes certificates are renewed, and connections stay", time_passes),
    ("a storage that cannot be written is served from, and said so", cannot_write),
    ("many names are there at the start", many),
]

if __name__ == "__main__":
    run_cases(CASES, at_once=2)
