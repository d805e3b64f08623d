#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Keys of session tickets that instances share through one storage, as TAP: sessions go on at the
other one and across rotations, Caddy and we rotate one file, a storage that cannot be used costs
nothing but the sharing. Usage: tickets_test.py PORTICO."""
import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import time

from certificates import Authority
import server
from patience import at_some_pace
from server import Skip, free_port, run_cases, same

PORTICO = os.path.abspath(sys.argv[1])
CA = Authority()
PEM, KEY = CA.leaf("one", "DNS:one.example")
STEK = "stek/stek.bin"


def apps_of(storage, tickets=None):
    source = {"provider": "distributed", "storage": {"module": "file_system", "root": storage}}
    return {"tls": {"certificates": {"load_files": [{"certificate": PEM, "key": KEY}]},
                    "session_tickets": {"key_source": source, **(tickets or {})}}}


def running(io, apps, **more):
    return server.running(io, secure=True, apps=apps, members={
        "tls_connection_policies": [{}], "automatic_https": {"disable": True}}, **more)


class Client:
    """Goes from one server to the next with what it knows of a session."""

    def __init__(self, version=ssl.TLSVersion.TLSv1_3):
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self.context.load_verify_locations(CA.root)
        self.context.minimum_version = self.context.maximum_version = version
        self.session = None

    def resumes(self, port):
        with socket.create_connection(("127.0.0.1", port), 30) as raw, self.context.wrap_socket(
                raw, server_hostname="one.example", session=self.session) as c:
            c.sendall(b"GET / HTTP/1.1\r\nHost: one.example\r\nConnection: close\r\n\r\n")
            while c.recv(4096):
                pass
            self.session = c.session
            return c.session_reused


def shared(io):
    """Either goes on with the other's sessions, in both versions, and after a reload."""
    with tempfile.TemporaryDirectory() as storage, running(io, apps_of(storage)) as a, \
            running(io, apps_of(storage)) as b:
        same(oct(os.stat(f"{storage}/{STEK}").st_mode & 0o777), "0o600")
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            c = Client(version)
            same([c.resumes(s.port) for s in (a, b, a, b, b)], [False, True, True, True, True])
        same(a.api("POST", "/load", {**a.document, "logging": {}},
                   {"Cache-Control": "must-revalidate"})[0], 200)
        same([c.resumes(s.port) for s in (a, b)], [True, True])
        document = json.loads(json.dumps(a.document))
        del document["apps"]["tls"]["session_tickets"]
        same(a.api("POST", "/load", document)[0], 200)
        same([c.resumes(s.port) for s in (a, b, a)], [True, False, True])  # b has not a's new key


def rotated(io, pace):
    """Who comes first after the time makes a key, the others take it; old ones go."""
    with tempfile.TemporaryDirectory() as storage:
        tickets = {"rotation_interval": f"{pace}s", "max_keys": 3}
        with running(io, apps_of(storage, tickets)) as a, running(io, apps_of(storage, tickets)) as b:
            first, c, old = content(storage), Client(), Client()
            c.resumes(a.port)
            old.resumes(a.port)
            a.wait(lambda: content(storage) != first)
            time.sleep(0.2)
            same(c.resumes(b.port), True)
            kept = old.session
            a.wait(lambda: not try_old(old, kept, b), 60)
            same([c.resumes(a.port), c.resumes(b.port)], [True, True])  # of the key after it


def try_old(client, session, s):
    client.session = session
    return client.resumes(s.port)


def content(storage):
    with open(f"{storage}/{STEK}", "rb") as f:
        return f.read()


def with_caddy(io):
    caddy = shutil.which("caddy")
    if caddy is None:
        raise Skip("caddy is not installed")
    with tempfile.TemporaryDirectory() as storage:
        tickets = {"rotation_interval": "1s", "max_keys": 3}
        with running(io, apps_of(storage, tickets)) as a:
            written = content(storage)
        document = {"admin": {"disabled": True}, "apps": {**apps_of(storage, tickets), "http": {
            "servers": {"a": {"listen": [f"127.0.0.1:{free_port()}"],
                              "tls_connection_policies": [{}], "automatic_https": {"disable": True},
                              "routes": [{"handle": [{"handler": "static_response"}]}]}}}}}
        with open(f"{storage}/caddy.json", "w", encoding="utf-8") as f:
            json.dump(document, f)
        with subprocess.Popen([caddy, "run", "--config", f"{storage}/caddy.json"],
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                              env={**os.environ, "HOME": storage}) as p:
            try:
                rotations_of_caddy(storage, written)
                with running(io, apps_of(storage, tickets)) as a:
                    c = Client()
                    same([c.resumes(a.port), c.resumes(a.port)], [False, True])
                    assert "keys of session tickets" not in a.text(), a.text()
                    rotations_of_caddy(storage, content(storage))  # whoever makes them
                    same(c.resumes(a.port), True)
            finally:
                p.terminate()
            assert "STEK" not in p.communicate()[0]


def rotations_of_caddy(storage, before):
    """Waits for the next one."""
    end = time.monotonic() + 30
    while content(storage) == before:
        assert time.monotonic() < end, "no rotation"
        time.sleep(0.02)


def no_storage(io):
    """Served with keys of its own, the reason is told, and the shared ones are taken when they come."""
    with tempfile.TemporaryDirectory() as folder:
        storage = f"{folder}/store"
        os.makedirs(f"{storage}/stek")
        with open(f"{storage}/{STEK}", "wb") as f:
            f.write(b"no keys")
        with running(io, apps_of(storage)) as a:
            c = Client()
            same([c.resumes(a.port), c.resumes(a.port)], [False, True])
            a.wait(lambda: "stek/stek.bin holds no keys of session tickets" in a.text())
            same(content(storage), b"no keys")
            os.unlink(f"{storage}/{STEK}")
            a.api("POST", "/load", {**a.document, "logging": {}}, {"Cache-Control": "must-revalidate"})
            assert len(content(storage)) > 200
            with running(io, apps_of(storage)) as b:
                same(c.resumes(a.port), False)
                same(c.resumes(b.port), True)


def refused(io):
    for tickets, why in (({"key_source": {"provider": "other"}}, "unknown module: tls.stek.other"),
                         ({"key_source": {"provider": "standard", "storage": {}}}, "storage"),
                         ({"key_source": {"provider": "distributed", "storage": {"module": "x"}}},
                          "unknown module: caddy.storage.x"),
                         ({"max_keys": 65}, "max_keys")):
        with tempfile.TemporaryDirectory() as folder:
            with open(f"{folder}/config.json", "w", encoding="utf-8") as f:
                json.dump({"apps": {"tls": {"session_tickets": tickets}}}, f)
            done = subprocess.run([PORTICO, "validate", "--config", f"{folder}/config.json"],
                                  capture_output=True, text=True, check=False)
            same(done.returncode, 1)
            assert why in done.stderr, done.stderr


def not_rotated(io):
    """As in Caddy, keys are not taken from the storage then; nor made where there are no tickets."""
    for tickets in ({"disable_rotation": True}, {"disabled": True}):
        with tempfile.TemporaryDirectory() as storage, running(io, apps_of(storage, tickets)) as a:
            c = Client()
            same([c.resumes(a.port), c.resumes(a.port)], [False, "disabled" not in tickets])
            same(os.path.exists(f"{storage}/{STEK}"), False)


run_cases([
    ("sessions go on at another instance with the same storage", shared),
    ("keys are rotated by whoever comes first", lambda io: at_some_pace(lambda pace: rotated(io, pace))),
    ("Caddy and this program rotate one file", with_caddy, ("epoll",)),
    ("a storage without keys to be read costs no handshake", no_storage),
    ("what is no source of keys is refused", refused, ("epoll",)),
    ("keys that are not rotated are not shared", not_rotated, ("epoll",)),
], at_once=3)
