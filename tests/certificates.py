# SPDX-License-Identifier: Apache-2.0
"""Certificates for tests, made by the openssl command in a folder that goes with them."""
import os
import subprocess
import tempfile


def openssl(*arguments, text=None):
    return subprocess.run(["openssl", *arguments], input=text, check=True, capture_output=True).stdout


class Authority:
    """A root, and leaves of it: files NAME.pem and NAME.key in `folder`."""

    def __init__(self, name="Test Root"):
        self.kept = tempfile.TemporaryDirectory(prefix="portico-certificates-")
        self.folder, self.serial = self.kept.name, 100
        openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                "-days", "30", "-subj", f"/CN={name}", "-keyout", self.path("root.key"),
                "-out", self.path("root.pem"))
        self.root = self.path("root.pem")

    def path(self, name):
        return os.path.join(self.folder, name)

    def leaf(self, name, *alternatives, days=10, self_signed=False, expired=False, dates=None):
        """Chain and key of a certificate for names like "DNS:a.example"; `dates`: "20200101000000Z", twice."""
        pem, key, csr, extensions = (self.path(f"{name}{e}") for e in (".pem", ".key", ".csr", ".ext"))
        names = f"subjectAltName={','.join(alternatives)}\n" if alternatives else ""
        with open(extensions, "w", encoding="ascii") as f:
            f.write(f"basicConstraints=CA:FALSE\n{names}")
        openssl("req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                "-subj", f"/CN={name}", "-keyout", key, "-out", csr)
        self.serial += 1
        signer = ["-signkey", key] if self_signed else ["-CA", self.root, "-CAkey",
                                                        self.path("root.key")]
        if expired:
            dates = ("20200101000000Z", "20200201000000Z")
        if dates:  # x509 knows no start date: ca does
            return self.dated(dates, pem, key, csr, extensions)
        openssl("x509", "-req", "-in", csr, *signer, "-set_serial", str(self.serial), "-days",
                str(days), "-extfile", extensions, "-out", pem)
        return pem, key

    def dated(self, dates, pem, key, csr, extensions):
        config = self.path("ca.cnf")
        with open(self.path("index"), "w", encoding="ascii"), \
                open(config, "w", encoding="ascii") as f:
            f.write(f"[ca]\ndefault_ca=x\n[x]\ndatabase={self.path('index')}\nrand_serial=yes\n"
                    f"new_certs_dir={self.folder}\ndefault_md=sha256\npolicy=p\n"
                    "[p]\ncommonName=supplied\n")
        openssl("ca", "-batch", "-config", config, "-cert", self.root, "-keyfile",
                self.path("root.key"), "-in", csr, "-out", pem, "-startdate", dates[0], "-enddate", dates[1],
                "-extfile", extensions, "-notext")
        return pem, key
