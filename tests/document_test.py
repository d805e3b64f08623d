#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The running document, which is kept as text: what the admin API gives of it and changes in it, and
what it costs, as TAP. Usage: document_test.py PORTICO [TEXT]."""
import http.client
import json
import os
import sys

sys.dont_write_bytecode = True
from server import Server, Skip, has, run_cases, same  # noqa: E402 (beside this file)

PORTICO = sys.argv[1]
SANITIZED = any(b"__%s_init" % s in open(PORTICO, "rb").read() for s in (b"asan", b"tsan"))
SITES, KIB_PER_SITE = 4000, 3
sys.setrecursionlimit(20000)


def compact(value):
    """As the API answers: members in the order of their names, "<" as Go writes it."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026") + "\n"


def answer(body):
    return {"handler": "static_response", "body": body}


def with_fields(s, method, path, value=None, headers=None):
    c = http.client.HTTPConnection("127.0.0.1", s.admin, timeout=60)
    fields = {"Host": f"localhost:{s.admin}", "Content-Type": "application/json", **(headers or {})}
    c.request(method, path, json.dumps(value) if value is not None else None, fields)
    a = c.getresponse()
    try:
        return a.status, a.read().decode(), a.headers
    finally:
        c.close()


def saved(s):
    with open(f"{s.folder.name}/portico/autosave.json", encoding="utf-8") as f:
        return f.read()


def backwards(value):
    if isinstance(value, dict):
        return {k: backwards(value[k]) for k in reversed(value)}
    return [backwards(v) for v in value] if isinstance(value, list) else value


def reads_and_changes(io):
    route = {"@id": "first", "handle": [answer("<\u00e9&\u2713>")], "terminal": True}
    s = Server(PORTICO, io, routes=[route, {"@id": 7, "handle": [answer("rest")]}])
    try:
        same(s.api("GET", "/config/"), (200, compact(s.document)))
        s.wait(lambda: saved(s) and True)
        same(saved(s), json.dumps(s.document, separators=(",", ":"), ensure_ascii=False))
        at = "/config/apps/http/servers/srv0/routes/0"
        same(s.api("GET", at), (200, compact(route)))
        same(s.api("GET", "/id/first/handle/0/body"), (200, compact(route["handle"][0]["body"])))
        same(s.api("GET", "/id/none")[0], 404)
        _, _, fields = with_fields(s, "GET", at)
        same(with_fields(s, "PATCH", at + "/handle/0", answer("two"), {"If-Match": fields["Etag"]})[0], 200)
        same(s.get(), (200, b"two"))
        same(with_fields(s, "PATCH", at + "/handle/0", answer("three"), {"If-Match": fields["Etag"]})[0], 412)
        same(s.get(), (200, b"two"))
        same(s.api("PATCH", "/id/first/handle/0", {"handler": "none"})[0], 500)
        same(s.api("PUT", "/id/7/terminal", True)[0], 200)
        s.document["apps"]["http"]["servers"]["srv0"]["routes"] = [
            {**route, "handle": [answer("two")]}, {"@id": 7, "handle": [answer("rest")], "terminal": True}]
        same(s.api("GET", "/config/"), (200, compact(s.document)))
    finally:
        same(s.end(), 0)


def the_same_again(io):
    s = Server(PORTICO, io)
    try:
        same(s.api("POST", "/load", s.document)[0], 200)
        s.wait(lambda: s.text().count("config is unchanged") == 1)
        same(s.api("POST", "/load", backwards(s.document))[0], 200)
        s.wait(lambda: s.text().count("config is unchanged") == 2)
        s.document["apps"]["http"]["servers"]["srv0"]["routes"][0]["handle"][0]["body"] = "eno"
        same(s.api("POST", "/load", s.document)[0], 200)
        same(s.get(), (200, b"eno"))
        same(s.text().count("config is unchanged"), 2)
    finally:
        same(s.end(), 0)


def judges_ports(io):
    s = Server(PORTICO, io, apps={"ports": {"@id": "ports", "declarations": [
        {"@id": "one", "ports": ["9"], "reach": "device", "name": "none yet"}]}})
    try:
        status, body = s.api("GET", "/ports")
        same(status, 200)
        has(body, "none yet")
        same(s.api("PATCH", "/id/one/name", "another")[0], 200)
        has(s.api("GET", "/ports")[1], "another")
    finally:
        same(s.end(), 0)


def nested(levels):
    value = answer("bottom")
    for _ in range(levels):
        value = {"handler": "subroute", "routes": [{"handle": [value]}]}
    return value


def too_deep(io):
    s = Server(PORTICO, io)
    routes = "/config/apps/http/servers/srv0/routes"
    try:
        status, body = s.api("POST", routes, {"handle": [nested(260)]})
        same(status, 400)
        has(body, "deeper than 1000 levels")
        same(s.api("POST", routes, {"handle": [nested(10)]})[0], 200)
        status, body = s.api("PATCH", routes + "/1" + "/handle/0/routes/0" * 10 + "/handle/0", nested(245))
        same(status, 500)
        has(body, "deeper than 1000 levels")
        same(s.get(), (200, b"one"))
    finally:
        same(s.end(), 0)


def sites(count):
    return [{"match": [{"host": [f"s{i}.example.com"]}], "terminal": True, "handle": [
        {"handler": "subroute", "routes": [{"handle": [answer(f"site {i}")]}]}]} for i in range(count)]


def costs_little(io):
    if SANITIZED:
        raise Skip("sanitizers keep what is freed")
    figures = []
    for count in (1, SITES):
        s = Server(PORTICO, io, workers=1, members={"automatic_https": {"disable": True}},
                   routes=sites(count) + [{"handle": [answer("any")]}])
        try:
            s.wait(lambda: os.path.exists(f"{s.folder.name}/portico/autosave.json"))
            s.wait(lambda n=count: not figures or s.resident_kib() - figures[0] < n * KIB_PER_SITE)
            figures.append(s.resident_kib())
            if count == 1:
                continue
            for _ in range(3):  # the tree of a change goes again
                same(s.api("PATCH", f"/config/apps/http/servers/srv0/routes/{count}/handle/0",
                           answer("all"))[0], 200)
                same(len(s.api("GET", "/config/")[1]) > 100 * count, True)
            s.wait(lambda n=count: s.resident_kib() - figures[0] < n * KIB_PER_SITE)
        finally:
            same(s.end(), 0)


run_cases([
    ("the API reads and changes the running document by paths, ids and tags", reads_and_changes, ["epoll"]),
    ("the same document in another order is known again", the_same_again, ["epoll"]),
    ("ports are judged by the running document, also one with ids", judges_ports, ["epoll"]),
    ("what nests too deep is refused, as a whole and by a change", too_deep, ["epoll"]),
    ("a site costs little memory, and what is changed or read whole is given back", costs_little, ["epoll"]),
])
