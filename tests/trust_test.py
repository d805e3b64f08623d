#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Trust in the local authority, as TAP: the admin API's /pki/, the commands trust and untrust, what a
server does at its start. Usage: trust_test.py PORTICO. All of it happens on copies of the machine's
trust stores, in a mount namespace of its own; where that is not allowed, it is skipped."""
import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time

sys.dont_write_bytecode = True
from server import Skip, free_port, has, run_tests, same  # noqa: E402 (beside this file)

PORTICO = os.path.abspath(sys.argv[1])
STORE = "/usr/local/share/ca-certificates"
NOBODY = 65534


def private_stores():
    """Copies over the real ones, for this process and what it starts; gone with it."""
    copies = tempfile.mkdtemp(prefix="portico-stores-")
    for number, folder in enumerate(["/etc/ssl/certs", STORE]):
        copy = f"{copies}/{number}"
        shutil.copytree(folder, copy, symlinks=True)
        for name in os.listdir(copy):
            if name.startswith("Caddy_Local_Authority_"):
                os.unlink(f"{copy}/{name}")
        subprocess.run(["mount", "--bind", copy, folder], check=True, capture_output=True)
    subprocess.run(["update-ca-certificates", "--fresh"], check=True, capture_output=True)
    return copies


class Place:
    """A home with an NSS database, and a server in it."""

    def __init__(self, authority=None, **document):
        self.folder = tempfile.mkdtemp(prefix="portico-trust-")
        os.chmod(self.folder, 0o755)
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.env = dict(os.environ, HOME=self.folder, PORTICO_WORKERS="1")
        for name in ("XDG_CONFIG_HOME", "XDG_DATA_HOME", "CADDY_ADMIN", "SUDO_UID",
                     "PORTICO_SKIP_INSTALL_TRUST"):
            self.env.pop(name, None)
        self.document = {"admin": {"listen": self.address, "config": {"persist": False}},
                         "apps": {"pki": {"certificate_authorities": {
                             "local": dict({"install_trust": False}, **(authority or {}))}}},
                         **document}
        self.server = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def data(self, name):
        base = self.env.get("XDG_DATA_HOME", f"{self.folder}/.local/share")
        return f"{base}/portico/pki/authorities/local/{name}"

    def make_nss(self):
        if shutil.which("certutil") is None:
            return None
        database = f"{self.folder}/.pki/nssdb"
        os.makedirs(database)
        subprocess.run(["certutil", "-N", "-d", f"sql:{database}", "--empty-password"], check=True)
        return database

    def nss_names(self, database):
        done = subprocess.run(["certutil", "-L", "-d", f"sql:{database}"], check=True, text=True,
                              capture_output=True)
        return done.stdout

    def start(self):
        path = f"{self.folder}/config.json"
        with open(path, "w", encoding="utf-8") as f:
            json.dump(self.document, f)
        self.log = open(f"{self.folder}/log", "w+b")
        self.server = subprocess.Popen([PORTICO, "run", "--config", path], env=self.env,
                                       stdin=subprocess.DEVNULL, stdout=self.log,
                                       stderr=subprocess.STDOUT)
        self.wait(lambda: self.get("/config/")[0] == 200)

    def stop(self):
        if self.server is not None and self.server.poll() is None:
            self.server.send_signal(signal.SIGTERM)
            try:
                self.server.wait(60)
            except subprocess.TimeoutExpired:
                self.server.kill()
                self.server.wait()
        self.server = None

    def text(self):
        with open(f"{self.folder}/log", encoding="utf-8", errors="replace") as f:
            return f.read()

    def wait(self, condition, seconds=30):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                if condition():
                    return
            except OSError:
                pass
            time.sleep(0.05)
        raise AssertionError("not reached; log: " + self.text())

    def get(self, path, method="GET"):
        c = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        c.request(method, path)
        r = c.getresponse()
        return r.status, r.read().decode(), r.getheader("Content-Type")

    def run(self, *arguments, program=PORTICO, status=0, user=None, **env):
        more = {"user": user, "group": user, "extra_groups": []} if user is not None else {}
        done = subprocess.run([program, *arguments], env=dict(self.env, **env), text=True,
                              capture_output=True, stdin=subprocess.DEVNULL, timeout=120,
                              check=False, cwd=self.folder, **more)
        assert "Sanitizer" not in done.stderr, done.stderr
        assert done.returncode == status, f"{arguments}: {done.returncode}: {done.stdout}{done.stderr}"
        return done.stdout + done.stderr


def is_trusted(place):
    done = subprocess.run(["openssl", "verify", place.data("root.crt")], capture_output=True,
                          check=False)
    return done.returncode == 0


def ours():
    return [n for n in os.listdir(STORE) if n.startswith("Caddy_Local_Authority_")]


def test_admin():
    """/pki/ca/ID tells an authority's names and certificates, with Caddy's statuses and words"""
    with Place() as p:
        p.start()
        status, body, kind = p.get("/pki/ca/local")
        same((status, kind), (200, "application/json"))
        info = json.loads(body)
        same(list(info), ["id", "name", "root_common_name", "intermediate_common_name",
                          "root_certificate", "intermediate_certificate"])
        year = time.gmtime().tm_year
        same(info["root_common_name"], f"Caddy Local Authority - {year} ECC Root")
        with open(p.data("root.crt"), encoding="ascii") as f:
            same(info["root_certificate"], f.read())
        status, body, kind = p.get("/pki/ca/local/certificates")
        same((status, kind), (200, "application/pem-certificate-chain"))
        same(body, info["intermediate_certificate"] + info["root_certificate"])
        for path, method, want, words in [
                ("/pki/ca/none", "GET", 404, "no certificate authority configured with id: none"),
                ("/pki/ca/", "GET", 404, "resource not found: /pki/ca/"),
                ("/pki/", "GET", 404, "resource not found: /pki/"),
                ("/pki/ca/local/x", "GET", 404, "resource not found: /pki/ca/local/x"),
                ("/pki/ca/local", "POST", 405, "method not allowed: POST")]:
            status, body, _ = p.get(path, method)
            same((status, json.loads(body)), (want, {"error": words}))


def test_default():
    """without the app pki the default authority is made when it is asked for, and not before"""
    with Place() as p:
        del p.document["apps"]
        p.start()
        assert not os.path.exists(p.data("root.crt"))
        same(p.get("/pki/ca/local")[0], 200)
        assert os.path.exists(p.data("root.key"))
        same(p.get("/pki/ca/other")[0], 404)


def test_trust():
    """trust adds the root to the system and to NSS and says so; untrust takes it back"""
    with Place() as p:
        nss = p.make_nss()
        p.start()
        said = p.run("trust", "--address", p.address)
        has(said, f"wrote {STORE}/Caddy_Local_Authority_-_", "ran update-ca-certificates")
        assert is_trusted(p)
        if nss:
            has(said, f"added it to the NSS database sql:{nss}")
            has(p.nss_names(nss), "Caddy Local Authority")
        said = p.run("trust", "--config", f"{p.folder}/config.json")
        has(said, "the system trusts it already")
        said = p.run("untrust", "--address", p.address)
        has(said, f"removed {STORE}/Caddy_Local_Authority_-_")
        assert not is_trusted(p) and not ours()
        if nss:
            has(said, f"removed it from the NSS database sql:{nss}")
            assert "Caddy Local Authority" not in p.nss_names(nss)
        has(p.run("untrust", "--address", p.address), "the system does not trust it")
        p.run("trust", "--address", p.address)
        p.stop()
        p.run("untrust", "--cert", p.data("root.crt"))
        assert not is_trusted(p)


def test_sudo():
    """behind sudo the browsers' databases are the person's, Firefox's profiles among them"""
    if shutil.which("certutil") is None:
        raise Skip("there is no certutil")
    with Place() as p:
        home, uid = f"{p.folder}/person", 12345
        profile = f"{home}/.mozilla/firefox/abc.default"
        os.makedirs(profile)
        subprocess.run(["certutil", "-N", "-d", f"sql:{profile}", "--empty-password"], check=True)
        for folder, _, names in os.walk(home):
            for name in ["", *names]:
                os.chown(f"{folder}/{name}", uid, uid)
        with open("/etc/passwd", encoding="utf-8") as f:
            users = f.read() + f"portico-person:x:{uid}:{uid}::{home}:/bin/sh\n"
        with open(f"{p.folder}/passwd", "w", encoding="utf-8") as f:
            f.write(users)
        subprocess.run(["mount", "--bind", f"{p.folder}/passwd", "/etc/passwd"], check=True)
        try:
            p.start()
            has(p.run("trust", "--address", p.address, SUDO_UID=str(uid)),
                f"added it to the NSS database sql:{profile}")
            has(p.nss_names(profile), "Caddy Local Authority")
            for name in os.listdir(profile):
                same(os.stat(f"{profile}/{name}").st_uid, uid)
            has(p.run("untrust", "--address", p.address, SUDO_UID=str(uid)),
                f"removed it from the NSS database sql:{profile}")
        finally:
            subprocess.run(["umount", "/etc/passwd"], check=True)


def test_caddy():
    """Caddy untrusts what we trusted, and we what Caddy trusted"""
    if not os.access("/usr/bin/caddy", os.X_OK):
        raise Skip("there is no /usr/bin/caddy")
    with Place() as p:
        p.make_nss()
        p.start()
        p.run("trust", "--address", p.address)
        has(p.run("trust", "--address", p.address, program="/usr/bin/caddy"), "already trusted")
        p.run("untrust", "--address", p.address, program="/usr/bin/caddy")
        assert not is_trusted(p) and not ours()
        p.run("trust", "--address", p.address, program="/usr/bin/caddy")
        assert is_trusted(p)
        p.run("untrust", "--address", p.address)
        assert not is_trusted(p) and not ours()


def test_wrong():
    """what cannot be done is told: no server, no authority, no certificate, flags that conflict"""
    with Place() as p:
        p.start()
        has(p.run("trust", "--address", p.address, "--ca", "none", status=1),
            "no certificate authority configured with id: none")
        has(p.run("trust", "--address", p.address, "--ca", "a/b", status=1), "not an authority's id")
        p.stop()
        has(p.run("trust", "--address", p.address, status=1), "requesting CA info", "refused")
        has(p.run("untrust", "--cert", "x", "--ca", "local", status=1), "conflicting command line")
        has(p.run("untrust", "--cert", f"{p.folder}/none", status=1), "No such file")
        has(p.run("untrust", "--cert", f"{p.folder}/config.json", status=1), "not a root certificate")
        has(p.run("trust", "--cert", "x", status=1), "unknown flag")


def test_nobody():
    """who is not root is told that the system's store is root's, and nothing is changed"""
    with Place() as p:
        p.start()
        said = p.run("trust", "--address", p.address, status=1, user=NOBODY)
        has(said, f"could not write {STORE}/", "run this command as root")
        assert not ours()


def test_start():
    """a server that may, trusts its root at its start, once; one that is told not to, does not"""
    with Place({"install_trust": True}) as p:
        p.start()
        p.wait(lambda: "root certificate is trusted now" in p.text(), 60)
        assert is_trusted(p)
        p.stop()
        p.start()
        p.wait(lambda: "already trusted by system" in p.text())
        p.run("untrust", "--address", p.address)
    with Place() as p:
        p.start()
        p.wait(lambda: "trust store installation disabled" in p.text())
        has(p.text(), p.data("root.crt"))
        assert not is_trusted(p)


def test_start_nobody():
    """a server that may not says so in one line, with the way to do it, and goes on"""
    with Place({"install_trust": True}, portico={"user": "nobody"}) as p:
        p.env["XDG_DATA_HOME"] = f"{p.folder}/data"
        os.mkdir(p.env["XDG_DATA_HOME"])
        os.chown(p.env["XDG_DATA_HOME"], NOBODY, NOBODY)
        p.start()
        p.wait(lambda: "root certificate is not trusted by this machine" in p.text())
        has(p.text(), "portico trust", p.data("root.crt"), "Permission denied")
        same(p.text().count("is not trusted"), 1)
        same(p.get("/pki/ca/local")[0], 200)
        same(os.stat(p.data("root.key")).st_uid, NOBODY)
        assert not ours()


TESTS = [test_admin, test_default, test_trust, test_sudo, test_caddy, test_wrong, test_nobody, test_start,
         test_start_nobody]


def main():
    if os.environ.get("PORTICO_TRUST_TEST") != "inside":
        inside = ["unshare", "--mount", "--propagation", "private"]
        able = os.geteuid() == 0 and os.path.isdir(STORE) and shutil.which("update-ca-certificates") \
            and subprocess.run([*inside, "true"], capture_output=True, check=False).returncode == 0
        if not able:
            print("1..0 # SKIP no mount namespace, or no trust store of Debian, to try it on")
            return 0
        env = dict(os.environ, PORTICO_TRUST_TEST="inside")
        return subprocess.run([*inside, sys.executable, *sys.argv], env=env, check=False).returncode
    copies = private_stores()
    try:
        failed = run_tests([(test.__doc__, test) for test in TESTS])
    finally:
        for folder in ("/etc/ssl/certs", STORE):
            subprocess.run(["umount", folder], check=False)
        shutil.rmtree(copies, ignore_errors=True)
    return 1 if failed else 0


sys.exit(main())
