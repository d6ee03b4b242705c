"""Users over TCP: the engine says who they are and what they may do, and whose connections must end."""

from __future__ import annotations

from rlpx.protocol.bus.control import KeyUser
from rlpx.workers.users import Users

READER, BOTH = KeyUser("reader", b"r" * 32, ("events",)), KeyUser("both", b"b" * 32, ("events", "control"))
NOTHING = KeyUser("nothing", b"n" * 32, ())


def test_a_user_may_do_what_its_key_says() -> None:
    users = Users()
    assert users.set([READER, BOTH, NOTHING]) == set()
    assert [users.who(user.public) for user in (READER, BOTH, NOTHING)] == ["reader", "both", None]
    assert users.who(b"x" * 32) is None
    assert users.may("reader", "events")
    assert not users.may("reader", "control")
    assert not users.may("stranger", "events")
    # On this machine's own socket.
    assert users.may(None, "control")


def test_those_that_have_lost_a_right_are_named() -> None:
    users = Users()
    users.set([READER, BOTH])
    assert users.set([READER, KeyUser("both", BOTH.public, ("control",))]) == {"both"}
    assert users.set([KeyUser("reader", READER.public, ("events", "control"))]) == {"both"}
    assert users.set([]) == {"reader"}
    assert users.who(READER.public) is None
