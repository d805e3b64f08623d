#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A reload every 100 ms while requests come in: none fails, and memory stays flat, as TAP. The load is
the fault driver's (tests/fault.h) with upstreams that behave, over HTTP/1, HTTP/2 and FastCGI, with tunnels;
the configuration is a large one, of which each reload changes, adds and takes away something.
Usage: reloads_test.py PORTICO DRIVER [TEXT]. RELOAD_SECONDS: how long (3); bench/reloads takes 60."""
import json
import os
import subprocess
import sys
import threading
import time

sys.dont_write_bytecode = True
from certificates import Authority  # noqa: E402 (beside this file)
from server import Server, free_port, run_cases, same  # noqa: E402

PORTICO, DRIVER = sys.argv[1:3]
del sys.argv[2]
SECONDS = float(os.environ.get("RELOAD_SECONDS", "3"))
PAUSE = float(os.environ.get("RELOAD_PAUSE", "0.1"))
SANITIZED = b"__asan_init" in open(PORTICO, "rb").read() or b"__tsan_init" in open(PORTICO, "rb").read()

MORE = """
{
	admin localhost:1
	metrics
	log default {
		level ERROR
	}
}
(site) {
	log {
		output file FOLDER/access.log {
			roll_size 1MiB
		}
	}
	header X-Variant N
	encode gzip zstd
	@old path_regexp old ^/old/([a-z]+)$
	redir @old /new/{re.old.1}
	map {path} {kind} {
		~^/img/ picture
		default other
	}
	handle /files/* {
		root * FOLDER
		file_server browse
	}
	handle_errors {
		respond "{err.status_code}"
	}
}
http://127.0.0.1:PLAIN {
	import site
	handle /gate/* {
		reverse_proxy 127.0.0.1:WHOLE {
			health_uri /health
			health_interval 300ms
			lb_policy header X-Session
			header_up X-Variant N
			@bad status 5xx
			handle_response @bad {
				respond "bad" 502
			}
		}
	}
	handle {
		respond "plain"
	}
}
https://a.example:SECURE, https://b.example:SECURE {
	tls CERTIFICATE KEY
	import site
	respond "secure"
}
"""
SOMETIMES = """
http://127.0.0.1:OTHER {
	import site
	reverse_proxy 127.0.0.1:WHOLE 127.0.0.1:OTHER
}
"""


class Storm:
    def __init__(self, io):
        self.ports = {name: free_port() for name in ("PLAIN", "SECURE", "OTHER", "UP", "UP2", "FAST")}
        self.server = Server(PORTICO, io, body="base", members={"protocols": ["h1", "h2c"]})
        folder = self.server.folder.name
        self.authority = Authority()
        self.pem, self.key = self.authority.leaf("site", "DNS:a.example", "DNS:b.example")
        self.ports["WHOLE"] = self.server.port
        self.variants = [self.document(n, folder) for n in range(4)]
        self.reloads = 0

    def document(self, n, folder):
        """The Caddyfile's, and the routes of the driver in the server that it asks."""
        text = (MORE + (SOMETIMES if n % 2 else "")).replace("FOLDER", folder).replace("X-Variant N", f"X-Variant {n}")
        text = text.replace("CERTIFICATE", self.pem).replace("KEY", self.key)
        for name, port in self.ports.items():
            text = text.replace(name, str(port))
        file = f"{folder}/Caddyfile"
        with open(file, "w", encoding="utf-8") as f:
            f.write(text)
        done = subprocess.run([PORTICO, "adapt", "--config", file], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True,
                              env=dict(os.environ, ASAN_OPTIONS="detect_leaks=0"))
        out = json.loads(done.stdout)
        gateways = {"c": {}, "d": {"request_buffers": 65536, "response_buffers": 65536},
                    "w": {"stream_close_delay": "100s"},
                    "p": {"transport": {"protocol": "fastcgi", "root": "/nowhere"}}}
        routes = [{"match": [{"path": [f"/{letter}/*"]}], "handle": [
            {"handler": "reverse_proxy", "headers": {"request": {"set": {"X-Variant": [str(n)]}}},
             "upstreams": [{"dial": f"127.0.0.1:{self.ports[name]}"}
                           for name in (["FAST"] if letter == "p" else ["UP", "UP2"])], **more}]}
            for letter, more in gateways.items()]
        whole = json.loads(json.dumps(self.server.document["apps"]["http"]["servers"]["srv0"]))
        whole["routes"] = routes + whole["routes"]
        out["apps"]["http"]["servers"]["whole"] = whole
        out["admin"] = self.server.document["admin"]
        return out

    def reload(self):
        self.reloads += 1
        same(self.server.api("POST", "/load", self.variants[self.reloads % 4])[0], 200)

    def drive(self, seed):
        p = self.ports
        done = subprocess.run([DRIVER, str(seed), "600", "32", str(self.server.port), "cdpw", f"0:1:{p['UP']}",
                               f"0:1:{p['UP2']}", f"3:f:{p['FAST']}"], stdout=subprocess.PIPE, text=True,
                              errors="replace", check=False)
        lines = done.stdout.splitlines()
        assert done.returncode == 0, f"seed {seed}\n" + "\n".join(lines[-12:])
        return json.loads(lines[-1])["rounds"]


def storm(io):
    s = Storm(io)
    failures, over, asked = [], threading.Event(), [0]

    def load():
        while not over.is_set() and not failures:
            try:
                asked[0] += s.drive(len(failures) + 1 + asked[0] // 600)
            except AssertionError as e:
                failures.append(e)
    thread = threading.Thread(target=load)
    try:
        s.reload()
        thread.start()
        begun, sizes = time.monotonic(), []
        while (passed := time.monotonic() - begun) < SECONDS and not failures:
            next_ns = time.monotonic() + PAUSE
            s.reload()
            sizes.append((passed, s.server.resident_kib()))
            time.sleep(max(0, next_ns - time.monotonic()))
        over.set()
        thread.join()
        if failures:
            raise failures[0]
        third = max(size for passed, size in sizes if SECONDS / 4 <= passed <= SECONDS / 2)
        last = min(size for passed, size in sizes if passed >= SECONDS * 5 / 6)
        print(f"# {s.reloads} reloads, {asked[0]} requests; {third} KiB after a third, {last} KiB at the end",
              flush=True)
        assert s.reloads > SECONDS, s.reloads
        assert SANITIZED or last < third + 1024 + third // 20, f"{last} KiB, and {third} KiB after a third"
        # What is left of all these configurations is this one.
        s.server.wait(lambda: s.server.live()["exchanges"] == 0)
    finally:
        over.set()
        if thread.is_alive():
            thread.join()
        same(s.server.end(), 0)


run_cases([("a reload every 100 ms under load: no request fails, memory stays flat", storm)])
