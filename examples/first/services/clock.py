#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The example's service on port 4000: the time. GET /time/now tells it once; GET /time/stream sends
an event each second, for as long as somebody listens."""
import datetime
import http.server
import json
import os
import sys
import time

PORT = int(sys.argv[1]) if len(sys.argv) > 1 else 4000
started = time.monotonic()


def now():
    return {"port": PORT, "pid": os.getpid(), "up": round(time.monotonic() - started, 1),
            "time": datetime.datetime.now().astimezone().isoformat(timespec="milliseconds")}


class Clock(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "clock.py"

    def head(self, status, **fields):
        self.send_response(status)
        for name, value in fields.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def do_GET(self):
        path = self.path.split("?")[0]
        if path == "/time/stream":
            self.close_connection = True
            self.head(200, Content_Type="text/event-stream", Cache_Control="no-store",
                      Connection="close")
            try:
                while True:
                    self.wfile.write(f"data: {json.dumps(now())}\n\n".encode())
                    self.wfile.flush()
                    time.sleep(1)
            except OSError:  # the listener has left
                return
        body = json.dumps(now() if path == "/time/now" else
                          {"port": PORT, "error": f"no {path} here"}).encode()
        self.head(200 if path == "/time/now" else 404, Content_Type="application/json",
                  Content_Length=str(len(body)), Cache_Control="no-store")
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True


Server(("127.0.0.1", PORT), Clock).serve_forever()
