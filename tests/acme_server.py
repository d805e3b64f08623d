#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A certificate authority for tests: RFC 8555 with RFC 9773 (ARI), profiles, external accounts and
alternate chains, over http or https, and with faults that a test asks for.

    ca = Authority(http_port=5002)          # where HTTP-01 is looked for
    ca.faults.append(Fault("newOrder", status=429, type="rateLimited", headers={"Retry-After": "7"}))
    ca.start(); … ca.url …; ca.stop()

Every request is noted in ca.log as (resource, payload). A fault is used once, or `times` times."""
import base64
import datetime
import hashlib
import hmac
import http.server
import ipaddress
import json
import secrets
import socket
import ssl
import threading
import time
import urllib.request

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

NAMESPACE = "urn:ietf:params:acme:error:"


def b64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def unb64(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


class Problem(Exception):
    def __init__(self, status, kind, detail="", headers=None, subproblems=None, media=None, raw=None):
        super().__init__(detail)
        self.status, self.kind, self.detail = status, kind, detail
        self.headers, self.subproblems, self.media, self.raw = headers or {}, subproblems, media, raw

    def document(self):
        doc = {"type": NAMESPACE + self.kind, "detail": self.detail, "status": self.status}
        if self.subproblems:
            doc["subproblems"] = self.subproblems
        return doc


class Raw(Exception):
    """An answer as it stands."""


class Fault:
    """What goes wrong at a resource: a problem, other bytes, a delay, or the connection's end before
    ("cut") or after ("swallow") the request was carried out."""

    def __init__(self, resource, status=None, type="serverInternal", detail="scripted", headers=None,
                 times=1, raw=None, media=None, delay=0, cut=False, swallow=False, subproblems=None,
                 change=None):
        self.resource, self.status, self.kind, self.detail = resource, status, type, detail
        self.headers, self.times, self.raw, self.media = headers or {}, times, raw, media
        self.delay, self.cut, self.swallow, self.subproblems = delay, cut, swallow, subproblems
        self.change = change  # function of the answer's JSON


class Chain:
    """Root and intermediate with which leaves are signed."""

    def __init__(self, name, key=None, above=None):
        now = datetime.datetime.utcnow()
        self.root_key = ec.generate_private_key(ec.SECP256R1())
        self.key = key or ec.generate_private_key(ec.SECP256R1())
        self.root_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, above or name + " Root")])
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Test Intermediate")])
        self.root = self.sign_ca(self.root_name, self.root_key.public_key(), self.root_name,
                                 self.root_key, now)
        self.intermediate = self.sign_ca(self.name, self.key.public_key(), self.root_name,
                                         self.root_key, now)

    @staticmethod
    def sign_ca(subject, key, issuer, signer, now):
        return (x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key)
                .serial_number(x509.random_serial_number())
                .not_valid_before(now - datetime.timedelta(days=1))
                .not_valid_after(now + datetime.timedelta(days=3650))
                .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
                .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
                .sign(signer, hashes.SHA256()))


def pem(certificate):
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def web_files(folder):
    """Files of a TLS server "localhost" with a root of its own: chain, key, root."""
    root, key, now = Chain("Web"), ec.generate_private_key(ec.SECP256R1()), datetime.datetime.utcnow()
    certificate = (x509.CertificateBuilder().subject_name(x509.Name([])).issuer_name(root.name)
                   .public_key(key.public_key()).serial_number(7).not_valid_before(now)
                   .not_valid_after(now + datetime.timedelta(days=5))
                   .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), True)
                   .sign(root.key, hashes.SHA256()))
    text = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
                             serialization.NoEncryption()).decode()
    files = [f"{folder}/{n}" for n in ("chain.pem", "key.pem", "root.pem")]
    for path, content in zip(files, (pem(certificate) + pem(root.intermediate), text, pem(root.root))):
        with open(path, "w", encoding="ascii") as f:
            f.write(content)
    return files


class Authority:
    def __init__(self, http_port=80, tls_port=443, dns=None, tls=None, profiles=None, ari=True,
                 binding=None, alternates=0, validate=True, nonce_reject=0, retry_after=None,
                 challenges=("http-01", "tls-alpn-01", "dns-01"), pending_polls=0,
                 processing_polls=0, reuse=False, tell_contacts=True, long_chain=False):
        self.http_port, self.tls_port, self.dns = http_port, tls_port, dns
        self.profiles, self.ari, self.binding = profiles or {}, ari, binding or {}
        self.validate, self.nonce_reject, self.retry_after = validate, nonce_reject, retry_after
        self.offered, self.pending_polls, self.processing_polls = challenges, pending_polls, \
            processing_polls
        self.reuse, self.tell_contacts = reuse, tell_contacts
        self.tls = tls  # (certificate file, key file)
        self.ocsp = None  # a responder's URL, for certificates
        self.issued = lambda leaf: None  # told of each
        self.chains = [Chain("First")]
        for i in range(alternates):
            self.chains.append(Chain("Alternate%d" % (i + 1), key=self.chains[0].key))
        self.faults, self.log, self.nonces = [], [], set()
        self.accounts, self.orders, self.authzs, self.certs = {}, {}, {}, {}
        self.valid_names = set()
        self.revoked, self.replaced = [], set()
        self.lock = threading.RLock()
        self.window = None  # (start, end) of ARI, else around two thirds of the lifetime
        self.lifetime = datetime.timedelta(days=90)
        self.counter = 0
        self.server = None

    # --- running ---

    def start(self, port=0):
        authority = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args):
                pass

            def do_GET(self):
                authority.handle(self)

            do_HEAD = do_POST = do_GET

        class Server(http.server.ThreadingHTTPServer):
            request_queue_size = 128

            def handle_error(self, *args):
                pass  # clients that go away

        self.server = Server(("127.0.0.1", port), Handler)
        self.server.daemon_threads = True
        scheme = "http"
        if self.tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*self.tls)
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
            scheme = "https"
        self.port = self.server.server_address[1]
        self.base = "%s://%s:%d" % (scheme, "localhost" if self.tls else "127.0.0.1", self.port)
        self.url = self.base + "/directory"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def stop(self):
        self.server.shutdown()
        self.server.server_close()

    def count(self, resource):
        return sum(1 for name, _ in self.log if name == resource)

    # --- requests ---

    def take_fault(self, resource):
        with self.lock:
            for fault in self.faults:
                if fault.resource == resource and fault.times > 0:
                    fault.times -= 1
                    return fault
        return None

    def handle(self, h):
        path = h.path.strip("/").split("/")
        resource = path[0] if h.command != "HEAD" else "newNonce"
        body = h.rfile.read(int(h.headers.get("Content-Length") or 0))
        fault = self.take_fault(resource)
        try:
            if fault and fault.delay:
                time.sleep(fault.delay)
            if fault and fault.cut:
                self.note(resource, None)
                return self.cut(h)
            if fault and fault.status:
                self.note(resource, None)
                if fault.raw is None:
                    raise Problem(fault.status, fault.kind, fault.detail, fault.headers,
                                  fault.subproblems)
                raise Raw(fault.status, fault.raw, fault.media, fault.headers)
            status, answer, headers, media = self.serve(h, path, resource, body)
            if fault and fault.swallow:
                return self.cut(h)
            if fault and fault.change:
                answer = fault.change(answer)
            if fault and fault.raw is not None:
                answer, media = fault.raw, fault.media or media
            if fault:
                headers = dict(headers, **fault.headers)
            answer = (status, answer, media, headers)
        except Raw as r:
            answer = r.args
        except Problem as p:
            answer = (p.status, p.document(), "application/problem+json", p.headers)
        try:
            self.send(h, *answer)
        except (BrokenPipeError, ConnectionResetError, ssl.SSLError):
            h.close_connection = True

    @staticmethod
    def cut(h):
        h.close_connection = True
        try:
            h.connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

    def note(self, resource, payload):
        with self.lock:
            self.log.append((resource, payload))

    def send(self, h, status, answer, media, headers):
        data = answer if isinstance(answer, bytes) else answer.encode() if isinstance(answer, str) \
            else json.dumps(answer).encode()
        h.send_response(status)
        h.send_header("Content-Type", media or "application/json")
        h.send_header("Content-Length", str(len(data)))
        if "Replay-Nonce" not in headers:
            h.send_header("Replay-Nonce", self.new_nonce())
        for name, value in headers.items():
            for one in value if isinstance(value, list) else [value]:
                h.send_header(name, one)
        h.end_headers()
        if h.command != "HEAD":
            h.wfile.write(data)

    def new_nonce(self):
        nonce = b64(secrets.token_bytes(16))
        with self.lock:
            self.nonces.add(nonce)
        return nonce

    def serve(self, h, path, resource, body):
        if resource == "directory":
            self.note(resource, None)
            return 200, self.directory(), {}, None
        if resource == "newNonce":
            self.note(resource, None)
            return 200, b"", {"Cache-Control": "no-store"}, None
        if resource == "renewalInfo":
            self.note(resource, path[1])
            return self.renewal_info(path[1])
        if resource == "acme" and path[1] == "eab-credentials-email":  # ZeroSSL's
            self.note("zerossl", body.decode())
            return 200, {"success": True, "eab_kid": "zero", "eab_hmac_key": b64(b"zero" * 8)}, {}, None
        if h.command != "POST":
            raise Problem(405, "malformed", "POST it")
        if h.headers.get("Content-Type") != "application/jose+json":
            raise Problem(415, "malformed", "not jose+json")
        header, payload, account = self.check_jws(h, body, resource)
        self.note(resource, payload)
        with self.lock:
            return getattr(self, "do_" + resource)(path, header, payload, account)

    def directory(self):
        names = ["newNonce", "newAccount", "newOrder", "revokeCert", "keyChange"]
        d = {name: "%s/%s" % (self.base, name) for name in names}
        d["meta"] = {"termsOfService": self.base + "/terms",
                     "externalAccountRequired": bool(self.binding)}
        if self.profiles:
            d["meta"]["profiles"] = self.profiles
        if self.ari:
            d["renewalInfo"] = self.base + "/renewalInfo"
        return d

    # --- signatures ---

    @staticmethod
    def public_key(jwk):
        number = lambda name: int.from_bytes(unb64(jwk[name]), "big")
        if jwk["kty"] == "RSA":
            return rsa.RSAPublicNumbers(number("e"), number("n")).public_key()
        curve = {"P-256": ec.SECP256R1, "P-384": ec.SECP384R1, "P-521": ec.SECP521R1}[jwk["crv"]]()
        return ec.EllipticCurvePublicNumbers(number("x"), number("y"), curve).public_key()

    def verify(self, jwk, alg, signed, signature):
        key = self.public_key(jwk)
        try:
            if jwk["kty"] == "RSA":
                assert alg == "RS256"
                key.verify(signature, signed, padding.PKCS1v15(), hashes.SHA256())
                return
            half = (key.key_size + 7) // 8
            assert len(signature) == 2 * half
            digest = {"ES256": hashes.SHA256, "ES384": hashes.SHA384, "ES512": hashes.SHA512}[alg]()
            der = utils.encode_dss_signature(int.from_bytes(signature[:half], "big"),
                                             int.from_bytes(signature[half:], "big"))
            key.verify(der, signed, ec.ECDSA(digest))
        except (InvalidSignature, AssertionError, KeyError):
            raise Problem(400, "malformed", "signature") from None

    @staticmethod
    def thumbprint(jwk):
        needed = {"RSA": ("e", "kty", "n"), "EC": ("crv", "kty", "x", "y")}[jwk["kty"]]
        text = json.dumps({k: jwk[k] for k in needed}, sort_keys=True, separators=(",", ":"))
        return b64(hashlib.sha256(text.encode()).digest())

    def check_jws(self, h, body, resource):
        jws = json.loads(body)
        header = json.loads(unb64(jws["protected"]))
        if header["url"] != self.base + h.path:
            raise Problem(403, "unauthorized", "url is %s, asked was %s" % (header["url"], h.path))
        with self.lock:
            known = header["nonce"] in self.nonces
            self.nonces.discard(header["nonce"])
        if not known or secrets.randbelow(100) < self.nonce_reject:
            raise Problem(400, "badNonce", "unknown or unlucky nonce")
        account = None
        if "kid" in header:
            account = self.accounts.get(header["kid"])
            if account is None:
                raise Problem(400, "accountDoesNotExist", "no such account")
            if account["status"] != "valid":
                raise Problem(401, "unauthorized", "the account is " + account["status"])
            jwk = account["jwk"]
        else:
            jwk = header["jwk"]
            if resource not in ("newAccount", "revokeCert"):
                raise Problem(400, "malformed", "kid is needed")
        self.verify(jwk, header["alg"], (jws["protected"] + "." + jws["payload"]).encode(),
                    unb64(jws["signature"]))
        payload = json.loads(unb64(jws["payload"])) if jws["payload"] else None
        return header, payload, account

    def next_url(self, kind):
        self.counter += 1
        return "%s/%s/%d" % (self.base, kind, self.counter)

    # --- accounts ---

    def account_answer(self, account):
        answer = {"status": account["status"], "orders": account["url"] + "/orders"}
        if self.tell_contacts and account["contact"]:
            answer["contact"] = account["contact"]
        return answer

    def do_newAccount(self, path, header, payload, _):
        thumb = self.thumbprint(header["jwk"])
        for account in self.accounts.values():
            if account["thumb"] == thumb:
                return 200, self.account_answer(account), {"Location": account["url"]}, None
        if payload.get("onlyReturnExisting"):
            raise Problem(400, "accountDoesNotExist", "no account with that key")
        if not payload.get("termsOfServiceAgreed"):
            raise Problem(403, "userActionRequired", "agree to the terms")
        if self.binding:
            self.check_binding(payload.get("externalAccountBinding"), header["jwk"])
        url = self.next_url("account")
        self.accounts[url] = {"url": url, "jwk": header["jwk"], "thumb": thumb, "status": "valid",
                              "contact": payload.get("contact", [])}
        return 201, self.account_answer(self.accounts[url]), {"Location": url}, None

    def check_binding(self, jws, jwk):
        if not jws:
            raise Problem(403, "externalAccountRequired", "bind it")
        header = json.loads(unb64(jws["protected"]))
        secret = self.binding.get(header["kid"])
        mac = hmac.new(secret or b"", (jws["protected"] + "." + jws["payload"]).encode(), "sha256")
        if secret is None or header["alg"] != "HS256" or "nonce" in header or \
                header["url"] != self.base + "/newAccount" or b64(mac.digest()) != jws["signature"] or \
                json.loads(unb64(jws["payload"])) != jwk:
            raise Problem(403, "unauthorized", "the binding is not good")

    def do_account(self, path, header, payload, account):
        if payload and "contact" in payload:
            account["contact"] = payload["contact"]
        if payload and payload.get("status") == "deactivated":
            account["status"] = "deactivated"
        return 200, self.account_answer(account), {}, None

    def do_keyChange(self, path, header, payload, account):
        inner = json.loads(unb64(payload["protected"]))
        self.verify(inner["jwk"], inner["alg"],
                    (payload["protected"] + "." + payload["payload"]).encode(),
                    unb64(payload["signature"]))
        claim = json.loads(unb64(payload["payload"]))
        if claim["account"] != account["url"] or claim["oldKey"] != account["jwk"] or \
                inner["url"] != self.base + "/keyChange" or "nonce" in inner:
            raise Problem(400, "malformed", "the inner JWS is not good")
        account["jwk"], account["thumb"] = inner["jwk"], self.thumbprint(inner["jwk"])
        return 200, self.account_answer(account), {}, None

    # --- orders ---

    def order_answer(self, order):
        return {k: v for k, v in order.items() if k in (
            "status", "identifiers", "authorizations", "finalize", "certificate", "error", "profile",
            "notAfter", "replaces", "expires") and v is not None}

    def do_newOrder(self, path, header, payload, account):
        if payload.get("profile") and payload["profile"] not in self.profiles:
            raise Problem(400, "invalidProfile", "no such profile")
        if payload.get("replaces") in self.replaced and payload.get("replaces"):
            raise Problem(409, "alreadyReplaced", "it has a successor")
        url = self.next_url("order")
        order = {"url": url, "account": account, "status": "pending", "polls": self.processing_polls,
                 "identifiers": payload["identifiers"], "finalize": url.replace("order", "finalize"),
                 "profile": payload.get("profile"), "notAfter": payload.get("notAfter"),
                 "replaces": payload.get("replaces"), "authorizations": [],
                 "expires": "2099-01-01T00:00:00Z"}
        for identifier in payload["identifiers"]:
            order["authorizations"].append(self.new_authz(identifier, account))
        self.orders[url] = order
        self.update(order)
        return 201, self.order_answer(order), {"Location": url}, None

    def new_authz(self, identifier, account):
        wildcard = identifier["value"].startswith("*.")
        name = identifier["value"][2:] if wildcard else identifier["value"]
        url = self.next_url("authz")
        kinds = ["dns-01"] if wildcard else self.offered
        authz = {"url": url, "status": "pending", "polls": self.pending_polls,
                 "identifier": {"type": identifier["type"], "value": name}, "wildcard": wildcard,
                 "challenges": [{"type": kind, "url": url.replace("authz", "challenge") + "/" + kind,
                                 "status": "pending", "token": b64(secrets.token_bytes(24))}
                                for kind in kinds], "account": account, "chosen": None}
        if self.reuse and name in self.valid_names:
            authz["status"] = "valid"
        self.authzs[url] = authz
        return url

    def update(self, order):
        states = [self.authzs[url]["status"] for url in order["authorizations"]]
        if order["status"] == "pending":
            if all(s == "valid" for s in states):
                order["status"] = "ready"
            elif any(s in ("invalid", "deactivated") for s in states):
                order["status"] = "invalid"

    def find(self, table, path, kind):
        url = "%s/%s/%s" % (self.base, kind, path[1])
        if url not in table:
            raise Problem(404, "malformed", "no such " + kind)
        return table[url]

    def do_authz(self, path, header, payload, account):
        authz = self.find(self.authzs, path, "authz")
        if payload and payload.get("status") == "deactivated":
            authz["status"] = "deactivated"
        headers = {"Retry-After": self.retry_after} if self.retry_after else {}
        if authz["chosen"] and authz["status"] == "pending":
            if authz["polls"] > 0:
                authz["polls"] -= 1
            else:
                self.judge(authz)
        return 200, self.authz_answer(authz), headers, None

    @staticmethod
    def authz_answer(authz):
        answer = {k: authz[k] for k in ("status", "identifier", "challenges")}
        if authz["wildcard"]:
            answer["wildcard"] = True
        return answer

    def do_challenge(self, path, header, payload, account):
        authz = self.find(self.authzs, path, "authz")
        challenge = [c for c in authz["challenges"] if c["type"] == path[2]][0]
        authz["chosen"] = challenge
        return 200, challenge, {"Link": '<%s>;rel="up"' % authz["url"]}, None

    def judge(self, authz):
        challenge = authz["chosen"]
        answer = challenge["token"] + "." + authz["account"]["thumb"]
        try:
            if self.validate:
                getattr(self, "validate_" + challenge["type"].replace("-", "_"))(authz, challenge, answer)
            authz["status"] = challenge["status"] = "valid"
            self.valid_names.add(authz["identifier"]["value"])
        except Problem as p:
            authz["status"] = challenge["status"] = "invalid"
            challenge["error"] = p.document()

    def validate_http_01(self, authz, challenge, answer):
        name = authz["identifier"]["value"]
        request = urllib.request.Request(
            "http://127.0.0.1:%d/.well-known/acme-challenge/%s" % (self.http_port, challenge["token"]),
            headers={"Host": name})
        try:
            got = urllib.request.urlopen(request, timeout=20).read().decode()
        except OSError as e:
            raise Problem(400, "connection", "%s: %s" % (name, e)) from None
        if got.rstrip() != answer:
            raise Problem(403, "unauthorized", "%s: wrong answer" % name)

    def validate_tls_alpn_01(self, authz, challenge, answer):
        name = authz["identifier"]["value"]
        sni = ipaddress.ip_address(name).reverse_pointer if authz["identifier"]["type"] == "ip" else name
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.set_alpn_protocols(["acme-tls/1"])
        try:
            with socket.create_connection(("127.0.0.1", self.tls_port), 60) as raw, \
                    context.wrap_socket(raw, server_hostname=sni) as s:
                protocol, der = s.selected_alpn_protocol(), s.getpeercert(True)
        except OSError as e:
            raise Problem(400, "connection", "%s: %s" % (name, e)) from None
        certificate = x509.load_der_x509_certificate(der)
        extension = [e for e in certificate.extensions if e.oid.dotted_string == "1.3.6.1.5.5.7.1.31"]
        digest = b"\x04\x20" + hashlib.sha256(answer.encode()).digest()
        if protocol != "acme-tls/1" or not extension or not extension[0].critical or \
                extension[0].value.value != digest:
            raise Problem(403, "unauthorized", "%s: wrong certificate" % name)

    def validate_dns_01(self, authz, challenge, answer):
        digest = b64(hashlib.sha256(answer.encode()).digest())
        name = "_acme-challenge." + authz["identifier"]["value"]
        if self.dns is None or digest not in self.dns(name):
            raise Problem(400, "dns", "no such TXT record at " + name)

    def do_order(self, path, header, payload, account):
        order = self.find(self.orders, path, "order")
        self.update(order)
        headers = {"Retry-After": self.retry_after} if self.retry_after else {}
        if order["status"] == "processing":
            order["polls"] -= 1
            if order["polls"] < 0:
                self.issue(order)
        return 200, self.order_answer(order), headers, None

    def do_finalize(self, path, header, payload, account):
        order = self.find(self.orders, path, "order")
        self.update(order)
        if order["status"] != "ready":
            raise Problem(403, "orderNotReady", "the order is " + order["status"])
        order["csr"] = x509.load_der_x509_csr(unb64(payload["csr"]))
        if not order["csr"].is_signature_valid:
            raise Problem(400, "badCSR", "signature")
        order["status"] = "processing"
        if self.processing_polls == 0:
            self.issue(order)
        return 200, self.order_answer(order), {"Location": order["url"]}, None

    # --- certificates ---

    def leaf(self, order, chain):
        now = datetime.datetime.utcnow()
        end = now + self.lifetime
        if order["notAfter"]:
            end = datetime.datetime.strptime(order["notAfter"], "%Y-%m-%dT%H:%M:%SZ")
        names = [x509.IPAddress(ipaddress.ip_address(i["value"])) if i["type"] == "ip"
                 else x509.DNSName(i["value"]) for i in order["identifiers"]]
        builder = (
                x509.CertificateBuilder().subject_name(x509.Name([])).issuer_name(chain.name)
                .public_key(order["csr"].public_key()).serial_number(x509.random_serial_number())
                .not_valid_before(now - datetime.timedelta(hours=1)).not_valid_after(end)
                .add_extension(x509.SubjectAlternativeName(names), critical=True)
                .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
                .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(chain.key.public_key()),
                               critical=False))
        if self.ocsp:
            builder = builder.add_extension(x509.AuthorityInformationAccess([x509.AccessDescription(
                x509.AuthorityInformationAccessOID.OCSP, x509.UniformResourceIdentifier(self.ocsp))]), False)
        if any(isinstance(e.value, x509.TLSFeature) for e in order["csr"].extensions):
            builder = builder.add_extension(x509.TLSFeature([x509.TLSFeatureType.status_request]), False)
        return builder.sign(chain.key, hashes.SHA256())

    def issue(self, order):
        leaf = self.leaf(order, self.chains[0])
        url = self.next_url("certificate")
        self.certs[url] = leaf
        self.issued(leaf)
        order["status"], order["certificate"] = "valid", url
        if order["replaces"]:
            self.replaced.add(order["replaces"])

    def do_certificate(self, path, header, payload, account):
        leaf = self.find(self.certs, path, "certificate")
        number = int(path[2]) if len(path) > 2 else 0
        chain = self.chains[number]
        text = pem(leaf) + pem(chain.intermediate)
        if number > 0:
            text += pem(chain.root)
        url = "%s/certificate/%s" % (self.base, path[1])
        links = ['<%s/directory>;rel="index"' % self.base]
        links += ['<%s/%d>;rel="alternate"' % (url, i) for i in range(1, len(self.chains))
                  if number == 0]
        return 200, text, {"Link": links}, "application/pem-certificate-chain"

    def do_revokeCert(self, path, header, payload, account):
        certificate = x509.load_der_x509_certificate(unb64(payload["certificate"]))
        if certificate.serial_number in self.revoked:
            raise Problem(400, "alreadyRevoked", "it is revoked")
        self.revoked.append(certificate.serial_number)
        return 200, b"", {}, None

    def renewal_info(self, name):
        if not self.ari:
            raise Problem(404, "malformed", "no ARI")
        serial = int.from_bytes(unb64(name.split(".")[1]), "big")
        found = [c for c in self.certs.values() if c.serial_number == serial]
        if not found:
            raise Problem(404, "malformed", "no such certificate")
        start, end = self.window or (found[0].not_valid_before + self.lifetime * 0.6,
                                     found[0].not_valid_before + self.lifetime * 0.7)
        form = "%Y-%m-%dT%H:%M:%SZ"
        return 200, {"suggestedWindow": {"start": start.strftime(form), "end": end.strftime(form)},
                     "explanationURL": self.base + "/why"}, {"Retry-After": "21600"}, None
