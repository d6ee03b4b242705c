"""Arguments are made from parameters: required ones are positional, all others are options."""

from __future__ import annotations

from typing import Annotated

import msgspec
import pytest
from msgspec import Meta

from rlpx.engine.cli.command_arguments import add_parameters, described_by, option_of
from rlpx.engine.cli.terminal import Arguments
from rlpx.protocol.bus.commands import Parameters

Named = Annotated[str, Meta(title="a name", examples=["x"])]


class SomeParameters(Parameters, frozen=True, kw_only=True):
    """Do something."""

    name: Named
    count: Annotated[int, Meta(ge=1, description="How many.", extra={"metavar": "N"})] = 3
    timeout_s: Annotated[float, Meta(gt=0)] | None = None
    static: Annotated[bool, Meta(description="Keep it.")] = True
    raw: Annotated[bool, Meta(description="IP as it is.")] = False
    others: Annotated[tuple[int, ...], Meta(description="Not these.")] = msgspec.field(name="except", default=())
    binary: Annotated[bool, Meta(description="As a frame.", extra={"for_programs": True})] = False


def parsed(*texts: str) -> dict[str, object]:
    arguments = Arguments(prog="some")
    add_parameters(arguments, SomeParameters, {"a name": str.upper})
    return vars(arguments.parse_args(texts))


def test_a_parameter_that_is_needed_has_a_place_and_others_are_options() -> None:
    assert parsed("x", "--count", "5", "--timeout", "2.5") == {
        "name": "X",
        "count": 5,
        "timeout_s": 2.5,
        "static": None,
        "raw": None,
        "except": None,
    }


def test_a_list_has_commas_and_the_name_that_programs_use() -> None:
    assert parsed("x", "--except", "5,7")["except"] == (5, 7)


def test_what_is_for_programs_alone_is_no_argument() -> None:
    with pytest.raises(SystemExit):
        parsed("x", "--binary")


def test_a_boolean_is_an_option_for_what_is_not_the_default() -> None:
    given = parsed("x", "--no-static", "--raw")
    assert (given["static"], given["raw"]) == (False, True)


def test_help_is_made_of_the_descriptions() -> None:
    arguments = Arguments(prog="some")
    add_parameters(arguments, SomeParameters, {})
    text = " ".join(arguments.format_help().split())
    assert "--count N how many (default: 3)" in text
    assert "--no-static do not keep it" in text
    assert "--raw IP as it is" in text


@pytest.mark.parametrize(
    ("kind", "described"),
    [
        (int, ("", "", "")),
        (Named, ("", "a name", "")),
        (Annotated[Named, Meta(description="Whose.")], ("Whose.", "a name", "")),
        (Annotated[int, Meta(extra={"metavar": "N"})] | None, ("", "", "N")),
    ],
)
def test_what_a_type_says_of_itself(kind: object, described: tuple[str, str, str]) -> None:
    assert described_by(kind)[:3] == described


def test_an_option_has_no_unit_in_its_name() -> None:
    assert option_of("timeout_s") == "timeout"
    assert option_of("max_active_inbound") == "max-active-inbound"
