"""Options from a YAML file and from the environment, as words of a command line.

The command line comes first, then the environment, then the file; an option is taken from the first that has it, also
one that may be repeated. `FLOWBEAM_` and an option's name in capitals is its variable, which counts unless it is empty;
values of a repeatable option are separated by blanks, as a shell would have them.
"""

import argparse
import difflib
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipelines.words import comma_separated
from sinks.command import say
from transforms.records import InputError

OPTION = "--config"
PREFIX = "FLOWBEAM_"

_STORES = ("elasticsearch", "opensearch", "cassandra", "webhook")
_SECRETS = ("username", "user", "password", "api_key", "secret", "authorization")
NO_OPTIONS = (
    *(f"{store}_{secret}{file}" for store in _STORES for secret in _SECRETS for file in ("", "_file")),
    *("kafka_sasl_username", "kafka_sasl_password", "kafka_ssl_key_password"),
    *("corpus", "check_all", "options", "servers"),
)
"""What else is read of the environment, in the spelling of options."""

_KAFKA = "kafka_"
"""Begins what is read of the environment as a setting of Kafka's clients, whatever its name."""

_ALMOST = 0.8
"""From here on a variable is an option that was written wrong; below, somebody else's: Kubernetes makes many."""


def parsed(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options of a command, to whose parser `--config` is added; without arguments, those of the process.

    Raises:
        InputError: As `expanded`, or the parser's own.
    """
    add_option(parser)
    return parser.parse_args(expanded(sys.argv[1:] if arguments is None else arguments, parser))


def add_option(parser: argparse.ArgumentParser) -> None:
    """Adds `--config`."""
    about = "Options from a YAML file; those of the command line come first."
    parser.add_argument(OPTION, metavar="FILE", help=about)


def expanded(
    arguments: Sequence[str], parser: argparse.ArgumentParser, environment: Mapping[str, str] = os.environ
) -> list[str]:
    """The words of the command line, behind those of the options that only environment and file have.

    Args:
        arguments: The words of the command line.
        parser: Knows all options; `--config` is one of them.
        environment: The environment's variables. Those that are almost options are told on standard error.

    Raises:
        InputError: The file cannot be read, has an option that there is none, or a value that is none.
    """
    options = {
        string[2:]: action for action in parser._actions for string in action.option_strings if string[:2] == "--"
    }
    here = {word.partition("=")[0].lstrip("-") for word in arguments if word.startswith("--")}
    given = {id(options[name]) for name in here if name in options}
    words: list[str] = []
    _tell_of_unknown(environment, options)
    for name, action in options.items():
        text = environment.get(f"{PREFIX}{name.upper()}")
        if not text or id(action) in given or name == OPTION.lstrip("-"):
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
                raise InputError(f"{OPTION} {path}: there is no option {name!r}{_hint(name, options)}")
            if id(options[name]) not in given:
                words += _words(f"{OPTION} {path}", name, value, options[name], parser)
    return [*words, *arguments]


def _tell_of_unknown(environment: Mapping[str, str], options: Mapping[str, argparse.Action]) -> None:
    for variable in environment:
        name = variable.removeprefix(PREFIX).lower()
        if name == variable.lower() or name in options or name in NO_OPTIONS or name.startswith(_KAFKA):
            continue
        near = difflib.get_close_matches(name, (*options, *NO_OPTIONS), 1, _ALMOST)
        if near:
            say(
                f"environment variable {variable}: is ignored, no option has this name; "
                f"did you mean {PREFIX}{near[0].upper()}?"
            )


def _hint(name: str, options: Mapping[str, argparse.Action]) -> str:
    """What else may have been meant; secrets are not for files that are copied about."""
    if name in NO_OPTIONS or name.startswith(_KAFKA):
        return f"; it is read of the environment alone, as {PREFIX}{name.upper()}"
    near = difflib.get_close_matches(name, options, 1)
    return f"; did you mean {near[0]}?" if near else ""


def _config_of(arguments: Sequence[str], environment: Mapping[str, str]) -> str | None:
    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    finder.add_argument(OPTION, default=environment.get(f"{PREFIX}CONFIG") or None)
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
        problem = str(getattr(error, "problem", error)).partition("\n")[0]
        raise InputError(f"{OPTION} {path}{where}: is no YAML: {problem}") from error
    if found in (None, ""):
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
    if action.nargs == "?" and value == "":
        return [f"--{name}"]
    if isinstance(value, list) and not _repeatable(action):
        if action.type is not comma_separated:
            raise InputError(f"{where}: {name} takes one value, not a list of them")
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
