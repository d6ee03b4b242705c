"""A mistake is one line and has the exit code of its cause."""

from __future__ import annotations

import os

import pytest

from rlpx.protocol.mistakes import bind_error, file_error


@pytest.mark.parametrize(
    ("number", "code"), [(13, 77), (1, 77), (28, 73), (30, 73), (2, 78), (17, 78), (20, 78), (36, 78), (40, 78)]
)
def test_a_file_s_exit_code_is_that_of_its_cause(number: int, code: int) -> None:
    assert file_error("x", OSError(number, os.strerror(number))).exit_code == code


@pytest.mark.parametrize(("number", "code"), [(28, 73), (30, 73), (13, 77), (98, 69), (99, 69)])
def test_a_socket_that_cannot_listen_has_the_exit_code_of_its_cause(number: int, code: int) -> None:
    error = bind_error("listen: 1.2.3.4:5", OSError(number, os.strerror(number)))
    assert (str(error), error.exit_code) == (f"listen: 1.2.3.4:5: {os.strerror(number)}", code)
