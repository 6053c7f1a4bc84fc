"""The TLS certificate of the embedded Arvados, made on its first start.

Used by `datadir` and `server`; `control` hands the CA file to clients. A private authority signs one server
certificate for this machine's loopback names and its key is then forgotten, so that nothing else can ever be
signed with it; a name constraint keeps the authority harmless for whoever trusts it. Any thread.
"""

import datetime
import ipaddress
import os
import ssl
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from arvados_fuse.local.files import write_private

LIFETIME = datetime.timedelta(days=30 * 365)
"""Nobody renews the certificate of a test cluster; the key never leaves this machine."""

CLOCK_SLACK = datetime.timedelta(days=2)
"""A virtual machine's clock may be set back after the first start."""

SYSTEM_BUNDLES = (
    # The places where the Arvados SDK looks (`arvados.util.ca_certs_path`), in its order.
    Path("/etc/arvados/ca-certificates.crt"),
    Path("/etc/ssl/certs/ca-certificates.crt"),
    Path("/etc/pki/tls/certs/ca-bundle.crt"),
)


class TlsFiles(NamedTuple):
    """Paths below one directory: `ca` and `bundle` are for clients, `key` is secret."""

    ca: Path
    bundle: Path
    certificate: Path
    key: Path

    @classmethod
    def below(cls, directory: Path) -> "TlsFiles":
        """Return the paths; nothing is read or written."""
        return cls(
            directory / "ca.pem",
            directory / "ca-bundle.pem",
            directory / "server.pem",
            directory / "server.key",
        )


def ensure_certificate(directory: Path) -> TlsFiles:
    """Return the server's TLS files, made on the first call.

    `bundle` is written on every call: the machine's own authorities plus ours. `SSL_CERT_FILE` replaces the
    machine's authorities, and other programs of that shell must keep working. Raises OSError.
    """
    files = TlsFiles.below(directory)
    if not (files.ca.exists() and files.certificate.exists() and files.key.exists()):
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        ca, certificate, key = _make()
        write_private(files.key, key)
        write_private(files.certificate, certificate)
        write_private(files.ca, ca)
    write_private(files.bundle, _system_authorities() + files.ca.read_bytes())
    return files


def server_context(files: TlsFiles) -> ssl.SSLContext:
    """Return the TLS settings of the API server. Raises OSError when a file is missing or spoiled."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(files.certificate, files.key)
    return context


def _system_authorities() -> bytes:
    for path in SYSTEM_BUNDLES:
        if path.exists():
            text = path.read_bytes()
            return text if text.endswith(b"\n") else text + b"\n"
    default = ssl.get_default_verify_paths().cafile
    return Path(default).read_bytes() if default and os.path.exists(default) else b""


def _make() -> tuple[bytes, bytes, bytes]:
    """Return the PEM texts of the authority, the server certificate and the server key."""
    ca_key = ec.generate_private_key(ec.SECP256R1())
    server_key = ec.generate_private_key(ec.SECP256R1())
    ca_name = _name("arvados_fuse local authority")
    ca = (
        _builder(ca_name, ca_name, ca_key.public_key(), ca_key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(sign_certificates=True), critical=True)
        .add_extension(x509.NameConstraints(_loopback_subtrees(), None), critical=True)
        .sign(ca_key, hashes.SHA256())
    )
    server = (
        _builder(_name("localhost"), ca_name, server_key.public_key(), ca_key.public_key())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(sign_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(_loopback_names()), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    key_text = server_key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    pem = serialization.Encoding.PEM
    return ca.public_bytes(pem), server.public_bytes(pem), key_text


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    issuer_key: ec.EllipticCurvePublicKey,
) -> x509.CertificateBuilder:
    # The two key identifiers are asked for by the strict checks that Python 3.13 switched on.
    now = datetime.datetime.now(datetime.timezone.utc)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SLACK)
        .not_valid_after(now + LIFETIME)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key), critical=False)
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _loopback_names() -> list[x509.GeneralName]:
    return [
        x509.DNSName("localhost"),
        x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
        x509.IPAddress(ipaddress.ip_address("::1")),
    ]


def _loopback_subtrees() -> list[x509.GeneralName]:
    return [
        x509.DNSName("localhost"),
        x509.IPAddress(ipaddress.ip_network("127.0.0.0/8")),
        x509.IPAddress(ipaddress.ip_network("::1/128")),
    ]


def _key_usage(*, sign_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not sign_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=sign_certificates,
        crl_sign=sign_certificates,
        encipher_only=False,
        decipher_only=False,
    )
