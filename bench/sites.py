# SPDX-License-Identifier: Apache-2.0
"""The scene "sites" of bench/run: thousands of sites with a certificate file each.

From exec to the answer of the last site over HTTPS: time and CPU time; and by how much a server is
larger than with one site, before anybody has asked for one of them. The certificates, with a key each,
are made once and kept in build-bench/.
"""
import datetime
import json
import os
import socket
import ssl
import time

DAYS, DAYS_LEFT = 90, 30


def name_of(number):
    return f"site{number}.bench.example"


def make_certificates(count, folder):
    """PEM files 0.pem, 0.key …; False where Python has no library for it."""
    try:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec
    except ImportError:
        return False
    stamp = os.path.join(folder, "made")
    if os.path.exists(stamp) and time.time() - os.path.getmtime(stamp) < (DAYS - DAYS_LEFT) * 86400:
        return True
    os.makedirs(folder, exist_ok=True)
    now = datetime.datetime.utcnow()
    authority = ec.generate_private_key(ec.SECP256R1())
    issuer = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "bench authority")])
    for i in range(count):
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name_of(i))])
        made = (x509.CertificateBuilder().subject_name(subject).issuer_name(issuer)
                .public_key(key.public_key()).serial_number(i + 1)
                .not_valid_before(now - datetime.timedelta(days=1))
                .not_valid_after(now + datetime.timedelta(days=DAYS))
                .add_extension(x509.SubjectAlternativeName([x509.DNSName(name_of(i))]), False)
                .sign(authority, hashes.SHA256()))
        with open(f"{folder}/{i}.pem", "wb") as f:
            f.write(made.public_bytes(serialization.Encoding.PEM))
        with open(f"{folder}/{i}.key", "wb") as f:
            f.write(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
                                      serialization.NoEncryption()))
    with open(stamp, "w", encoding="ascii"):
        return True


# ---- configurations: each site answers with its number ----------------------

def caddyfile(count, folder, port):
    head = ("{\n\tadmin off\n\tauto_https disable_redirects\n\tskip_install_trust\n"
            f"\thttps_port {port}\n}}\n")
    return head + "".join(
        f"{name_of(i)} {{\n\tbind 127.0.0.1\n\ttls {folder}/{i}.pem {folder}/{i}.key\n"
        f"\trespond \"hello {i}\"\n}}\n" for i in range(count))


def document(count, folder, port):
    """What the Caddyfile means."""
    sites = range(count)
    server = {"listen": [f"127.0.0.1:{port}"],
              "routes": [{"match": [{"host": [name_of(i)]}], "terminal": True, "handle": [
                  {"handler": "subroute", "routes": [{"handle": [
                      {"handler": "static_response", "body": f"hello {i}"}]}]}]} for i in sites],
              "tls_connection_policies": [
                  {"match": {"sni": [name_of(i)]},
                   "certificate_selection": {"any_tag": [f"cert{i}"]}} for i in sites] + [{}],
              "automatic_https": {"disable_redirects": True}}
    files = [{"certificate": f"{folder}/{i}.pem", "key": f"{folder}/{i}.key", "tags": [f"cert{i}"]}
             for i in sites]
    return json.dumps({"admin": {"disabled": True}, "apps": {
        "http": {"https_port": port, "servers": {"sites": server}},
        "tls": {"certificates": {"load_files": files}}}})


def nginx(count, folder, port):
    head = ("daemon off;\nworker_processes 1;\nworker_rlimit_nofile 20000;\npid nginx.pid;\n"
            "error_log nginx-error.log crit;\nevents { worker_connections 1024; }\nhttp {\n"
            "access_log off;\nserver_names_hash_max_size 65536;\nserver_names_hash_bucket_size 128;\n"
            "ssl_protocols TLSv1.2 TLSv1.3;\n")
    return head + "".join(
        f"server {{ listen 127.0.0.1:{port} ssl; server_name {name_of(i)};\n"
        f"ssl_certificate {folder}/{i}.pem; ssl_certificate_key {folder}/{i}.key;\n"
        f"location / {{ return 200 \"hello {i}\"; }} }}\n" for i in range(count)) + "}\n"


def rows(names, quick):
    """Which server, from what, with how many sites."""
    many = 1000 if quick else 10000
    all_of_them = [("portico", "JSON", document, many), ("portico", "Caddyfile", caddyfile, many),
                   ("nginx", "its own", nginx, many), ("caddy", "JSON", document, min(many, 2000))]
    return [row for row in all_of_them if row[0] in names]


def command(server, how, path, binary):
    adapter = ["--adapter", "caddyfile"] if how == "Caddyfile" else []
    return {"portico": [binary, "run", "--config", path] + adapter,
            "caddy": ["caddy", "run", "--config", path],
            "nginx": ["nginx", "-p", os.path.dirname(path), "-c", path, "-e", "nginx-error.log"]}[server]


# ---- asking -----------------------------------------------------------------

def ask(port, number):
    """None while nobody listens."""
    context = ssl._create_unverified_context()
    context.set_alpn_protocols(["http/1.1"])
    name = name_of(number)
    try:
        plain = socket.create_connection(("127.0.0.1", port), 30)
    except ConnectionRefusedError:
        return None
    with plain, context.wrap_socket(plain, server_hostname=name) as s:
        s.sendall(f"GET / HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n".encode())
        answer = b""
        while piece := s.recv(65536):
            answer += piece
    return answer


def is_right(answer, number):
    head, _, body = answer.partition(b"\r\n\r\n")
    return head.startswith(b"HTTP/1.1 200") and f"hello {number}".encode() in body
