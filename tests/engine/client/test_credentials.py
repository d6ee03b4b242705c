from __future__ import annotations

import base64
import os
from pathlib import Path

import pytest
from nacl.signing import SigningKey

from rlpx.engine.client.credentials import Credentials, decode_seed
from rlpx.protocol.mistakes import ConfigError
from tests.engine.client.credentials_files import ACCOUNT, USER, credentials, seed_text, text_of

SEED = bytes(range(32))


def test_a_file_of_credentials_gives_the_jwt_and_signs_what_the_server_asks_to_sign(tmp_path: Path) -> None:
    file = tmp_path / "user.creds"
    file.write_text(credentials("eyJ0.eyJq-_.c2ln", seed_text(SEED)))
    found = Credentials.load(str(file))
    assert found.user_jwt() == b"eyJ0.eyJq-_.c2ln"
    SigningKey(SEED).verify_key.verify(b"a nonce", base64.b64decode(found.sign("a nonce")))


def test_a_published_seed_is_read() -> None:
    # A user's seed and public key in the documentation of NATS ("NKeys").
    seed = decode_seed("SUACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU3VY")
    public = text_of(bytes([USER]) + SigningKey(seed).verify_key.encode())
    assert public == "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4"
    assert seed_text(seed) == "SUACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU3VY"


@pytest.mark.parametrize(
    ("contents", "problem"),
    [
        ("", "no NATS credentials"),
        (credentials("", seed_text(SEED)), "no NATS credentials"),
        (credentials("a.b.c", "not base32 at all"), "no NATS credentials"),
        (credentials("a.b.c", "SUA"), "the USER NKEY SEED is not base32|has . bytes where 36 are expected"),
        (credentials("a.b.c", seed_text(SEED)[:-8]), "bytes where 36 are expected|is not base32"),
        (credentials("a.b.c", seed_text(SEED).replace("A", "B", 1)), "the USER NKEY SEED has a wrong checksum"),
        (credentials("a.b.c", seed_text(SEED, ACCOUNT)), "the USER NKEY SEED is not a user's, which begins with SU"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_with_its_name(contents: str, problem: str, tmp_path: Path) -> None:
    file = tmp_path / "user.creds"
    file.write_text(contents)
    with pytest.raises(ConfigError, match=f"^{file}: .*({problem})"):
        Credentials.load(str(file))


def test_a_file_that_is_not_there_is_a_mistake_of_the_settings() -> None:
    with pytest.raises(ConfigError, match=r"^/nowhere/user.creds: No such file") as raised:
        Credentials.load("/nowhere/user.creds")
    assert raised.value.exit_code == os.EX_CONFIG
