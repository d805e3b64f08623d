#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The example's service on port 3000: a guest book that lives as long as the process.
GET /hello tells who answers, GET /notes the notes, POST /notes {"text": "…"} adds one."""
import collections
import http.server
import json
import os
import sys

PORT = int(sys.argv[1]) if len(sys.argv) > 1 else 3000
NOTES_MAX, TEXT_MAX = 20, 120
notes = collections.deque(["Written by examples/first/services/api.py."], NOTES_MAX)


class Api(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "api.py"

    def answer(self, status, value):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        path = self.path.split("?")[0]
        if path == "/hello":
            self.answer(200, {"port": PORT, "pid": os.getpid(), "path": self.path,
                              "host": self.headers.get("Host"),
                              "for": self.headers.get("X-Forwarded-For")})
        elif path == "/notes":
            self.answer(200, {"port": PORT, "notes": list(notes)})
        else:
            self.answer(404, {"port": PORT, "error": f"no {path} here"})

    def do_POST(self):
        try:
            length = int(self.headers.get("Content-Length", "0"))
            if self.path != "/notes" or not 0 < length <= 4096:
                raise ValueError("POST a small note to /notes")
            text = str(json.loads(self.rfile.read(length))["text"]).strip()[:TEXT_MAX]
            if not text:
                raise ValueError("the note is empty")
        except (ValueError, KeyError, TypeError) as e:
            self.close_connection = True
            self.answer(400, {"port": PORT, "error": str(e)})
            return
        notes.appendleft(text)
        self.answer(201, {"port": PORT, "notes": list(notes)})

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True


Server(("127.0.0.1", PORT), Api).serve_forever()
