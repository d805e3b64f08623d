#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The ACME client against an authority that the test plays (acme_server.py), as TAP: certificates,
accounts, challenges, everything that an authority may get wrong, crashes at every step.
Usage: acme_test.py ACME_DRIVER [TEXT]."""
import concurrent.futures
import datetime
import glob
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

sys.dont_write_bytecode = True
from forward_proxy import Proxy  # noqa: E402 (beside this file)
from patience import at_some_pace  # noqa: E402 (beside this file)
from server import free_port, has, same  # noqa: E402 (beside this file)

try:
    from acme_server import Authority, Fault, NAMESPACE, pem, web_files
    from dns_server import Names
    from cryptography import x509
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec, rsa
except ImportError as e:
    print("1..0 # SKIP %s" % e)
    sys.exit(0)

DRIVER = sys.argv[1]
WANTED = sys.argv[2] if len(sys.argv) > 2 else ""
TESTS = []


def test(sentence):
    return lambda function: TESTS.append((sentence, function))


class World:
    """A storage, ports for challenges, and the driver's runs."""

    def __init__(self):
        self.folder = tempfile.mkdtemp(prefix="acme-")
        self.http, self.https = free_port(), free_port()
        self.authorities = []

    def __enter__(self):
        return self

    def __exit__(self, *args):
        for ca in self.authorities:
            ca.stop()
        shutil.rmtree(self.folder)

    def authority(self, **options):
        options.setdefault("challenges", ("http-01",))
        ca = Authority(http_port=self.http, tls_port=self.https, **options).start()
        self.authorities.append(ca)
        return ca

    def task(self, ca, names=("a.example",), issuer=None, **options):
        task = {"storage": self.folder, "action": "issue", "names": list(names),
                "http_port": self.http, "https_port": self.https}
        task["issuer"] = dict({"module": "acme", "ca": ca.url, "email": "me@example.com"},
                              **(issuer or {}))
        task.update(options)
        return task

    def start(self, *args, env=None, **options):
        return subprocess.Popen([DRIVER, json.dumps(self.task(*args, **options))],
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                env=dict(os.environ, **(env or {})))

    def finish(self, process, many=False):
        out, err = process.communicate(timeout=120)
        self.err = err
        assert process.returncode == 0 and "Sanitizer" not in err and "runtime error" not in err, \
            "status %d: %s" % (process.returncode, err[-3000:])
        lines = [json.loads(line) for line in out.splitlines()]
        for line in lines:
            assert line.get("stack", 0) <= 56 << 10, "a fiber's stack of %d" % line["stack"]
        if many:
            return lines
        assert len(lines) == 1, (out, err[-3000:])
        return lines[0]

    def run(self, *args, many=False, **options):
        return self.finish(self.start(*args, **options), many)

    def good(self, *args, **options):
        result = self.run(*args, **options)
        assert result["ok"], result
        return result

    def bad(self, *args, **options):
        result = self.run(*args, **options)
        assert not result["ok"], result
        return result

    def users(self):
        return sorted(os.path.relpath(p, self.folder) for p in
                      glob.glob(self.folder + "/acme/*/users/*/*"))

    def tokens(self):
        return glob.glob(self.folder + "/acme/*/challenge_tokens/*")


def leaf(result):
    return x509.load_pem_x509_certificate(result["chain"].encode())


# --- certificates ---


@test("a certificate comes for several names, and a second one with the same account")
def _():
    with World() as w:
        ca = w.authority()
        result = w.good(ca, ["a.example", "b.example"])
        names = leaf(result).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        same(names.get_values_for_type(x509.DNSName), ["a.example", "b.example"])
        meta = json.loads(result["metadata"])
        same((meta["ca"], meta["account"]), (ca.url, list(ca.accounts)[0]))
        same(set(meta["renewal_info"]), {"suggestedWindow", "explanationURL", "_uniqueIdentifier",
                                         "_retryAfter", "_selectedTime"})
        w.good(ca, ["c.example"])
        same(ca.count("newAccount"), 1)
        same(w.tokens(), [])


@test("the account lies where certmagic has it, as it has it")
def _():
    with World() as w:
        ca = w.authority()
        w.good(ca, issuer={"email": " Some.Body+x@Example.COM "})
        base = "acme/127.0.0.1-%d-directory/users/some.body_plus_x@example.com/some.body_plus_x" % ca.port
        same(w.users(), [base + ".json", base + ".key"])
        text = open(os.path.join(w.folder, base + ".json")).read()
        account = json.loads(text)
        same(list(account), ["status", "contact", "termsOfServiceAgreed", "orders", "location"])
        same(account["contact"], ["mailto:some.body+x@example.com"])
        assert text.startswith('{\n\t"status": "valid",\n\t"contact": [\n\t\t"mailto:'), text
        key = open(os.path.join(w.folder, base + ".key")).read()
        assert key.startswith("-----BEGIN EC PRIVATE KEY-----\n"), key
        same(os.stat(os.path.join(w.folder, base + ".key")).st_mode & 0o777, 0o600)


@test("without an email the account is the one that was written last, or \"default\"")
def _():
    with World() as w:
        ca = w.authority()
        w.good(ca, issuer={"email": ""})
        same(sorted(p.split("/")[3] for p in w.users()), ["default", "default"])
        same(ca.log[1][1], {"termsOfServiceAgreed": True})
        w.good(ca, issuer={"email": ""})
        same(ca.count("newAccount"), 1)
        time.sleep(0.05)
        w.good(ca, issuer={"email": "b@example.com"})
        w.good(ca, issuer={"email": ""})
        same(ca.count("newAccount"), 2)
        same(len(w.users()), 4)


@test("an authority that tells no contacts is not asked for another account")
def _():
    with World() as w:
        ca = w.authority(tell_contacts=False)
        w.good(ca)
        w.good(ca)
        same(ca.count("newAccount"), 1)


@test("an address gets a certificate, too")
def _():
    with World() as w:
        ca = w.authority()
        result = w.good(ca, ["127.0.0.1"])
        names = leaf(result).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        same(len(names.get_values_for_type(x509.IPAddress)), 1)
        same([p for r, p in ca.log if r == "newOrder"][0]["identifiers"],
             [{"type": "ip", "value": "127.0.0.1"}])


@test("profile and lifetime are sent with the order; an unknown profile is a sentence")
def _():
    with World() as w:
        ca = w.authority(profiles={"classic": "c", "shortlived": "s"})
        result = w.good(ca, issuer={"profile": "shortlived", "certificate_lifetime": "48h"})
        order = [p for r, p in ca.log if r == "newOrder"][0]
        same(order["profile"], "shortlived")
        left = leaf(result).not_valid_after - datetime.datetime.utcnow()
        assert datetime.timedelta(hours=47) < left < datetime.timedelta(hours=49), left
        has(w.bad(ca, issuer={"profile": "x"})["why"],
            "unknown profile name 'x'; supported profiles: classic, shortlived")
        has(w.bad(w.authority(), issuer={"profile": "x"})["why"], "support for profiles")


@test("authorizations that are good already need no challenge")
def _():
    with World() as w:
        ca = w.authority(reuse=True)
        w.good(ca)
        w.good(ca)
        same(ca.count("challenge"), 1)


# --- chains ---


def root_of(result):
    last = result["chain"].split("-----BEGIN")[2]
    return x509.load_pem_x509_certificate(("-----BEGIN" + last).encode()).issuer.rfc4514_string()


@test("of several chains the preferred one is taken, the first one else")
def _():
    with World() as w:
        ca = w.authority(alternates=2)
        pick = lambda wish: w.good(ca, issuer={"preferred_chains": wish})
        same(root_of(w.good(ca)), "CN=First Root")
        same(root_of(pick({"root_common_name": ["Nobody", "Alternate2 Root"]})), "CN=Alternate2 Root")
        same(root_of(pick({"any_common_name": ["Alternate1 Root"]})), "CN=Alternate1 Root")
        same(root_of(pick({"any_common_name": ["Test Intermediate"]})), "CN=First Root")
        same(root_of(pick({"root_common_name": ["Nobody"]})), "CN=First Root")
        same(root_of(pick({"smallest": True})), "CN=First Root")
        assert root_of(pick({"smallest": False})) != "CN=First Root"


@test("an alternate chain that is broken costs nothing but a line")
def _():
    with World() as w:
        ca = w.authority(alternates=1)
        ca.faults.append(Fault("certificate", times=0))
        original = ca.do_certificate

        def broken(path, *args):
            status, text, headers, media = original(path, *args)
            return status, text if len(path) == 2 else "garbage", headers, media
        ca.do_certificate = broken
        same(root_of(w.good(ca)), "CN=First Root")
        has(w.err, "retrieving alternate certificate chain")


def wrong_certificate(change):
    with World() as w:
        ca = w.authority()
        ca.faults.append(Fault("certificate", change=lambda text: change(ca, text)))
        return w.bad(ca)["why"]


def other_leaf(ca, names, key=None, expired=False):
    order = list(ca.orders.values())[-1]
    order = dict(order, identifiers=[{"type": "dns", "value": n} for n in names])
    if key:
        class Request:
            extensions = ()

            @staticmethod
            def public_key():
                return key.public_key()
        order["csr"] = Request
    if expired:
        ca.lifetime = datetime.timedelta(minutes=-5)
    return pem(ca.leaf(order, ca.chains[0]))


@test("a certificate for another key, other names, one that is over, or no certificate is refused")
def _():
    key = ec.generate_private_key(ec.SECP256R1())
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
                                serialization.NoEncryption()).decode()
    has(wrong_certificate(lambda ca, t: other_leaf(ca, ["a.example"], key)), "for another key")
    has(wrong_certificate(lambda ca, t: other_leaf(ca, ["b.example"])), "lacks a name")
    has(wrong_certificate(lambda ca, t: other_leaf(ca, ["a.example"], expired=True)), "expired already")
    has(wrong_certificate(lambda ca, t: t + private), "not a certificate")
    has(wrong_certificate(lambda ca, t: "hello"), "no certificate in it")
    has(wrong_certificate(lambda ca, t: ""), "no certificate in it")
    has(wrong_certificate(lambda ca, t: t + t * 10), "longer than 16")
    has(wrong_certificate(lambda ca, t: t.replace("MII", "AAA")), "cannot be read")


@test("names that the authority adds are no reason to refuse")
def _():
    with World() as w:
        ca = w.authority()
        ca.faults.append(Fault("certificate",
                               change=lambda t: other_leaf(ca, ["www.a.example", "A.example"])))
        w.good(ca)


# --- failures ---


@test("bad nonces are tried again with new ones")
def _():
    with World() as w:
        ca = w.authority(nonce_reject=50)
        w.good(ca)
        ca.nonce_reject = 100
        result = w.bad(ca)
        has(result["why"], NAMESPACE + "badNonce")
        has(result["why"], "attempt 10")
        same(result["kind"], "transient")


@test("a rate limit is told as one, with the time that it takes")
def _():
    for resource in ("newOrder", "newAccount", "finalize"):
        with World() as w:
            ca = w.authority()
            ca.faults.append(Fault(resource, status=429, type="rateLimited", detail="too many",
                                   headers={"Retry-After": "77"}))
            result = w.bad(ca)
            same((result["kind"], result["retry_after"]), ("rate_limited", 77.0))
            has(result["why"], "HTTP 429 " + NAMESPACE + "rateLimited - too many")
            same(ca.count(resource), 1)


@test("Retry-After may be a date")
def _():
    with World() as w:
        ca = w.authority()
        at = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 3600))
        ca.faults.append(Fault("newOrder", status=503, type="rateLimited", times=9,
                               headers={"Retry-After": at}))
        result = w.bad(ca)
        assert 3500 < result["retry_after"] <= 3600, result
        same(result["kind"], "rate_limited")


@test("an error of the server is tried three times")
def _():
    with World() as w:
        ca = w.authority()
        ca.faults += [Fault("newOrder", status=500, times=2), Fault("directory", status=503)]
        w.good(ca)
        ca.faults.append(Fault("newOrder", status=500, times=9))
        has(w.bad(ca)["why"], "HTTP 500 " + NAMESPACE + "serverInternal")
        same(ca.count("newOrder"), 3 + 3)


@test("a request whose answer is lost at any step is made good, with one account")
def _():
    for resource in ("directory", "newNonce", "newAccount", "newOrder", "authz", "challenge", "order",
                     "finalize", "certificate", "renewalInfo"):
        for kind in ("cut", "swallow"):
            with World() as w:
                ca = w.authority(processing_polls=1)
                ca.faults.append(Fault(resource, **{kind: True}))
                w.good(ca)
                same((len(ca.accounts), len(w.users())), (1, 2))


@test("subproblems are told with their names")
def _():
    with World() as w:
        ca = w.authority()
        ca.faults.append(Fault("newOrder", status=400, type="compound", detail="two of them",
                               subproblems=[{"type": NAMESPACE + "caa", "detail": "not here",
                                             "identifier": {"type": "dns", "value": "a.example"}}]))
        has(w.bad(ca)["why"], "two of them, problem \"%scaa\": not here (dns_identifier=a.example)" %
            NAMESPACE)


GARBAGE = ["", "{", "[]", "nothing", "\0\0", "{" * 3000, '{"a":' * 100 + "1" + "}" * 100,
           '{"status":"valid","status":"x"}', '{"newNonce":"file:///x"}', "7"]


@test("garbage at any step is a sentence, never more")
def _():
    for resource in ("directory", "newAccount", "newOrder", "authz", "order", "finalize"):
        for garbage in GARBAGE:
            with World() as w:
                ca = w.authority(processing_polls=1)
                ca.faults.append(Fault(resource, raw=garbage, times=3))
                result = w.bad(ca)
                assert len(result["why"]) > 20, result
                same(result["kind"], "transient")
                same(w.tokens(), [])


@test("an answer that is endless is not read to its end")
def _():
    with World() as w:
        ca = w.authority()
        ca.faults.append(Fault("newOrder", raw='{"x":"' + "a" * (8 << 20) + '"}', times=9))
        w.bad(ca)


@test("URLs that lead from https to http, or elsewhere, are not followed")
def _():
    with World() as w:
        ca = w.authority()
        for url in ("file:///etc/passwd", "ldap://x/y", "http://", "//x/y", "http://x/\r\ny"):
            ca.faults.append(Fault("newOrder", change=lambda o, u=url: dict(o, authorizations=[u])))
            has(w.bad(ca)["why"], "not an http or https URL")


@test("challenges for a name that was not ordered are not solved")
def _():
    with World() as w:
        ca = w.authority()
        ca.faults.append(Fault("authz", change=lambda a: dict(
            a, identifier={"type": "dns", "value": "evil.example"})))
        has(w.bad(ca)["why"], "evil.example', which was not ordered")
        same(ca.count("challenge"), 0)


@test("a failed validation is told, and what was left open is given back")
def _():
    with World() as w:
        ca = w.authority()
        ca.http_port = free_port()
        result = w.bad(ca, ["a.example", "b.example"])
        has(result["why"], NAMESPACE + "connection")
        has(result["why"], "[a.example]")
        same([p for r, p in ca.log if r == "authz" and p], [{"status": "deactivated"}])
        same(sorted(z["status"] for z in ca.authzs.values()), ["deactivated", "invalid"])
        same(w.tokens(), [])


@test("no type of challenge in common is told with what there is")
def _():
    with World() as w:
        ca = w.authority(challenges=("dns-01", "odd-02"))
        has(w.bad(ca, issuer={"challenges": {"tls-alpn": {"disabled": True}}})["why"],
            "a.example: no solvers available for remaining challenges (configured=[http-01] "
            "offered=[dns-01 odd-02])")


@test("slow validations and slow issuance are waited for, at the pace that is asked")
def _():
    with World() as w:
        ca = w.authority(pending_polls=3, processing_polls=2)
        w.good(ca)
        ca.retry_after = "1"
        ca.pending_polls, ca.processing_polls = 1, 1
        start = time.time()
        w.good(ca)
        assert time.time() - start >= 1, "it did not wait"


@test("acme_timeout ends what takes too long")
def _():
    def case(pace):
        limit = {"acme_timeout": f"{pace}s"}
        with World() as w:
            ca = w.authority(pending_polls=1000)
            has(w.bad(ca, issuer=limit)["why"], "authorization took too long")
            ca.pending_polls, ca.processing_polls = 0, 1000
            has(w.bad(ca, issuer=limit)["why"], "order took too long")
            ca.processing_polls, ca.retry_after = 1000, "100000"
            start = time.time()
            has(w.bad(ca, issuer=limit)["why"], "order took too long")
            assert time.time() - start < 20 + pace
    at_some_pace(case)


@test("a cancel ends it soon and takes the challenge away")
def _():
    with World() as w:
        ca = w.authority(pending_polls=1000)
        result = w.bad(ca, cancel_ms=1500)
        same(result["error"], "cancelled")
        ca.faults.append(Fault("newOrder", delay=5))
        w.bad(ca, cancel_ms=500)


@test("an authority that is not there is a sentence")
def _():
    with World() as w:
        ca = w.authority()
        ca.stop()
        w.authorities.clear()
        result = w.bad(ca)
        has(result["why"], "directory http://127.0.0.1:%d/directory: " % ca.port)


# --- accounts ---


@test("many fibers at once make one account, and so do many processes")
def _():
    with World() as w:
        ca = w.authority()
        results = w.run(ca, parallel=6, many=True)
        same([r.get("why") for r in results], [None] * 6)
        same(ca.count("newAccount"), 1)
    with World() as w:
        ca = w.authority(validate=False)  # their listeners come and go: that is another test
        processes = [w.start(ca, ["n%d.example" % i]) for i in range(5)]
        for p in processes:
            assert w.finish(p)["ok"], w.err
        same(ca.count("newAccount"), 1)


@test("killed at any step, the next run goes on with the one account")
def _():
    for resource in ("directory", "newAccount", "newOrder", "authz", "challenge", "order", "finalize",
                     "certificate"):
        for late in (False, True):
            with World() as w:
                ca = w.authority(processing_polls=1)
                ca.faults.append(Fault(resource, delay=0 if late else 3))
                p = w.start(ca)
                deadline = time.time() + 20
                while time.time() < deadline and p.poll() is None and \
                        (ca.count(resource) == 0 if late else ca.faults[0].times > 0):
                    time.sleep(0.005)
                p.send_signal(signal.SIGKILL)
                p.communicate()
                time.sleep(0.05)
                w.good(ca)
                same((len(ca.accounts), len(w.users())), (1, 2))


@test("an account that the authority has forgotten is made anew with a new key")
def _():
    with World() as w:
        ca = w.authority()
        w.good(ca)
        key = open(os.path.join(w.folder, w.users()[1])).read()
        ca.accounts.clear()
        w.good(ca)
        same((ca.count("newAccount"), len(ca.accounts)), (2, 1))
        assert open(os.path.join(w.folder, w.users()[1])).read() != key
        has(w.err, "attempting to recreate")


@test("a stored account that cannot be read is told, not overwritten")
def _():
    with World() as w:
        ca = w.authority()
        w.good(ca)
        path = os.path.join(w.folder, w.users()[0])
        for text in ("{", "[]", '{"location":"x"}'):
            open(path, "w").write(text)
            has(w.bad(ca)["why"], "me.json")
            same(open(path).read(), text)
        same(ca.count("newAccount"), 1)


@test("the terms are agreed to, and a deactivated account is told")
def _():
    with World() as w:
        ca = w.authority()
        w.good(ca)
        path = os.path.join(w.folder, w.users()[0])
        account = json.load(open(path))
        json.dump(dict(account, status="deactivated"), open(path, "w"))
        has(w.bad(ca)["why"], "account status is not valid: deactivated")


def account_key(kind):
    key = rsa.generate_private_key(65537, 2048) if kind == "rsa" else ec.generate_private_key(kind)
    return key.private_bytes(serialization.Encoding.PEM,
                             serialization.PrivateFormat.TraditionalOpenSSL,
                             serialization.NoEncryption()).decode()


@test("a configured account key finds its account, of any kind of key")
def _():
    for kind in (ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1(), "rsa"):
        with World() as w:
            ca = w.authority()
            key = account_key(kind)
            has(w.bad(ca, issuer={"account_key": key})["why"], "accountDoesNotExist")
            same(ca.count("newAccount"), 1)
            os.makedirs(w.folder + "/acme/127.0.0.1-%d-directory/users/me@example.com" % ca.port)
            open(w.folder + "/acme/127.0.0.1-%d-directory/users/me@example.com/me.key" % ca.port,
                 "w").write(key)
            w.good(ca)  # registers with the key that lies there
            w.good(ca, issuer={"account_key": key})
            same(ca.count("newAccount"), 2)
            shutil.rmtree(w.folder + "/acme")
            w.good(ca, issuer={"account_key": key, "email": ""})
            same(len(ca.accounts), 1)
            w.good(ca, issuer={"account_key": key, "email": ""})
            same(len(w.users()), 2)


@test("an external account is bound, and told when it is wrong")
def _():
    with World() as w:
        ca = w.authority(binding={"kid-1": b"secret" * 6})
        good = {"key_id": "kid-1", "mac_key": "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0"}
        has(w.bad(ca)["why"], "externalAccountRequired")
        has(w.bad(ca, issuer={"external_account": dict(good, mac_key="AAAA")})["why"], "unauthorized")
        has(w.bad(ca, issuer={"external_account": dict(good, mac_key="*")})["why"], "not base64url")
        w.good(ca, issuer={"external_account": good})
        same(len(w.users()), 2)


@test("contacts are changed, here and there")
def _():
    with World() as w:
        ca = w.authority()
        w.good(ca)
        assert w.run(ca, action="contacts", contacts=["mailto:x@example.com"])["ok"]
        same(list(ca.accounts.values())[0]["contact"], ["mailto:x@example.com"])
        same(json.load(open(os.path.join(w.folder, w.users()[0])))["contact"],
             ["mailto:x@example.com"])


@test("an account's key is changed; a crash in between leaves an account that works")
def _():
    with World() as w:
        ca = w.authority()
        w.good(ca)
        key = lambda: open(os.path.join(w.folder, w.users()[1])).read()
        old = key()
        assert w.run(ca, action="change_key")["ok"]
        assert key() != old
        w.good(ca)
        ca.faults.append(Fault("keyChange", status=400, type="malformed"))
        old = key()
        assert not w.run(ca, action="change_key")["ok"]
        same(key(), old)
        same(len(w.users()), 2)
        for resource, when in (("keyChange", "before"), ("keyChange", "after")):
            ca.faults.append(Fault("keyChange", delay=3) if when == "before" else
                             Fault("keyChange", swallow=True, times=1))
            if when == "after":
                ca.faults.append(Fault("keyChange", delay=3))
            p = w.start(ca, action="change_key")
            deadline = time.time() + 20
            while ca.faults[-1].times > 0 and time.time() < deadline:
                time.sleep(0.01)
            p.kill()
            p.communicate()
            time.sleep(3.2)
            assert len(w.users()) == 3, w.users()
            w.good(ca)
            same((len(w.users()), len(ca.accounts)), (2, 1))


@test("a certificate is revoked by its account")
def _():
    with World() as w:
        ca = w.authority()
        result = w.good(ca)
        assert w.run(ca, action="revoke", chain=result["chain"])["ok"]
        same(ca.revoked, [leaf(result).serial_number])
        has(w.bad(ca, action="revoke", chain=result["chain"])["why"], "alreadyRevoked")
        has(w.bad(ca, action="revoke", chain="x")["why"], "cannot be read")


@test("an account is deactivated and forgotten")
def _():
    with World() as w:
        ca = w.authority()
        w.good(ca)
        assert w.run(ca, action="deactivate")["ok"]
        same(w.users(), [])


# --- renewal information ---


@test("the window of a renewal is asked for, and what was replaced is told")
def _():
    with World() as w:
        ca = w.authority()
        result = w.good(ca)
        window = w.run(ca, action="window", chain=result["chain"])
        assert window["ok"] and window["end"] > window["start"] > time.time(), window
        same((window["look_again"], window["explanation"]), (21600, ca.base + "/why"))
        w.good(ca, replaces=window["ari_id"])
        same([p.get("replaces") for r, p in ca.log if r == "newOrder"], [None, window["ari_id"]])
        w.good(ca, replaces=window["ari_id"])  # alreadyReplaced: again without
        same([p.get("replaces") for r, p in ca.log if r == "newOrder"][2:], [window["ari_id"], None])
        assert not w.run(ca, action="window", ari_id="AAAA.BBBB")["ok"]
        same(w.run(w.authority(ari=False), action="window", ari_id="AAAA.BBBB")["error"],
             "not supported")


# --- the test authority ---


@test("a retry goes to the test authority first, and is good when the real one is")
def _():
    with World() as w:
        real, trial = w.authority(), w.authority()
        issuer = {"test_ca": trial.url}
        w.good(real, issuer=issuer)
        same(trial.count("newOrder"), 0)
        result = w.good(real, issuer=issuer, attempt=1, replaces="AA.BB")
        same((trial.count("newOrder"), real.count("newOrder")), (1, 2))
        same(json.loads(result["metadata"])["ca"], real.url)
        same([p.get("replaces") for r, p in trial.log if r == "newOrder"], [None])
        trial.faults.append(Fault("newOrder", status=403, type="rejectedIdentifier"))
        same(w.bad(real, issuer=issuer, attempt=2)["kind"], "transient")
        same(real.count("newOrder"), 2)
        real.faults.append(Fault("newOrder", status=403, type="rejectedIdentifier"))
        same(w.bad(real, issuer=issuer, attempt=2)["kind"], "rejected")
        real.faults.append(Fault("newOrder", status=429, type="rateLimited"))
        same(w.bad(real, issuer=issuer, attempt=3)["kind"], "rate_limited")


# --- challenges ---


@test("what another instance needs to answer lies in the storage while it is needed")
def _():
    for distributed in (True, False):
        with World() as w:
            ca = w.authority()
            seen = []
            original = ca.validate_http_01

            def look(authz, challenge, answer):
                seen.extend((os.path.relpath(p, w.folder), json.load(open(p))) for p in w.tokens())
                original(authz, challenge, answer)
                seen.append((challenge, answer))
            ca.validate_http_01 = look
            w.good(ca, issuer={"challenges": {"distributed": distributed}})
            same(w.tokens(), [])
            if not distributed:
                same(len(seen), 1)
                continue
            (path, told), (challenge, answer) = seen
            same(path, "acme/127.0.0.1-%d-directory/challenge_tokens/a.example.json" % ca.port)
            same({k: told[k] for k in ("type", "token", "keyAuthorization", "identifier")},
                 {"type": "http-01", "token": challenge["token"], "keyAuthorization": answer,
                  "identifier": {"type": "dns", "value": "a.example"}})


@test("a port that somebody has is left to him")
def _():
    with World() as w:
        ca = w.authority()
        with socket.socket(socket.AF_INET6) as s:
            s.bind(("::", w.http))
            s.listen()
            ca.validate = False
            w.good(ca)


@test("whoever has the port answers for other instances, too, from the storage")
def _():
    with World() as w:
        slow = w.authority(pending_polls=40)
        first = w.start(slow, ["slow.example"])
        deadline = time.time() + 30
        while slow.count("challenge") == 0 and time.time() < deadline:
            time.sleep(0.01)
        slow.pending_polls = 0
        second = w.start(slow, ["b.example"])
        assert w.finish(second)["ok"]
        assert w.finish(first)["ok"]
        has(w.err, '"distributed":true')


@test("TLS-ALPN-01: a handshake shows the certificate that answers, for names and addresses")
def _():
    for kind in ("uring", "epoll"):
        with World() as w:
            ca = w.authority(challenges=("tls-alpn-01",))
            assert w.finish(w.start(ca, ["a.example", "127.0.0.1", "::1"],
                                    env={"PORTICO_IO": kind}))["ok"], w.err
            has(w.err, "served key authentication certificate")
            same(w.tokens(), [])


@test("a type of challenge that fails gives way to another one, in a new order")
def _():
    for broken, good in (("http", "tls"), ("tls", "http")):
        with World() as w:
            ca = w.authority(challenges=("http-01", "tls-alpn-01"))
            setattr(ca, broken + "_port", free_port())
            for _ in range(4):  # which is tried first is chance
                w.good(ca, ["a.example", "b.example"])
            assert ca.count("newOrder") <= 8, ca.count("newOrder")
            same({z["status"] for z in ca.authzs.values()} - {"deactivated", "invalid"}, {"valid"})


@test("DNS-01: a record is made, waited for, and taken away; a wildcard beside its name")
def _():
    for cut in (False, True):
        with World() as w:
            names = Names(w.folder, cut=cut, delay=1, noise=True)
            ca = w.authority(dns=names.texts, challenges=("http-01", "dns-01"))
            w.good(ca, ["a.example", "*.a.example"], issuer=names.options())
            same(open(names.file).read(), "")
            same({p["status"] for p in ca.authzs.values()}, {"valid"})
            assert ("_acme-challenge.a.example.", 16, "tcp" if cut else "udp") in names.asked


@test("DNS-01: another name may be used, and a CNAME is followed")
def _():
    with World() as w:
        names = Names(w.folder)
        names.cnames["_acme-challenge.a.example."] = "challenges.example."
        ca = w.authority(dns=names.texts, challenges=("dns-01",))
        w.good(ca, issuer=names.options(override_domain="challenges.example"))
        same(open(names.file).read(), "")


@test("DNS-01: no checks, or a delay before them; a time-out is told")
def _():
    with World() as w:
        names = Names(w.folder)
        ca = w.authority(dns=names.texts, challenges=("dns-01",))
        w.good(ca, issuer=names.options(propagation_timeout=-1))
        assert all(kind == 6 for _, kind, _ in names.asked), names.asked
        start = time.time()
        w.good(ca, issuer=names.options(propagation_timeout=-1, propagation_delay="1s"))
        assert time.time() - start >= 1
        names.delay = 60
        has(w.bad(ca, issuer=names.options(propagation_timeout="3s"))["why"],
            "timed out waiting for record to fully propagate")
        same(open(names.file).read(), "")


@test("DNS-01: a script that fails, and a zone that nobody has, are told")
def _():
    with World() as w:
        names = Names(w.folder)
        ca = w.authority(dns=names.texts, challenges=("dns-01",))
        has(w.bad(ca, ["a.elsewhere"], issuer=names.options())["why"], "could not determine zone for "
            "domain \"_acme-challenge.a.elsewhere.\"")
        open(names.script, "w").write("#!/bin/sh\necho out of order >&2\nexit 3\n")
        has(w.bad(ca, issuer=names.options())["why"], "out of order")


@test("the provider of the tls app serves where the issuer has none")
def _():
    with World() as w:
        names = Names(w.folder)
        ca = w.authority(dns=names.texts, challenges=("dns-01",))
        options = names.options()
        provider = options["challenges"]["dns"].pop("provider")
        w.good(ca, issuer=options, tls={"dns": provider})


# --- besides ---


@test("eleven orders in ten seconds are one too many")
def _():
    with World() as w:
        ca = w.authority()
        start = time.time()
        results = w.run(ca, parallel=11, many=True)
        same([r.get("why") for r in results], [None] * 11)
        assert time.time() - start >= 9.9, time.time() - start


@test("https: the roots that are named are believed, others not")
def _():
    with World() as w:
        files = web_files(w.folder)
        ca = w.authority(tls=files[:2])
        w.good(ca, issuer={"trusted_roots_pem_files": [files[2]]})
        has(w.bad(ca)["why"], "directory https://localhost:%d/directory: " % ca.port)
        ca.faults.append(Fault("newOrder", change=lambda o: dict(
            o, authorizations=[u.replace("https", "http") for u in o["authorizations"]])))
        has(w.bad(ca, issuer={"trusted_roots_pem_files": [files[2]]})["why"],
            "the authority leads from https to http://")


@test("an authority is asked by a proxy, where the issuer names one: by CONNECT where it has TLS")
def _():
    with World() as w, Proxy("me:secret") as proxy, Proxy() as open_proxy:
        via = {"network_proxy": {"from": "url", "url": "{env.THE_PROXY}"}}
        ca = w.authority()
        w.good(ca, issuer=via, env={"THE_PROXY": proxy.url})
        assert any(a.startswith("POST http://") for a in proxy.asked), proxy.asked
        assert not any(a.startswith("CONNECT") for a in proxy.asked), proxy.asked
        has(w.bad(ca, issuer=via, env={"THE_PROXY": open_proxy.url.replace(str(open_proxy.port), "1")})["why"],
            "proxy")
        w.good(ca, issuer={"network_proxy": {"from": "none"}})
        files = web_files(w.folder)
        ca = w.authority(tls=files[:2])
        proxy.asked.clear()
        w.good(ca, issuer={"trusted_roots_pem_files": [files[2]], **via}, env={"THE_PROXY": proxy.url})
        same({a.split(":")[0] for a in proxy.asked}, {"CONNECT localhost"})
        wrong = proxy.url.replace("secret", "guess")
        has(w.bad(ca, issuer={"trusted_roots_pem_files": [files[2]], **via},
                  env={"THE_PROXY": wrong})["why"], "407")


@test("both back ends of the loop do it")
def _():
    for kind in ("uring", "epoll"):
        with World() as w:
            ca = w.authority()
            assert w.finish(w.start(ca, env={"PORTICO_IO": kind}))["ok"]


@test("options that are not understood are refused with their names")
def _():
    with World() as w:
        ca = w.authority()
        for issuer, words in (
                ({"emial": "x"}, "emial"),
                ({"challenges": {"http": {"enabled": True}}}, "enabled"),
                ({"challenges": {"smtp": {}}}, "smtp"),
                ({"challenges": {"http": {"alternate_port": 70000}}}, "alternate_port"),
                ({"challenges": {"dns": {}}}, "no DNS provider configured"),
                ({"challenges": {"dns": {"provider": {"name": "nobody"}}}}, "nobody"),
                ({"external_account": {"kid": "x"}}, "kid"),
                ({"preferred_chains": {"largest": True}}, "largest"),
                ({"ca": "ftp://x/y"}, "not the URL of a directory"),
                ({"email": "{env.NOT_THERE_AT_ALL}"}, "email"),
                ({"trusted_roots_pem_files": ["/nowhere.pem"]}, "/nowhere.pem"),
                ({"network_proxy": {"from": "url"}}, "has no"),
                ({"network_proxy": {"from": "url", "url": "socks4://x"}}, "SOCKS"),
                ({"network_proxy": {"from": "url", "url": "socks4://u:hidden@x"}}, "u:xxxxx@x"),
                ({"network_proxy": {"from": "url", "url": "{env.NOT_THERE_AT_ALL}"}}, "empty after"),
                ({"network_proxy": {"from": "none", "url": "http://x"}}, "url"),
                ({"network_proxy": {"from": "mars"}}, "caddy.network_proxy.mars")):
            p = w.start(ca, issuer=issuer)
            out, err = p.communicate(timeout=120)
            same(out, "")
            has(err, words)
            assert "hidden" not in err, err
        has(w.bad(ca, issuer={"ca": "http://ca.example.com/directory"})["why"], "HTTPS required")


def attempt(function):
    try:
        function()
        return None
    except Exception as e:
        return "line %d: %s: %s" % (sys.exc_info()[2].tb_next.tb_lineno, type(e).__name__, e)


def main():
    chosen = [(s, f) for s, f in TESTS if WANTED in s]
    failed = 0
    with concurrent.futures.ThreadPoolExecutor(4) as pool:  # they wait more than they compute
        results = pool.map(attempt, [f for _, f in chosen])
        for number, ((sentence, _), why) in enumerate(zip(chosen, results), 1):
            print("%s %d - %s" % ("not ok" if why else "ok", number, sentence), flush=True)
            if why:
                failed += 1
                print("# " + why.replace("\n", "\n# "), flush=True)
    print("1..%d" % len(chosen))
    return failed > 0


sys.exit(main())
