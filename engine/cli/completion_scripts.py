"""Writes the completion scripts of bash, zsh and fish for a program.

Each script walks over the words before the cursor to find the command, whether an option needs its value, and how many
arguments there are. A table then gives what may follow.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

FILES: Final = "files"
DIRECTORIES: Final = "directories"


class Values(NamedTuple):
    """The values that may stand in a place: these words and, if `paths` is not empty, `files` or `directories`."""

    words: tuple[str, ...] = ()
    paths: str = ""


class Option(NamedTuple):
    """An option. `values` describes its value, or is `None` if it takes none."""

    names: tuple[str, ...]
    help: str
    values: Values | None


class Command(NamedTuple):
    """The arguments of a program or of one of its commands. If `repeats`, the last one may be given any number of times."""

    name: str
    help: str
    options: tuple[Option, ...]
    places: tuple[Values, ...]
    repeats: bool


class Program(NamedTuple):
    """A program, its arguments, and its commands, if it has any."""

    name: str
    own: Command
    commands: tuple[Command, ...]

    @property
    def all(self) -> tuple[Command, ...]:
        """The program itself, as a command without a name, and its commands."""
        return self.own, *self.commands


def script(program: Program, shell: str) -> str:
    """The completion of a program for one of `SHELLS`."""
    return "\n".join(_SHELLS[shell](program)) + "\n"


def _function(program: Program) -> str:
    return "_" + program.name.replace("-", "_")


def _quoted(text: str) -> str:
    """Text in single quotes, without the characters that the three shells read differently there."""
    return "'" + text.replace("\\", "").replace("'", "") + "'"


def _with_value(program: Program) -> list[tuple[str, str, Values]]:
    """Every option that takes a value: its command, its name, and its values."""
    return [
        (command.name, name, option.values)
        for command in program.all
        for option in command.options
        if option.values is not None
        for name in option.names
    ]


def _key(command: str, place: int, *, repeats: bool) -> str:
    """A pattern for a command and the number of arguments before the cursor."""
    return f"'{command} '*" if repeats and place == 0 else f"'{command} {place}'"


def _places(program: Program) -> Iterator[tuple[str, Values]]:
    """Each place with its pattern, and the values that may stand there."""
    for command in program.all:
        for place, values in enumerate(command.places):
            yield _key(command.name, place, repeats=command.repeats and place == len(command.places) - 1), values


def _walk(program: Program, words: str, first: int, last: str) -> list[str]:
    """The walk over the words before the cursor, for bash and zsh."""
    takers = " | ".join(f"'{command}:{name}'" for command, name, _ in _with_value(program))
    count = "((++place))"
    step = f"if [[ -z $command ]]; then command=$word; else {count}; fi" if program.commands else count
    return [
        "    local word= option= command= place=0 index",
        f"    for ((index = {first}; index < {last}; index++)); do",
        f"        word=${{{words}[index]}}",
        "        # The = of --option=value, which bash makes a word of its own.",
        "        [[ $word == '=' ]] && continue",
        "        if [[ -n $option ]]; then option=; continue; fi",
        '        case "$command:$word" in',
        f"            {takers}) option=$word ;;",
        "            *:-*) ;;",
        f"            *) {step} ;;",
        "        esac",
        "    done",
    ]


# -- bash -------------------------------------------------------------------------------------------------------------------


def _bash(program: Program) -> Iterator[str]:
    function = _function(program)
    yield f"# Completion of {program.name} for bash: source it, or save it in ~/.local/share/bash-completion/completions."
    yield f"{function}() {{"
    yield "    local current=${COMP_WORDS[COMP_CWORD]} words= paths="
    yield from _walk(program, "COMP_WORDS", 1, "COMP_CWORD")
    yield "    [[ $current == '=' ]] && current="
    yield "    if [[ -n $option ]]; then"
    yield '        case "$command $option" in'
    for command, name, values in _with_value(program):
        yield f"            '{command} {name}') {_bash_values(values)} ;;"
    yield "        esac"
    yield "    elif [[ $current == -* ]]; then"
    yield '        case "$command" in'
    for one in program.all:
        names = " ".join(name for option in one.options for name in option.names)
        yield f"            '{one.name}') words={_quoted(names)} ;;"
    yield "        esac"
    yield "    else"
    yield '        case "$command $place" in'
    if program.commands:
        yield f"            ' 0') words={_quoted(' '.join(one.name for one in program.commands))} ;;"
    for pattern, values in _places(program):
        yield f"            {pattern}) {_bash_values(values)} ;;"
    yield "        esac"
    yield "    fi"
    yield '    mapfile -t COMPREPLY < <(compgen -W "$words" ${paths:+"$paths"} -- "$current")'
    yield "    # The beginning of many topics goes on without a space."
    yield "    [[ ${#COMPREPLY[@]} == 1 && ${COMPREPLY[0]} == *. ]] && compopt -o nospace"
    yield '    [[ -n "$paths" ]] && compopt -o filenames'
    yield "    return 0"
    yield "}"
    yield f"complete -F {function} {program.name}"


def _bash_values(values: Values) -> str:
    paths = {"": "", FILES: " paths=-f", DIRECTORIES: " paths=-d"}[values.paths]
    return f"words={_quoted(' '.join(values.words))}{paths}"


# -- zsh --------------------------------------------------------------------------------------------------------------------


def _zsh(program: Program) -> Iterator[str]:
    function = _function(program)
    yield f"#compdef {program.name}"
    yield f"# Completion of {program.name} for zsh: source it, or save it as {function} in a folder of $fpath."
    yield f"{function}() {{"
    yield "    local current=${words[CURRENT]}"
    yield "    local -a found"
    yield from _walk(program, "words", 2, "CURRENT")
    yield "    if [[ -z $option && $current == --*=* ]]; then option=${current%%=*}; compset -P '*='; fi"
    yield "    if [[ -n $option ]]; then"
    yield '        case "$command $option" in'
    for command, name, values in _with_value(program):
        yield f"            '{command} {name}') {_zsh_values(values)} ;;"
    yield "        esac"
    yield "    elif [[ $current == -* ]]; then"
    yield '        case "$command" in'
    for one in program.all:
        rows = " ".join(_zsh_row(name, option.help) for option in one.options for name in option.names)
        yield f"            '{one.name}') found=({rows}) ;;"
    yield "        esac"
    yield "        _describe -o option found"
    yield "    else"
    yield '        case "$command $place" in'
    if program.commands:
        rows = " ".join(_zsh_row(one.name, one.help) for one in program.commands)
        yield f"            ' 0') found=({rows}); _describe command found ;;"
    for pattern, values in _places(program):
        yield f"            {pattern}) {_zsh_values(values)} ;;"
    yield "        esac"
    yield "    fi"
    yield "}"
    yield f'if [[ ${{funcstack[1]}} == {function} ]]; then {function} "$@"; else compdef {function} {program.name}; fi'


def _zsh_row(name: str, words: str) -> str:
    return _quoted(name.replace(":", "") + ":" + words.replace(":", ""))


def _zsh_values(values: Values) -> str:
    added = [f"compadd -- {' '.join(map(_quoted, values.words))}"] if values.words else []
    added += {"": [], FILES: ["_files"], DIRECTORIES: ["_files -/"]}[values.paths]
    return "; ".join(added) or ":"


# -- fish -------------------------------------------------------------------------------------------------------------------


def _fish(program: Program) -> Iterator[str]:
    function = "_" + _function(program)
    takers = " ".join(f"'{command}:{name}'" for command, name, _ in _with_value(program))
    yield f"# Completion of {program.name} for fish: source it, or save it in ~/.config/fish/completions."
    yield f"function {function}"
    yield "    set -l option ''; set -l command ''; set -l place 0"
    yield "    for word in (commandline -opc)[2..-1]"
    yield "        if test -n $option"
    yield "            set option ''"
    yield f'        else if contains -- "$command:$word" {takers}'
    yield "            set option $word"
    yield "        else if string match -q -- '-*' $word"
    yield "            continue"
    if program.commands:
        yield "        else if test -z $command"
        yield "            set command $word"
    yield "        else"
    yield "            set place (math $place + 1)"
    yield "        end"
    yield "    end"
    yield '    echo "$command $place"'
    yield "end"
    yield f"complete -c {program.name} -f"
    for one in program.commands:
        row = f"-a {one.name} -d {_quoted(one.help)}"
        yield f"complete -c {program.name} -n 'string match -q \" 0\" -- ({function})' {row}"
    for one in program.all:
        for option in one.options:
            names = " ".join(f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}" for name in option.names)
            taken = "" if option.values is None else f" {_fish_values(option.values, is_option=True)}"
            condition = f"-n 'string match -q \"{one.name} *\" -- ({function})'"
            yield f"complete -c {program.name} {condition} {names} -d {_quoted(option.help)}{taken}"
    for pattern, values in _places(program):
        if values.words or values.paths:
            glob = pattern.replace("'", "")
            condition = f"-n 'string match -q \"{glob}\" -- ({function})'"
            yield f"complete -c {program.name} {condition} {_fish_values(values, is_option=False)}"


def _fish_values(values: Values, *, is_option: bool) -> str:
    words = list(values.words)
    if values.paths == DIRECTORIES:
        words.append("(__fish_complete_directories)")
    chosen = f"-a {_quoted(' '.join(words))}" if words else ""
    if values.paths == FILES:
        return f"{'-r ' if is_option else ''}-F {chosen}".rstrip()
    return f"{'-x ' if is_option else ''}{chosen}".rstrip()


_SHELLS: Final = {"bash": _bash, "zsh": _zsh, "fish": _fish}
SHELLS: Final = tuple(_SHELLS)
