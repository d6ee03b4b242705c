"""The second connection of a host to NATS, against real servers: every way in which they let users in, and TLS."""

from __future__ import annotations

import datetime as dt
import ipaddress
import re
from pathlib import Path
from urllib.parse import urlparse

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from rlpx.engine.client.credentials import Credentials
from rlpx.engine.cluster.wire import Wire
from rlpx.protocol.bus.nats_wire import Message
from tests.engine.client.credentials_files import operated
from tests.engine.fake_worker import until
from tests.system.cluster_fleet import Nats, crowd
from tests.system.harness import RunningEngine, eventually


async def talk(url: str, credentials: Credentials | None = None) -> None:
    """Connect, and hear what we say."""
    answers: list[Message] = []
    wire = Wire("rlpx a", credentials, lambda: None)
    way = wire.take_answers("_INBOX.a", answers.extend)
    await wire.connect(urlparse(url), "localhost")
    for number in range(100):
        assert wire.publish(way.prefix + b"%d" % number, b"nobody", b"NATS/1.0\r\n\r\n" if number % 2 else b"", b"\r\n{}")
    wire.flush()
    await until(lambda: len(answers) == 100)
    assert answers == [(number, b"\r\n{}") for number in range(100)]
    wire.close()


@pytest.mark.parametrize(
    ("settings", "user", "wrong"),
    [
        ("authorization { user: alice, password: secret }", "alice:secret@", "alice:other@"),
        ("authorization { token: secret }", "secret@", "other@"),
        ("", "", None),
    ],
)
async def test_users_and_tokens_in_the_address_are_shown(settings: str, user: str, wrong: str | None) -> None:
    with Nats(settings=settings) as nats:
        await talk(f"nats://{user}127.0.0.1:{nats.ports[0]}")
        if wrong is not None:
            with pytest.raises(ConnectionRefusedError, match="Authorization Violation"):
                await talk(f"nats://{wrong}127.0.0.1:{nats.ports[0]}")


async def test_credentials_are_shown(tmp_path: Path) -> None:
    settings, text = operated()
    file = tmp_path / "host.creds"
    file.write_text(text)
    with Nats(settings=settings) as nats:
        await talk(nats.url, Credentials.load(file))
        with pytest.raises(ConnectionRefusedError, match="Authorization Violation"):
            await talk(nats.url)


def certified(folder: Path) -> str:
    """Settings of a server with a certificate for `localhost` and 127.0.0.1, which is in `folder`/cert.pem."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    today = dt.datetime.now(dt.UTC)
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(1)
    builder = builder.not_valid_before(today - dt.timedelta(days=1))
    builder = builder.not_valid_after(today + dt.timedelta(days=1))
    builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    made = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True).sign(key, hashes.SHA256())
    (folder / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    pem, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    (folder / "key.pem").write_bytes(key.private_bytes(pem, form, serialization.NoEncryption()))
    return f'tls {{ cert_file: "{folder}/cert.pem", key_file: "{folder}/key.pem" }}'


async def test_a_server_with_tls_must_have_a_certificate_that_we_trust(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Nats(settings=certified(tmp_path)) as nats:
        with pytest.raises(OSError, match=re.compile("certificate", re.IGNORECASE)):
            await talk(f"tls://127.0.0.1:{nats.ports[0]}")
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
        for scheme in ("tls", "nats"):
            await talk(f"{scheme}://127.0.0.1:{nats.ports[0]}")


def test_a_host_joins_a_fleet_by_tls_and_admits_peers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
    with Nats(settings=certified(tmp_path)) as nats:
        flags = ("--cluster", f"tls://127.0.0.1:{nats.ports[0]}", "--cluster-host", "a")
        with RunningEngine(*flags, workers=1, is_read=False) as engine, crowd() as peers:
            peers.connect(engine)
            eventually(lambda: peers.active == 1, "a peer is admitted")
