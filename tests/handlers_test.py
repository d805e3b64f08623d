#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Handlers through the whole program, on both I/O back ends, as TAP: authentication, trusted proxies,
intercept, request_body, map, named routes. Usage: handlers_test.py PORTICO."""
import base64
import http.client
import tempfile
import threading

from server import run_cases, same, with_server

# U*U, at the lowest cost
HASH = "$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW"


def text(body, **more):
    return {"handler": "static_response", "body": body, **more}


def ask(s, path="/", method="GET", body=None, **fields):
    c = http.client.HTTPConnection("127.0.0.1", s.port, timeout=60)
    try:
        c.request(method, path, body, {k.replace("_", "-"): v for k, v in fields.items()})
        answer = c.getresponse()
        return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read().decode()
    finally:
        c.close()


def serve(s, *handlers, **members):
    srv = s.document["apps"]["http"]["servers"]["srv0"]
    s.document["apps"]["http"]["servers"]["srv0"] = {
        "listen": srv["listen"], "routes": [{"handle": list(handlers)}], **members}
    status, said = s.api("POST", "/load", s.document)
    assert status == 200, said


def basic(name, password):
    return "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()


def signs_in(s):
    serve(s, {"handler": "authentication", "providers": {"http_basic": {
        "accounts": [{"username": "bob", "password": HASH}], "realm": "here"}}},
        text("hello {http.auth.user.id}"),
        errors={"routes": [{"handle": [text("no: {http.error.status_code}")]}]})
    status, fields, body = ask(s)
    same((status, fields["www-authenticate"], body), (401, 'Basic realm="here"', "no: 401"))
    same(ask(s, Authorization=basic("bob", "U*V"))[0], 401)
    same(ask(s, Authorization=basic("eve", "U*U"))[0], 401)
    for _ in range(3):
        status, fields, body = ask(s, Authorization=basic("bob", "U*U"))
        same((status, body), (200, "hello bob"))
        assert "www-authenticate" not in fields
    failed = []

    def many():
        try:
            for i in range(25):
                same(ask(s, Authorization=basic("bob", "U*U"))[0], 200)
                same(ask(s, Authorization=basic("bob", f"wrong{i}"))[0], 401)
        except Exception as e:  # told by the case
            failed.append(repr(e))

    threads = [threading.Thread(target=many) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    same(failed, [])
    assert "U*U" not in s.text()


def hopeless_accounts(s):
    """A hash that is none shuts its account, and nothing else: not the site, not the others."""
    hopeless = ("$2a$14$short", "$argon2id$v=18$x", "$1$md5", base64.b64encode(b"plain").decode())
    serve(s, {"handler": "authentication", "providers": {"http_basic": {"accounts": [
        {"username": f"u{i}", "password": text} for i, text in enumerate(hopeless)] + [
            {"username": "bob", "password": HASH}]}}}, text("hello {http.auth.user.id}"))
    s.wait(lambda: s.text().count("nobody can log in to this account") == len(hopeless))
    s.wait(lambda: "the password is no whole bcrypt hash" in s.text())
    same(ask(s, Authorization=basic("bob", "U*U"))[0], 200)
    same(ask(s, Authorization=basic("u0", ""))[0], 401)  # each costs a second of hashing
    same(ask(s, Authorization=basic("u3", "plain"))[0], 401)


def proxies(s):
    who = text("{http.vars.client_ip} {http.vars.trusted_proxy}")
    serve(s, who)
    same(ask(s, X_Forwarded_For="192.0.2.7")[2], "127.0.0.1 false")
    trusted = {"source": "static", "ranges": ["127.0.0.0/8", "10.0.0.0/8"]}
    serve(s, {"handler": "headers", "request": {"set": {"X-Forwarded-For": ["6.6.6.6"]}}}, who,
          trusted_proxies=trusted)
    same(ask(s, X_Forwarded_For="192.0.2.7, 10.0.0.1")[2], "192.0.2.7 true")
    same(ask(s)[2], "127.0.0.1 true")
    serve(s, who, trusted_proxies=trusted, trusted_proxies_strict=1,
          client_ip_headers=["X-Real-IP", "X-Forwarded-For"])
    same(ask(s, X_Forwarded_For="192.0.2.7, 192.0.2.8, 10.0.0.1")[2], "192.0.2.8 true")
    same(ask(s, X_Real_IP="192.0.2.9", X_Forwarded_For="192.0.2.7")[2], "192.0.2.9 true")
    serve(s, {"handler": "subroute", "routes": [
        {"match": [{"client_ip": {"ranges": ["192.0.2.0/24"]}}], "handle": [text("guest")]},
        {"match": [{"remote_ip": {"ranges": ["127.0.0.1"]}}], "handle": [text("local")]}]},
        trusted_proxies=trusted)
    same(ask(s, X_Forwarded_For="192.0.2.7")[2], "guest")
    same(ask(s)[2], "local")


def intercepts(s):
    serve(s, {"handler": "intercept", "handle_response": [
        {"match": {"status_code": [404]}, "status_code": "203"},
        {"match": {"headers": {"X-Go": ["*"]}}, "routes": [{"handle": [text(
            "went to {http.intercept.header.X-Go} from {http.intercept.status_code}",
            status_code=202)]}]},
        {"match": {"status_code": [5]}, "routes": [{"handle": [
            {"handler": "headers", "response": {"set": {"X-Seen": ["{http.intercept.status_code}"]}}}]}]},
        {"match": {"status_code": [403]}, "routes": [{"handle": [
            {"handler": "error", "error": "again", "status_code": 410}]}]},
    ]}, {"handler": "subroute", "routes": [
        {"match": [{"path": ["/404"]}], "handle": [text("lost", status_code=404)], "terminal": True},
        {"match": [{"path": ["/go"]}], "terminal": True,
         "handle": [text("original", headers={"X-Go": ["/there"]})]},
        {"match": [{"path": ["/500"]}], "handle": [text("broken", status_code=500)], "terminal": True},
        {"match": [{"path": ["/403"]}], "handle": [text("no", status_code=403)], "terminal": True},
        {"match": [{"path": ["/fail"]}], "handle": [{"handler": "error", "status_code": 418}],
         "terminal": True},
        {"handle": [text("plain")]}]},
        errors={"routes": [{"handle": [text("error {http.error.status_code}")]}]})
    same(ask(s, "/")[::2], (200, "plain"))
    same(ask(s, "/404")[::2], (203, "lost"))
    same(ask(s, "/go")[::2], (202, "went to /there from 200"))
    status, fields, body = ask(s, "/500")
    same((status, fields["x-seen"], body), (500, "500", "broken"))
    same(ask(s, "/403")[::2], (410, "error 410"))
    same(ask(s, "/fail")[::2], (418, "error 418"))
    status, fields, body = ask(s, "/go", "HEAD")
    same((status, fields["content-length"], body), (202, "23", ""))


def error_pages(s):
    with tempfile.TemporaryDirectory() as root:
        with open(f"{root}/lost", "w") as f:
            f.write("an error page")
        serve(s, {"handler": "error", "status_code": 404}, errors={"routes": [
            {"match": [{"path": ["/empty"]}], "terminal": True,
             "handle": [{"handler": "vars", "x": "{http.error.trace}"}]},
            {"handle": [{"handler": "file_server", "root": root}]}]})
        status, fields, body = ask(s, "/empty")
        same((status, fields["content-length"], body), (404, "0", ""))
        same(ask(s, "/lost")[::2], (404, "an error page"))
        same(ask(s, "/lost", **{"If-None-Match": "*"})[::2], (404, "an error page"))
        same(ask(s, "/lost", Range="bytes=0-1")[::2], (404, "an error page"))


def bodies(s):
    serve(s, {"handler": "request_body", "set": "{http.request.method} it"},
          text("{http.request.body}"))
    same(ask(s, "/", "POST", "what came")[::2], (200, "POST it"))
    serve(s, {"handler": "request_body", "max_size": 3}, text("<{http.request.body}>"))
    same(ask(s, "/", "POST", "abc")[::2], (200, "<abc>"))
    same(ask(s, "/", "POST", "abcd")[::2], (200, "<>"))
    serve(s, {"handler": "request_body", "set": "{http.request.method} it"},
          text("{http.request.body}"))
    same(ask(s, "/", "POST", "x" * 100000)[0], 200)  # the original is read away
    serve(s, text("{http.request.body}|{http.request.body_base64}"))
    same(ask(s, "/", "POST", "what came")[2], "what came|d2hhdCBjYW1l")
    same(ask(s)[2], "|")
    same(len(ask(s, "/", "POST", "x" * (3 << 20))[2]), 1)  # beyond the limit: no value


def maps(s):
    serve(s, {"handler": "map", "source": "{http.request.uri.path}", "destinations": ["{to}", "{n}"],
              "mappings": [{"input": "/a", "outputs": ["alpha", None]},
                           {"input_regexp": "^/(b+)$", "outputs": ["<$1>", 2]}],
              "defaults": ["none", "0"]},
          {"handler": "headers", "response": {"set": {"X-To": ["{to}"]}}}, text("{to} {n}"))
    same(ask(s, "/a")[2], "alpha 0")
    status, fields, body = ask(s, "/bbb")
    same((body, fields["x-to"]), ("<bbb> 2", "<bbb>"))
    same(ask(s, "/c")[2], "none 0")


def named(s):
    serve(s, {"handler": "invoke", "name": "page"}, text("behind"),
          named_routes={"page": {"match": [{"path": ["/in"]}], "handle": [text("named")]}})
    same(ask(s, "/in")[2], "named")
    same(ask(s, "/out")[2], "behind")
    s.document["apps"]["http"]["servers"]["srv0"]["named_routes"] = {}
    status, said = s.api("POST", "/load", s.document)
    same(status, 400)
    assert "invoke: route 'page' not found" in said, said
    same(ask(s, "/in")[2], "named")


CASES = [
    ("basic authentication lets in who it should, also many at once", signs_in),
    ("an account whose hash is none lets nobody in, and the site is served", hopeless_accounts),
    ("trusted proxies name the client", proxies),
    ("responses are intercepted by status and fields", intercepts),
    ("a body is replaced", bodies),
    ("placeholders are mapped", maps),
    ("named routes are invoked", named),
    ("error pages have the error's status whatever the conditions", error_pages),
]


run_cases([(name, with_server(case, body="hello")) for name, case in CASES])
