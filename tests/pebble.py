# SPDX-License-Identifier: Apache-2.0
"""Pebble with a folder of its own, and portico obtaining from it: shared by tests."""
import glob
import http.client
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import time

from server import free_port

PEBBLE = shutil.which("pebble")
try:
    from acme_server import web_files
    from dns_server import Names
except ImportError:
    PEBBLE = None


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
    def __init__(self, program, dns_port=None, **env):
        self.program = program
        self.folder = tempfile.mkdtemp(prefix="https-")
        self.http, self.https, self.port, self.management = (free_port() for _ in range(4))
        web_files(self.folder)
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

    def __enter__(self):
        return self

    def __exit__(self, *args):
        for server in self.servers[:]:
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

    def start(self, names, number=0, env=None, **options):
        path = self.folder + "/portico%d.json" % number
        json.dump(self.config(names, **options), open(path, "w"))
        log = open(self.folder + "/portico%d.log" % number, "a")
        env = dict(os.environ, HOME=self.folder, XDG_DATA_HOME=self.folder + "/data",
                   XDG_CONFIG_HOME=self.folder + "/config", **(env or {}))
        server = subprocess.Popen([self.program, "run", "--config", path], env=env, stdout=log, stderr=log,
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
        c = http.client.HTTPSConnection("localhost", self.management, context=context, timeout=30)
        c.request("GET", "/roots/0")
        return c.getresponse().read().decode()

    def get(self, name, port=None):
        context = ssl.create_default_context(cadata=self.roots())
        with socket.create_connection(("127.0.0.1", port or self.https), 30) as raw, \
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
