"""The parts that the tools share: exit codes, finding the engine, and values as people read them."""

from __future__ import annotations

import pytest

from rlpx.engine.cli.terminal import Arguments, add_connection, check_connection, fail, shown, typed


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (True, "yes"),
        (0, "0"),
        (1.5, "1.5"),
        ("", ""),
        ("geth/1", "geth/1"),
        ([], "-"),
        (["eth/69", "snap/1"], "eth/69,snap/1"),
        ({"a": None, "b": [1, 2]}, "a=- b=1,2"),
        ({}, ""),
    ],
)
def test_a_value_is_shown_as_a_person_reads_it(value: object, text: str) -> None:
    assert shown(value) == text


@pytest.mark.parametrize("text", ["\x1b[2J", "two\nlines", "\r", "\x07", "\u202e", "tab\t", "\x9b31m", "\ud800"])
def test_a_peers_text_cannot_move_the_cursor_or_end_the_line(text: str) -> None:
    for value in (text, [text], {"client": text}):
        assert shown(value).isprintable()


def test_wrong_usage_is_one_line_and_its_own_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        Arguments(prog="tool").parse_args(["--nonsense"])
    assert ended.value.code == 64
    assert capsys.readouterr().err == "tool: unrecognized arguments: --nonsense (--help says more)\n"


def test_an_engine_is_at_one_place_only(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = Arguments(prog="tool")
    add_connection(arguments)
    given = arguments.parse_args(["--run-dir", "/x", "--connect", "tcp://127.0.0.1:1"])
    with pytest.raises(SystemExit) as ended:
        check_connection(arguments, given)
    assert ended.value.code == 64
    assert "not allowed with" in capsys.readouterr().err


@pytest.mark.parametrize(
    "texts", [["a", "b", "--n", "3"], ["--n", "3", "a", "b"], ["a", "--n", "3", "b"], ["a", "--n=3", "b"]], ids=" ".join
)
def test_options_may_stand_between_arguments(texts: list[str]) -> None:
    arguments = Arguments(prog="tool")
    arguments.add_argument("--n", type=typed(int))
    arguments.add_argument("names", nargs="*")
    given = arguments.parse_args(texts)
    assert (given.n, given.names) == (3, ["a", "b"])


@pytest.mark.parametrize("text", ["x", "", "1.5", "9" * 5000, "\udcff"])
def test_a_wrong_value_names_the_option_and_what_is_allowed(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = Arguments(prog="tool")
    arguments.add_argument("--n", type=typed(int))
    with pytest.raises(SystemExit) as ended:
        arguments.parse_args([f"--n={text}"])
    assert ended.value.code == 64
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("tool: --n: expected ")


def test_abbreviations_are_refused_with_the_whole_name(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = Arguments(prog="tool")
    arguments.add_argument("--seconds")
    with pytest.raises(SystemExit):
        arguments.parse_args(["--sec", "3"])
    assert capsys.readouterr().err == "tool: unrecognized arguments: --sec; did you mean --seconds? (--help says more)\n"


def test_a_failure_is_one_line_with_its_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        fail("tool", "no engine", 69)
    assert ended.value.code == 69
    assert capsys.readouterr() == ("", "tool: no engine\n")
