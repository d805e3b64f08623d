#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""forward_auth in front of applications, with services that answer as Authelia, Authentik and Tailscale's do,
from the Caddyfiles that their manuals show; as TAP. Usage: forward_auth_test.py PORTICO [TEXT]."""
import contextlib
import http.client
import http.server
import json
import os
import socket
import socketserver
import sys
import tempfile
import threading
import urllib.parse

sys.dont_write_bytecode = True
from server import Server, run_cases, same  # noqa: E402 (beside this file)

PORTICO = sys.argv[1]


class Service:
    """`answer(handler)` answers each request; `seen` has (method, path, headers, body)."""

    def __init__(self, answer, unix=None):
        outer = self
        self.seen, self.gone = [], False

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def address_string(self):
                return "somebody"

            def reply(self, status, body=b"", **fields):
                self.send_response(status)
                for name, value in fields.items():
                    self.send_header(name.replace("_", "-"), value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def serve(self):
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                outer.seen.append((self.command, self.path, self.headers, body))
                self.close_connection |= outer.gone
                if not outer.gone:
                    answer(self)

            do_GET = do_POST = do_PUT = do_DELETE = serve

            def log_message(self, *_):
                pass

        class Listener(socketserver.ThreadingMixIn, socketserver.TCPServer):
            daemon_threads, block_on_close, request_queue_size = True, False, 64
            address_family = socket.AF_UNIX if unix else socket.AF_INET

            def handle_error(self, *_):
                pass

            def get_request(self):
                sock, address = super().get_request()
                return sock, address or ("", 0)

        self.server = Listener(unix or ("127.0.0.1", 0), Handler)
        self.dial = f"unix/{unix}" if unix else f"127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()


def application():
    """Says who it was told that the user is, and what it got."""
    def answer(h):
        if h.headers.get("Upgrade") == "echo":
            h.send_response(101)
            h.send_header("Connection", "Upgrade")
            h.send_header("Upgrade", "echo")
            h.end_headers()
            h.wfile.flush()
            while piece := h.rfile.read1(4096):
                h.wfile.write(piece)
                h.wfile.flush()
            h.close_connection = True
            return
        told = {k: v for k, v in h.headers.items() if k.startswith(("Remote-", "X-Authentik-", "X-Webauth-"))}
        h.reply(200, json.dumps({"told": told, "method": h.command, "path": h.path,
                                 "body": app.seen[-1][3].decode()}).encode())
    app = Service(answer)
    return app


@contextlib.contextmanager
def site(io, text, *services):
    """A portico that has loaded that site; its own document only opens its ports."""
    s = Server(PORTICO, io)
    try:
        c = http.client.HTTPConnection("127.0.0.1", s.admin, timeout=60)
        c.request("POST", "/load", f"{{\n\tadmin localhost:{s.admin}\n\tauto_https off\n\tdebug\n}}\n"
                  f"http://app.example:{s.port}, http://127.0.0.1:{s.port} {{\n\tbind 127.0.0.1\n{text}\n}}\n",
                  {"Host": f"localhost:{s.admin}", "Content-Type": "text/caddyfile"})
        answer = c.getresponse()
        same((answer.status, b"error" in answer.read()), (200, False))
        c.close()
        yield s
    finally:
        for each in services:
            each.close()
        same(s.end(), 0)


def ask(s, path="/", method="GET", body=None, **fields):
    c = http.client.HTTPConnection("127.0.0.1", s.port, timeout=30)
    try:
        c.request(method, path, body, {"Host": f"app.example:{s.port}",
                                       **{k.replace("_", "-"): v for k, v in fields.items()}})
        a = c.getresponse()
        return a.status, {k.lower(): v for k, v in a.getheaders()}, a.read()
    finally:
        c.close()


def authelia(io):
    """Who has no session is sent to the portal with where he wanted to go; who may not gets 403; who may
    is named to the application, by nobody but the service; bodies go to the application only."""
    def answer(h):
        where = f"{h.headers['X-Forwarded-Proto']}://{h.headers['X-Forwarded-Host']}{h.headers['X-Forwarded-URI']}"
        user = (h.headers.get("Cookie") or "").partition("authelia_session=")[2]
        if not user:
            h.reply(302, b"<a>login</a>", Location="https://auth.example/?" + urllib.parse.urlencode(
                {"rd": where, "rm": h.headers["X-Forwarded-Method"]}), Set_Cookie="authelia_session=; Path=/")
        elif user == "mallory":
            h.reply(403, b"no")
        else:
            h.reply(200, Remote_User=user, Remote_Groups="admins,dev", Remote_Name="J. Doe",
                    **({"Remote_Email": "j@x.example"} if user == "john" else {}))

    auth, app = Service(answer), application()
    with site(io, f"""
	forward_auth {auth.dial} {{
		uri /api/authz/forward-auth
		copy_headers Remote-User Remote-Groups Remote-Name Remote-Email
	}}
	reverse_proxy {app.dial}""", auth, app) as s:
        status, fields, body = ask(s, "/a/b?c=d&e", "POST", b"form")
        same((status, body), (302, b"<a>login</a>"))
        same(fields["location"], "https://auth.example/?" + urllib.parse.urlencode(
            {"rd": f"http://app.example:{s.port}/a/b?c=d&e", "rm": "POST"}))
        same((fields["set-cookie"], app.seen), ("authelia_session=; Path=/", []))
        method, path, headers, sent = auth.seen[0]
        same((method, path, sent, headers["X-Forwarded-For"]),
             ("GET", "/api/authz/forward-auth?c=d&e", b"", "127.0.0.1"))  # uri keeps the query, as rewrite does
        same(ask(s, "/", Cookie="authelia_session=mallory")[0::2], (403, b"no"))
        status, fields, body = ask(s, "/a?b", "POST", b"x" * 70000, Cookie="authelia_session=john", Remote_User="root")
        got = json.loads(body)
        same((status, got["told"]), (200, {"Remote-User": "john", "Remote-Groups": "admins,dev",
                                           "Remote-Name": "J. Doe", "Remote-Email": "j@x.example"}))
        same((got["method"], got["path"], len(got["body"])), ("POST", "/a?b", 70000))
        assert "remote-user" not in fields, fields
        got = json.loads(ask(s, "/", Cookie="authelia_session=jane", Remote_Email="root@x.example")[2])
        same(got["told"], {"Remote-User": "jane", "Remote-Groups": "admins,dev", "Remote-Name": "J. Doe"})
        c = socket.create_connection(("127.0.0.1", s.port), 30)  # an upgrade is asked about, then made
        c.sendall(b"GET /ws HTTP/1.1\r\nHost: app.example:%d\r\nConnection: Upgrade\r\nUpgrade: echo\r\n"
                  b"Cookie: authelia_session=john\r\n\r\n" % s.port)
        head = b""
        while b"\r\n\r\n" not in head:
            head += c.recv(4096)
        assert head.startswith(b"HTTP/1.1 101 "), head
        c.sendall(b"hello")
        same(c.recv(5), b"hello")
        c.close()
        auth.gone = True
        same(ask(s, "/", Cookie="authelia_session=john")[0], 502)  # no answer is no permission


def authentik(io):
    """The outpost's own paths go to it; what it says of the user goes on, also over a fresh configuration."""
    names = ["Username", "Groups", "Entitlements", "Email", "Name", "Uid", "Jwt", "Meta-Jwks", "Meta-Outpost",
             "Meta-Provider", "Meta-App", "Meta-Version"]

    def answer(h):
        if not h.path.startswith("/outpost.goauthentik.io/auth/caddy"):
            h.reply(200, b"the outpost's " + h.path.encode())
        elif "authentik_proxy" not in (h.headers.get("Cookie") or ""):
            h.reply(302, Location="/outpost.goauthentik.io/start?rd=" + urllib.parse.quote(
                f"{h.headers['X-Forwarded-Proto']}://{h.headers['X-Forwarded-Host']}{h.headers['X-Forwarded-Uri']}"))
        else:
            h.reply(200, **{f"X_authentik_{n.lower().replace('-', '_')}": f"<{n}>" for n in names})

    outpost, app = Service(answer), application()
    with site(io, f"""
	route {{
		reverse_proxy /outpost.goauthentik.io/* http://{outpost.dial}
		forward_auth http://{outpost.dial} {{
			uri /outpost.goauthentik.io/auth/caddy
			copy_headers {' '.join('X-Authentik-' + n for n in names)}
			trusted_proxies private_ranges
		}}
		reverse_proxy {app.dial}
	}}""", outpost, app) as s:
        same(ask(s, "/outpost.goauthentik.io/callback?x")[2], b"the outpost's /outpost.goauthentik.io/callback?x")
        status, fields, _ = ask(s, "/page", X_Forwarded_Proto="https", X_Forwarded_Host="public.example")
        same(status, 302)
        same(fields["location"], "/outpost.goauthentik.io/start?rd=" + urllib.parse.quote(
            "https://public.example/page"))  # the test's address is one of the private ranges
        got = json.loads(ask(s, "/page", Cookie="authentik_proxy=1", X_Authentik_Username="root")[2])
        same(got["told"], {f"X-Authentik-{n}": f"<{n}>" for n in names})


def renamed(io):
    """Fields under other names, a service on a Unix socket, and what it answers dealt with otherwise."""
    def answer(h):
        if h.headers["Original-URI"].startswith("/open"):
            h.reply(204)
        elif h.headers["Original-URI"].startswith("/teapot"):
            h.reply(418, b"short and stout", X_Why="tea")
        else:
            h.reply(200, Tailscale_User="amelie@example.com", Tailscale_Name="Amelie")

    folder = tempfile.TemporaryDirectory(prefix="portico-auth-")
    auth, app = Service(answer, unix=os.path.join(folder.name, "s")), application()
    with site(io, f"""
	forward_auth {auth.dial.replace('unix/', 'unix//', 1)} {{
		uri /auth
		header_up Remote-Addr {{remote_host}}
		header_up Original-URI {{uri}}
		copy_headers {{
			Tailscale-User>X-Webauth-User
			Tailscale-Name>X-Webauth-Name
		}}
		@teapot status 418
		handle_response @teapot {{
			respond "because of {{rp.header.X-Why}}" 403
		}}
	}}
	reverse_proxy {app.dial}""", auth, app) as s:
        got = json.loads(ask(s, "/x?y", X_Webauth_User="root")[2])
        same(got["told"], {"X-Webauth-User": "amelie@example.com", "X-Webauth-Name": "Amelie"})
        _, path, headers, _ = auth.seen[-1]
        same((path, headers["Remote-Addr"], headers["Original-URI"]), ("/auth?y", "127.0.0.1", "/x?y"))
        same(json.loads(ask(s, "/open", X_Webauth_User="root", X_Webauth_Name="boot")[2])["told"], {})
        same(ask(s, "/teapot")[0::2], (403, b"because of tea"))
    folder.cleanup()


CASES = [
    ("as Authelia: a portal, a refusal, a user, an upgrade", authelia),
    ("as Authentik: its own paths beside the application's", authentik),
    ("as Tailscale: a Unix socket, and fields under other names", renamed),
]

if __name__ == "__main__":
    run_cases(CASES)
