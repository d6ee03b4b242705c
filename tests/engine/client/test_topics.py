"""The list of topics, and the warning about a prefix with which none begins."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import pytest

from rlpx.engine.client import topics
from rlpx.engine.client.topics import UnknownTopicWarning, checked_prefixes, complaint, warn_of_no_request, warn_of_unknown

ROOT = Path(__file__).resolve().parents[3]
# A topic in the code that publishes it: a literal, or one with the end of its name filled in.
PUBLISHED = re.compile(r'"((?:session|dial|peer|worker|engine)\.[a-z_]+)"')


def test_every_topic_that_is_published_is_known() -> None:
    found = {
        topic
        for folder in ("engine", "workers", "protocol")
        for file in (ROOT / folder).rglob("*.py")
        # The stream of a fleet has records of its own, which no engine publishes.
        if "cluster" not in file.parts
        for topic in PUBLISHED.findall(file.read_text(encoding="utf-8"))
        # `engine.ctl` is a module, `engine.toml` a file.
        if topic != "engine.toml" and not (ROOT / topic.replace(".", "/")).with_suffix(".py").exists()
    }
    assert found >= {"session.opened", "worker.lost"}
    assert found - set(topics.KNOWN) == set()


@pytest.mark.parametrize("given", ["eth.", b"eth.", ""])
def test_a_text_is_no_list_of_topics(given: Any) -> None:
    with pytest.raises(
        TypeError, match=r'expected a list of topics or their beginnings, for example \["eth\.", "session\."\]'
    ):
        checked_prefixes(given)


@pytest.mark.parametrize("given", [None, 3, [None], [["eth."]]])
def test_what_is_no_list_of_texts_is_told_with_an_example(given: Any) -> None:
    with pytest.raises(TypeError, match=r"^topics: expected a list of topics or their beginnings, for example .*; got "):
        checked_prefixes(given)


def test_a_topic_is_text() -> None:
    wrong: Any = ["eth.", b"snap."]
    with pytest.raises(TypeError, match="topics: expected a list"):
        checked_prefixes(wrong)
    assert checked_prefixes(iter(["eth.", "snap."])) == ["eth.", "snap."]


@pytest.mark.parametrize(
    "prefix",
    ["", "e", "eth.", "eth.Transactions", "eth.New", "tap.", "tap.snap.", "session.", "worker.st", "engine.stopped"],
)
def test_by_these_topics_begin(prefix: str) -> None:
    assert complaint(prefix) is None


@pytest.mark.parametrize(
    ("prefix", "hint"),
    [
        ("eth.Transaction.", "did you mean eth.Transactions"),
        ("eth.transactions", "did you mean eth.Transactions"),
        ("sesion.", "did you mean session.?"),
        ("session.open.", "did you mean session.opened"),
        ("wit.0", "; topics begin with dial., engine., eth., peer., session., snap., tap., worker."),
        ("\x1b[2J", "; topics begin with"),
    ],
)
def test_a_prefix_by_which_no_topic_begins_is_told_with_the_nearest(prefix: str, hint: str) -> None:
    words = complaint(prefix)
    assert words is not None
    assert words.startswith("no topic begins with '")
    assert hint in words
    assert words.isprintable()


@pytest.mark.parametrize("prefix", ["wit", "wit.", "wit.0", "tap.wit.3"])
def test_a_sub_protocol_that_is_offered_has_topics(prefix: str) -> None:
    assert complaint(prefix, ["wit"]) is None


@pytest.mark.parametrize(
    ("prefix", "name"),
    [("wit.", "wit"), ("wit.3", "wit"), ("tap.wit.3", "wit"), ("eth.3", None), ("wit", None), ("w.x", None)],
)
def test_what_may_be_a_sub_protocol_of_the_users_own(prefix: str, name: str | None) -> None:
    assert topics.sub_protocol_of(prefix) == name


def test_each_unknown_prefix_is_a_warning() -> None:
    with pytest.warns(UnknownTopicWarning) as caught:
        warn_of_unknown(["eth.", "ehh.", "sesion."])
    assert [str(item.message).partition(";")[0] for item in caught] == [
        "no topic begins with 'ehh.'",
        "no topic begins with 'sesion.'",
    ]


def test_only_requests_are_answered() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_no_request(["eth.GetBlockHeaders", "snap.GetAccountRange"])
    for topic in ("eth.", "eth.Transactions", "eth.GetBlockHeader"):
        with pytest.warns(UnknownTopicWarning, match="no request of a peer has the topic"):
            warn_of_no_request([topic])
