# SPDX-License-Identifier: Apache-2.0
"""Servers of other people as proxies in chains with portico: one process of each program holds all of
its places, each of which listens on a port and passes everything on to the next. What is under "/ws" goes to
another server behind the last place. Debian's nginx, caddy and haproxy; portico takes caddy's file."""
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

sys.dont_write_bytecode = True
from server import free_port  # noqa: E402 (beside this file)

PATH = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"


def found(program):
    return shutil.which(program, path=PATH)


class Place:
    """One proxy of a chain: `kind` is how it listens ("http", "https", "h2c"); `to` is the next Place, or the port
    of the server behind, whose WebSockets have a port of their own."""

    def __init__(self, program, kind, to, websockets=0, flush="flush_interval 1ms"):
        self.program, self.kind, self.port, self.flush = program, kind, free_port(), flush
        self.last = isinstance(to, int)
        self.next_kind, self.next_port = ("http", to) if self.last else (to.kind, to.port)
        self.websockets = websockets if self.last else 0


class Process:
    """A program with all its places; its folder holds configuration and output."""

    def __init__(self, name, places, authority, argv=None, environment=None):
        self.name, self.places, self.authority = name, places, authority
        self.folder = tempfile.TemporaryDirectory(prefix=f"portico-peer-{name}-")
        os.chmod(self.folder.name, 0o755)
        self.file = f"{self.folder.name}/config"
        self.pem, self.key = authority.both if authority else ("", "")
        with open(self.file, "w", encoding="utf-8") as f:
            f.write(self.text())
        self.output = open(f"{self.folder.name}/output", "w+b")
        self.argv, self.environment, self.process = argv or self.command(), environment or {}, None

    def start(self):
        self.process = subprocess.Popen(
            self.argv, stdout=self.output, stderr=subprocess.STDOUT, cwd=self.folder.name,
            env={**os.environ, "HOME": self.folder.name, "XDG_CONFIG_HOME": self.folder.name,
                 "XDG_DATA_HOME": self.folder.name, **self.environment})
        for place in self.places:
            self.await_port(place.port)
        return self

    def await_port(self, port):
        end = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                return
            except OSError:
                if self.process.poll() is not None or time.monotonic() > end:
                    raise AssertionError(f"{self.name} does not listen: {self.said()}") from None
            time.sleep(0.02)

    def all_said(self):
        self.output.flush()
        with open(f"{self.folder.name}/output", encoding="utf-8", errors="replace") as f:
            return f.read()

    def said(self):
        return self.all_said()[-4000:]

    def tell(self, how):
        self.process.send_signal(how)

    def end(self, how=signal.SIGTERM):
        """The exit status, and what was said."""
        if self.process is None:
            return 0, ""
        if self.process.poll() is None:
            self.process.send_signal(how)
        try:
            status = self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            status = self.process.wait()
        text = self.said()
        self.output.close()
        self.folder.cleanup()
        return status, text


class Nginx(Process):
    def command(self):
        return [found("nginx"), "-c", self.file, "-e", f"{self.folder.name}/error.log"]

    def text(self):
        where = self.folder.name
        user = "user root;\n" if os.geteuid() == 0 else ""
        return (f"{user}daemon off;\nworker_processes 1;\npid {where}/pid;\nerror_log {where}/error.log info;\n"
                "events { worker_connections 1024; }\nhttp {\naccess_log off;\ntcp_nodelay on;\n"
                "client_max_body_size 0;\nlarge_client_header_buffers 4 32k;\n" +
                "".join(f"{n}_temp_path {where}/{n};\n" for n in ("proxy", "fastcgi", "uwsgi", "scgi")) +
                f"client_body_temp_path {where}/body;\n" +
                "".join(self.server(i, p) for i, p in enumerate(self.places)) + "}\n")

    def server(self, i, place):
        scheme = "https" if place.next_kind == "https" else "http"
        listen = {"http": "", "https": " ssl http2", "h2c": " http2"}[place.kind]
        tls = f"ssl_certificate {self.pem};\nssl_certificate_key {self.key};\n" if place.kind == "https" else ""
        tunnel = "proxy_set_header Upgrade $http_upgrade;\nproxy_set_header Connection upgrade;\n"
        there = f"http://127.0.0.1:{place.websockets}" if place.websockets else f"{scheme}://up{i}"
        return (f"upstream up{i} {{ server 127.0.0.1:{place.next_port}; keepalive 16; }}\n"
                f"server {{\nlisten 127.0.0.1:{place.port}{listen};\n{tls}proxy_http_version 1.1;\n"
                "proxy_buffering off;\nproxy_request_buffering off;\nproxy_buffer_size 32k;\nproxy_buffers 8 32k;\n"
                f"proxy_ssl_server_name on;\nproxy_ssl_name 127.0.0.1;\n"
                f"location / {{ proxy_pass {scheme}://up{i};\nproxy_set_header Host $http_host;\n"
                f"proxy_set_header Connection \"\"; }}\n"
                f"location /ws {{ proxy_pass {there};\nproxy_set_header Host $http_host;\n{tunnel} }}\n}}\n")


class Haproxy(Process):
    """Debian's HAProxy 2.6.12 forgets streams of HTTP/2 that wait for their turn behind one that ends (mended by its
    authors in October 2023, "mux-h2: make up other blocked streams upon removal from list"): nothing holds them, and
    nobody sends them."""

    FORGOTTEN = re.compile(r" back=1 .* lport=(\d+) .* sv=b(\d+)/.* \.flg=0x\w*[048c] .* \.fctl_cnt=0 \.send_cnt=[1-9]"
                           r".* \.mbuf=\S*,h=\[0@")

    def __init__(self, *given):
        self.waiting, self.forgetful = {}, set()
        super().__init__(*given)

    def look(self):
        """To be called once a second: keeps the places whose connection was in that state three times in a row."""
        answer = b""
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(10)
            s.connect(f"{self.folder.name}/stats")
            s.sendall(b"show fd\n")
            while piece := s.recv(65536):
                answer += piece
        seen = [m.groups() for m in map(self.FORGOTTEN.search, answer.decode().splitlines()) if m]
        self.waiting = {port: self.waiting.get(port, 0) + 1 for port, _ in seen}
        self.forgetful |= {self.places[int(i)] for port, i in seen if self.waiting[port] >= 3}

    def command(self):
        return [found("haproxy"), "-db", "-f", self.file]

    def text(self):
        both = f"{self.folder.name}/both.pem"
        if self.pem:
            with open(both, "w", encoding="ascii") as out:
                for name in (self.pem, self.key):
                    with open(name, encoding="ascii") as f:
                        out.write(f.read())
        return (f"global\n  nbthread 2\n  maxconn 500\n  stats socket {self.folder.name}/stats level admin\n"
                "defaults\n  mode http\n  timeout client 30s\n"
                "  timeout server 30s\n  timeout connect 5s\n  timeout tunnel 30s\n  option http-no-delay\n  option abortonclose\n  http-reuse always\n" +
                "".join(self.server(i, p, both) for i, p in enumerate(self.places)))

    @staticmethod
    def server(i, place, both):
        listen = {"http": "", "h2c": " proto h2", "https": f" ssl crt {both} alpn h2,http/1.1"}[place.kind]
        up = {"http": "", "h2c": " proto h2", "https": " ssl verify none alpn h2,http/1.1"}[place.next_kind]
        ws = f"  use_backend ws{i} if {{ path_beg /ws }}\n" if place.websockets else ""
        wsb = f"backend ws{i}\n  server s 127.0.0.1:{place.websockets}\n" if place.websockets else ""
        return (f"frontend f{i}\n  bind 127.0.0.1:{place.port}{listen}\n{ws}  default_backend b{i}\n"
                f"backend b{i}\n  server s 127.0.0.1:{place.next_port}{up}\n{wsb}")


class Caddy(Process):
    def command(self):
        return [found("caddy"), "run", "--config", self.file, "--adapter", "caddyfile"]

    def text(self):
        cleartext = "".join(f"\tservers 127.0.0.1:{p.port} {{\n\t\tprotocols h1 h2c\n\t}}\n"
                            for p in self.places if p.kind == "h2c")
        return (f"{{\n\tadmin off\n\tauto_https off\n\tskip_install_trust\n{cleartext}}}\n" +
                "".join(self.server(p) for p in self.places))

    def server(self, place):
        scheme = "https" if place.kind == "https" else "http"
        tls = f"\ttls {self.pem} {self.key}\n" if place.kind == "https" else ""
        ws = (f"\thandle /ws* {{\n\t\treverse_proxy 127.0.0.1:{place.websockets}\n\t}}\n"
              if place.websockets else "")
        transport = {
            "http": "", "h2c": "\t\t\ttransport http {\n\t\t\t\tversions h2c 2\n\t\t\t}\n",
            "https": "\t\t\ttransport http {\n\t\t\t\ttls_insecure_skip_verify\n\t\t\t}\n"}[place.next_kind]
        return (f"{scheme}://:{place.port} {{\n\tbind 127.0.0.1\n{tls}{ws}\thandle {{\n"
                f"\t\treverse_proxy {'https://' if place.next_kind == 'https' else ''}"
                f"127.0.0.1:{place.next_port} {{\n\t\t\t{place.flush}\n\t\t\theader_up Host {{host}}\n{transport}\t\t}}\n\t}}\n}}\n")


class Portico(Caddy):
    """`program`, with an I/O back end; what it says at its end must be clean."""

    def __init__(self, places, authority, program, io):
        super().__init__("portico", places, authority, [program, "run", "--adapter", "caddyfile", "--config", ""],
                         {"PORTICO_IO": io, "PORTICO_WORKERS": "2"})
        self.argv[-1] = self.file

    def end(self, how=signal.SIGTERM):
        status, text = super().end(how)
        assert status == 0 and "Sanitizer" not in text and "runtime error" not in text and \
            "assertion" not in text.lower(), (status, text)
        return status, text


KINDS = {"nginx": Nginx, "haproxy": Haproxy, "caddy": Caddy}
