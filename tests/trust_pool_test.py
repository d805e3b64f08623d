#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Whom to trust, from every source that Caddy has: clients that show certificates, and upstreams, through
the whole program, as TAP. Usage: trust_pool_test.py PORTICO [TEXT]."""
import http.server
import json
import os
import ssl
import subprocess
import sys
import threading

sys.dont_write_bytecode = True
from https_test import PORTICO, Site, fails, key, make_keys, make_leaf  # noqa: E402 (beside this file)
from server import run_cases, same  # noqa: E402


def text(name):
    with open(key(name), encoding="ascii") as f:
        return f.read()


def der(name):
    return "".join(text(name).split("-----")[2].split())


class Bundles:
    """PEM files by HTTP."""

    def __enter__(self):
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                body = text(os.path.basename(self.path)).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()


def pools(ca, url):
    """Each source, believing in an authority of the test."""
    return {
        "inline": f"inline {{\n trust_der {der(ca)}\n}}",
        "file": f"file KEYS/{ca}",
        "file-block": f"file {{\n pem_file KEYS/{ca}\n}}",
        "storage": f"storage trust/{ca}",
        "storage-block": f"storage {{\n keys trust/strangers.pem trust/{ca}\n}}",
        "own-storage": f"storage {{\n storage file_system FOLDER/other\n keys own/{ca}\n}}",
        "http": f"http {url}/{ca}",
        "http-block": f"http {{\n endpoints {url}/strangers.pem {url}/{ca}\n}}",
        "combined": f"combined {{\n source file KEYS/strangers.pem\n source storage trust/{ca}\n}}",
        "system": "system",
    }


def stored():
    return [(f"{at}/{name}", text(name)) for at in ("storage/trust", "other/own")
            for name in ("people.pem", "ca.pem", "strangers.pem", "alice.pem")]


OPTIONS = "\tstorage file_system FOLDER/storage\n\tpki {\n\t\tca local {\n\t\t\tname Test\n\t\t}\n\t}\n"


def sites(of, option):
    return "".join(f"""
{name}.test {{
    tls KEYS/all.pem KEYS/all.key {{
        client_auth {{
            {option.replace("POOL", pool)}
        }}
    }}
    respond {{tls_client_subject}}
}}
""" for name, pool in of.items())


def clients(io):
    with Bundles() as b:
        of = pools("people.pem", b.url)
        with Site(io, sites(of, "trust_pool POOL"), OPTIONS, stored(),
                  {"SSL_CERT_FILE": key("people.pem")}) as s:
            for name in of:
                same((name, s.get(f"{name}.test", client="alice")), (name, (200, "CN=alice,O=alice")))
                fails(s.get, f"{name}.test")
                if "block" not in name and name != "combined":
                    fails(s.get, f"{name}.test", client="mallory")
                fails(s.get, f"{name}.test", client="web")


def clients_of_ours(io):
    """The local authority's leaves are for clients, too."""
    text_of_sites = sites({"root": "pki_root local", "intermediate": "pki_intermediate local"},
                          "trust_pool POOL") + "in.localhost {\n\ttls internal\n\trespond in\n}\n"
    with Site(io, text_of_sites, OPTIONS) as s:
        place = f"{s.folder.name}/storage/certificates/local/in.localhost/in.localhost"
        s.wait(lambda: os.path.exists(place + ".json"))
        for name in ("root.test", "intermediate.test"):
            context = ssl.create_default_context(cafile=key("ca.pem"))
            context.load_cert_chain(place + ".crt", place + ".key")
            same(s.get(name, context=context)[0], 200)
            fails(s.get, name, client="alice")
            fails(s.get, name)


LOADERS = {
    "file": "file KEYS/alice.pem",
    "file-more": "{\n file KEYS/web.pem\n file KEYS/alice.pem\n}",
    "folder": "folder FOLDER/clients",
    "pem": "pem PEM",
    "storage": "storage trust/alice.pem",
}


def leaves(io):
    of = {name: loader.replace("PEM", '"' + text("alice.pem") + '"') for name, loader in LOADERS.items()}
    files = stored() + [("clients/a/alice.PEM", text("alice.pem")), ("clients/notes.txt", "none")]
    site = sites(of, "mode require\n verifier leaf POOL") + sites(
        {"known": "file KEYS/people.pem\n verifier leaf file KEYS/alice.pem"}, "trust_pool POOL")
    with Site(io, site, OPTIONS, files) as s:
        for name in list(of) + ["known"]:
            same((name, s.get(f"{name}.test", client="alice")), (name, (200, "CN=alice,O=alice")))
            fails(s.get, f"{name}.test", client="bob")
            fails(s.get, f"{name}.test")


def as_json(io):
    """What has no form in a Caddyfile of Caddy's: leaves of a storage, one of their own."""
    with Site(io, sites({"a": "storage trust/alice.pem"}, "mode require\n verifier leaf POOL"), OPTIONS,
              stored()) as s:
        done = subprocess.run([PORTICO, "adapt"], cwd=s.folder.name, capture_output=True, text=True,
                              check=True)
        document = json.loads(done.stdout)
        policy = document["apps"]["http"]["servers"]["srv0"]["tls_connection_policies"][0]
        same(policy["client_authentication"]["verifiers"],
             [{"leaf_certs_loaders": [{"certificates": ["trust/alice.pem"], "loader": "storage"}],
               "verifier": "leaf"}])
        policy["client_authentication"]["verifiers"] = [
            {"verifier": "leaf", "leaf_certs_loaders": [
                {"loader": "storage", "certificates": ["own/alice.pem"],
                 "storage": {"module": "file_system", "root": f"{s.folder.name}/other"}}]}]

        def load():
            s.write("new.json", json.dumps(document))
            return subprocess.run([PORTICO, "reload", "--config", "new.json", "--address",
                                   f"localhost:{s.ports['ADMIN']}"], cwd=s.folder.name,
                                  capture_output=True, text=True, timeout=120)

        same(load().returncode, 0)
        same(s.get("a.test", client="alice")[0], 200)
        fails(s.get, "a.test", client="bob")
        loader = policy["client_authentication"]["verifiers"][0]["leaf_certs_loaders"][0]
        for change, sentence in (({"certificates": ["own/none.pem"]}, "own/none.pem"),
                                 ({"certificates": ["empty.pem"]}, "no CERTIFICATE pem block found"),
                                 ({"storage": {"module": "redis"}}, "caddy.storage.redis"),
                                 ({"storage": {"module": "file_system", "rot": "x"}}, "rot")):
            os.makedirs(f"{s.folder.name}/other", exist_ok=True)
            s.write("other/empty.pem", "nothing\n")
            kept = dict(loader)
            loader.update(change)
            done = load()
            assert done.returncode == 1 and sentence in done.stderr, done.stderr
            loader.clear()
            loader.update(kept)
        same(s.get("a.test", client="alice")[0], 200)


def upstreams(io):
    with Bundles() as b:
        of = {**pools("ca.pem", b.url), "pki-root": "pki_root local",
              "pki-intermediate": "pki_intermediate local", "wrong": "file KEYS/strangers.pem"}
        ways = ""
        for name, pool in of.items():
            host = "in.localhost" if name.startswith("pki") else "up.test"
            ways += f"""
    handle /{name} {{
        reverse_proxy https://127.0.0.1:HTTPS {{
            header_up Host {host}
            transport http {{
                tls_server_name {host}
                tls_trust_pool {pool}
            }}
        }}
    }}"""
        site = (f"http://localhost:OTHER {{{ways}\n}}\n"
                "up.test {\n\ttls KEYS/all.pem KEYS/all.key\n\trespond up\n}\n"
                "in.localhost {\n\ttls internal\n\trespond in\n}\n")
        with Site(io, site, OPTIONS, stored(), {"SSL_CERT_FILE": key("ca.pem")}) as s:
            s.wait(lambda: "obtained successfully" in s.text())
            for name in of:
                status, _, body = s.plain(f"/{name}", "localhost", "OTHER")
                assert (status, body) == ((502, "") if name == "wrong" else
                                          (200, "in" if name.startswith("pki") else "up")), (
                    name, status, body, s.text()[-1500:])


def of_the_manager(io):
    """What a gateway shows is obtained for it, and looked up when an upstream asks."""
    def gateway(path, name):
        return f"""
    handle /{path} {{
        reverse_proxy https://127.0.0.1:HTTPS {{
            header_up Host root.test
            transport http {{
                tls_server_name root.test
                tls_trust_pool file KEYS/ca.pem
                tls_client_auth {name}
            }}
        }}
    }}"""

    site = sites({"root": "pki_root local"}, "trust_pool POOL").replace(
        "{tls_client_subject}", "{http.request.tls.client.san.dns_names.0}")
    options = OPTIONS + "\tcert_issuer acme {\n\t\tdir http://127.0.0.1:1/directory\n\t}\n"
    front = f"""http://localhost:OTHER {{{gateway("robot", "Robot.internal")}{gateway("none", "r.example.com")}
}}
"""
    inner = "robot.internal {\n\ttls internal\n\trespond no\n}\n"
    with Site(io, site + inner + front, options, (), {"SSL_CERT_FILE": key("ca.pem")}) as s:
        s.wait(lambda: s.plain("/robot", "localhost", "OTHER")[0] == 200)
        same(s.plain("/robot", "localhost", "OTHER")[2], "robot.internal")
        same(s.plain("/none", "localhost", "OTHER")[0], 502)
        s.wait(lambda: "no client certificate found for automate name: r.example.com" in s.text())
        s.reload(site + front.replace("Robot", "other") +
                 "other.internal {\n\ttls internal\n\trespond no\n}\n")
        s.wait(lambda: s.plain("/robot", "localhost", "OTHER")[2] == "other.internal")
    alone = OPTIONS + "\tlocal_certs\n"
    with Site(io, site + front, alone, (), {"SSL_CERT_FILE": key("ca.pem")}) as s:
        s.wait(lambda: s.plain("/none", "localhost", "OTHER")[2] == "r.example.com")


def refusals(io):
    with Site(io, "a.test {\n\ttls KEYS/all.pem KEYS/all.key\n\trespond hi\n}\n", OPTIONS, stored()) as s:
        for pool, sentence in (("storage trust/none.pem", "trust/none.pem"), ("storage", "no PEM keys"),
                               ("inline {\n trust_der !!\n}", "not base64"),
                               ("combined {\n source system\n}", "cannot be combined"),
                               ("pki_root nobody", "nobody"), ("file KEYS/none.pem", "none.pem"),
                               ("http http://127.0.0.1:1/x", "127.0.0.1:1")):
            s.write("bad", s.caddyfile(sites({"a": pool}, "trust_pool POOL")))
            done = subprocess.run([PORTICO, "validate", "--config", "bad", "--adapter", "caddyfile"],
                                  cwd=s.folder.name, capture_output=True, text=True, timeout=120)
            assert done.returncode == 1 and sentence in done.stderr, (pool, done.stderr)


CASES = [
    ("clients are believed by every source of authorities", clients),
    ("clients are believed by the local authority's root, and by its intermediate", clients_of_ours),
    ("clients are known one by one, by every loader of leaves", leaves),
    ("leaves come from a storage of their own, in JSON", as_json),
    ("upstreams are believed by every source of authorities", upstreams),
    ("a gateway shows upstreams a certificate that is obtained for it", of_the_manager),
    ("a source that gives nothing is refused when it is loaded", refusals, ("epoll",)),
]

if __name__ == "__main__":
    make_keys()
    make_leaf("all", "ca", [f"{n}.test" for n in (*pools("ca.pem", ""), *LOADERS, "root", "intermediate",
                                                  "known", "a", "up")])
    run_cases(CASES, at_once=2)
