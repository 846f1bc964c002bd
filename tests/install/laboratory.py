"""A source server behind TLS with an authority of its own, a signed release on it, and mirrors to tamper with."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from product import Product, free_port, until

ROOT = Path(__file__).parents[2]
NAME = "server.test"
VERSION = "0.1.0"

NGINX = """
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/nginx.log;
events {{}}
http {{
  access_log {folder}/access.log;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/x1;
  uwsgi_temp_path {folder}/x2;
  scgi_temp_path {folder}/x3;
  ssl_certificate {folder}/server.pem;
  ssl_certificate_key {folder}/server.key;
  client_max_body_size 0;
  server {{
    listen {port} ssl;
    location / {{
      proxy_pass http://127.0.0.1:{upstream};
      proxy_set_header Host $http_host;
      proxy_set_header X-Forwarded-Proto https;
      proxy_request_buffering off;
      proxy_buffering off;
    }}
  }}
  server {{
    listen {mirror_port} ssl;
    root {folder}/mirrors;
    default_type application/octet-stream;
  }}
}}
"""


@dataclass(frozen=True)
class Lab:
    """What a machine under test talks to."""

    product: Product
    folder: Path
    url: str  #: of the source server
    mirror_url: str  #: of static files below folder/mirrors

    @property
    def ca(self) -> str:
        """The certificate authority, PEM."""
        return (self.folder / "ca.pem").read_text()

    @property
    def release_key(self) -> Path:
        """The private key that signs releases, off the server."""
        return self.folder / "release.key"

    def mirror(self, name: str) -> Path:
        """A copy of the release as static files, to tamper with, at mirror_url/name; the folder of SHA256SUMS."""
        folder = self.folder / "mirrors" / name / "releases"
        shutil.copytree(self.product.home / "releases" / VERSION, folder / "current")
        (folder / VERSION).symlink_to("current")
        return folder / "current"

    def sign(self, sums: Path, key: Path | None = None) -> None:
        """Sign a changed SHA256SUMS, with the release's key unless told otherwise."""
        out = sums.with_name("SHA256SUMS.sig")
        openssl("pkeyutl", "-sign", "-rawin", "-inkey", key or self.release_key, "-in", sums, "-out", out)

    def script(self) -> str:
        """install.sh as the server fills it in."""
        command = ["curl", "-fsS", "--noproxy", "*", "--cacert", self.folder / "ca.pem"]
        command += ["--resolve", f"{self.url.removeprefix('https://')}:127.0.0.1", f"{self.url}/install.sh"]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def openssl(*arguments: str | Path) -> str:
    """Run openssl; what it printed."""
    return subprocess.run(["openssl", *arguments], check=True, capture_output=True, text=True).stdout


@contextmanager
def laboratory(client_image: str, docker: str) -> Iterator[Lab]:
    """A whole server side with a release made from this checkout; stopped at the end."""
    folder = Path(tempfile.mkdtemp(prefix="dockercomp-lab-"))
    folder.chmod(0o755)
    port, mirror_port = free_port(), free_port()
    home = folder / "home"
    home.mkdir()
    product = Product(home)
    product.env["DOCKERCOMP_PUBLIC_URL"] = f"https://{NAME}:{port}"
    make_certificates(folder)
    (folder / "mirrors").mkdir()
    (folder / "nginx.conf").write_text(
        NGINX.format(folder=folder, port=port, mirror_port=mirror_port, upstream=product.port)
    )
    make_release(product, folder, client_image, docker)
    nginx = subprocess.Popen(
        [shutil.which("nginx") or "/usr/sbin/nginx", "-p", folder, "-c", folder / "nginx.conf"],
        stderr=subprocess.DEVNULL,
    )
    try:
        product.run("dockercomp-server", "up", "--detach", "--bind", f"127.0.0.1:{product.port}")
        key_file = product.env["DOCKERCOMP_KEY_FILE"]
        product.run(
            "dockercomp-server", "account", "add", "ada", "--role", "scientist", "--key-file", key_file
        )
        product.run("dockercomp-server", "enrol", "open", "--per-hour", "1000")
        lab = Lab(product, folder, f"https://{NAME}:{port}", f"https://{NAME}:{mirror_port}")
        until(lambda: (folder / "nginx.pid").exists(), seconds=20, what="nginx")
        yield lab
    finally:
        product.run("dockercomp-server", "down")
        nginx.terminate()
        nginx.wait()
        shutil.rmtree(folder)


def make_certificates(folder: Path) -> None:
    """An authority and a server's certificate for NAME."""
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    openssl(
        *("req", "-x509", *key, "-keyout", folder / "ca.key", "-out", folder / "ca.pem", "-days", "2"),
        *("-subj", "/CN=Laboratory CA", "-addext", "basicConstraints=critical,CA:TRUE"),
        *("-addext", "keyUsage=critical,keyCertSign"),
    )
    openssl(
        "req", *key, "-keyout", folder / "server.key", "-out", folder / "server.csr", "-subj", f"/CN={NAME}"
    )
    (folder / "names").write_text(f"subjectAltName=DNS:{NAME}\nauthorityKeyIdentifier=keyid\n")
    openssl(
        *(
            "x509",
            "-req",
            "-in",
            folder / "server.csr",
            "-CA",
            folder / "ca.pem",
            "-CAkey",
            folder / "ca.key",
        ),
        *("-CAcreateserial", "-days", "2", "-extfile", folder / "names", "-out", folder / "server.pem"),
    )


def make_release(product: Product, folder: Path, client_image: str, docker: str) -> None:
    """A release from this checkout with the client image, signed, in the server's folder."""
    archive = folder / "client.tar"
    subprocess.run([docker, "save", "--output", archive, client_image], check=True)
    key = folder / "release.key"
    product.run("dockercomp-server", "release", "keygen", "--key", str(key))
    product.run(
        *("dockercomp-server", "release", "make", "--key", str(key), "--checkout", str(ROOT)),
        *("--out", str(product.home / "releases"), "--client-image", str(archive)),
    )
    archive.unlink()


if __name__ == "__main__":  # a laboratory to look at by hand: python laboratory.py CLIENT_IMAGE
    import signal
    import time

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with laboratory(sys.argv[1], os.environ.get("DOCKER", "/usr/bin/docker")) as shown:
        print(shown.url, shown.folder, flush=True)
        while True:
            time.sleep(60)
