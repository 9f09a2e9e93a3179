"""Options from a YAML file and from the environment, as words of a command line.

The command line comes first, then the environment, then the file; an option is taken from the first that has it, also
one that may be repeated. `FLOWBEAM_` and an option's name in capitals is its variable; values of a repeatable option
are separated by blanks, as a shell would have them.
"""

import argparse
import difflib
import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from transforms.records import InputError

OPTION = "--config"
PREFIX = "FLOWBEAM_"


def expanded(
    arguments: Sequence[str], parser: argparse.ArgumentParser, environment: Mapping[str, str] = os.environ
) -> list[str]:
    """The words of the command line, behind those of the options that only environment and file have.

    Args:
        arguments: The words of the command line.
        parser: Knows all options; `--config` is one of them.
        environment: The environment's variables.

    Raises:
        InputError: The file cannot be read, has an option that there is none, or a value that is none.
    """
    options = {string.lstrip("-"): action for action in parser._actions for string in action.option_strings}
    here = {word.partition("=")[0].lstrip("-") for word in arguments if word.startswith("--")}
    given = {id(options[name]) for name in here if name in options}
    words: list[str] = []
    for name, action in options.items():
        text = environment.get(f"{PREFIX}{name.upper()}")
        if text is None or id(action) in given or name == OPTION.lstrip("-"):
            continue
        given.add(id(action))
        where = f"environment variable {PREFIX}{name.upper()}"
        try:
            values: Any = shlex.split(text) if _repeatable(action) else text
        except ValueError as error:
            raise InputError(f"{where}: {str(error).lower()}; write it as a shell would have it") from error
        words += _words(where, name, values, action, parser)
    path = _config_of(arguments, environment)
    if path is not None:
        for name, value in _read(path).items():
            name = name.replace("-", "_")
            if name not in options or name == OPTION.lstrip("-"):
                near = difflib.get_close_matches(name, options, 1)
                hint = f"; did you mean {near[0]}?" if near else ""
                raise InputError(f"{OPTION} {path}: there is no option {name!r}{hint}")
            if id(options[name]) not in given:
                words += _words(f"{OPTION} {path}", name, value, options[name], parser)
    return [*words, *arguments]


def _config_of(arguments: Sequence[str], environment: Mapping[str, str]) -> str | None:
    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    finder.add_argument(OPTION, default=environment.get(f"{PREFIX}CONFIG"))
    try:
        found, _ = finder.parse_known_args(list(arguments))
    except argparse.ArgumentError:  # without a value: the command's own parser says so
        return None
    path: str | None = found.config
    return path


def _read(path: str) -> dict[Any, Any]:
    """Values as they are written: `no` and `2026-01-31` are texts, as on a command line."""
    import yaml  # only where there is a file: every start is shorter without it

    try:
        text = Path(path).read_text(encoding="utf-8")
        found = yaml.load(text, yaml.BaseLoader)
        names = [name.value for name, _ in yaml.compose(text).value] if isinstance(found, dict) else []
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{OPTION} {path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark is not None else ""
        raise InputError(f"{OPTION} {path}{where}: is no YAML: {getattr(error, 'problem', error)}") from error
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise InputError(f"{OPTION} {path}: holds no options; write one `name: value` in a line")
    if len(names) > len(found):
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"{OPTION} {path}: {twice} is there twice; several values are a list, [A, B]")
    return found


def _words(where: str, name: str, value: Any, action: argparse.Action, parser: argparse.ArgumentParser) -> list[str]:
    if action.nargs == 0:
        truth = {"true": True, "1": True, "false": False, "0": False, "": False}.get(str(value).lower())
        if truth is None:
            raise InputError(f"{where}: {name} is a switch: give true or false, not {value!r}")
        return [f"--{name}"] if truth else []
    if isinstance(value, list) and not _repeatable(action):
        value = ",".join(map(str, value))
    values = value if isinstance(value, list) else [value]
    if not all(isinstance(one, str) and one for one in values):
        raise InputError(f"{where}: {name} needs a plain value or a list of them")
    for one in values:
        try:
            parser._check_value(action, parser._get_value(action, one))
        except argparse.ArgumentError as error:
            raise InputError(f"{where}: {name}: {error.message}") from error
    return [f"--{name}={one}" for one in values]


def _repeatable(action: argparse.Action) -> bool:
    return isinstance(action, argparse._AppendAction)
