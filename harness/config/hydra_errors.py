"""Messages for mistakes in a command line or a config file: key, value and the nearest valid one."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import re
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import (
    ConfigCompositionException,
    HydraException,
    MissingConfigException,
    OverrideParseException,
)
from omegaconf.errors import (
    InterpolationResolutionError,
    MissingMandatoryValue,
    OmegaConfBaseException,
    ValidationError,
)

from harness.config.renamed_keys import renamed_key_message
from harness.config.schema.data import SourceConfig
from harness.config.schema.run import Config
from harness.core.errors import UserError, cause_chain, did_you_mean
from harness.core.hashing import flatten

LIST_GROUPS = ("tracker",)
"""Groups of which a config may have several choices at once."""
_TYPE_NAMES = {"Integer": "a whole number", "Float": "a number", "Boolean": "true or false", "String": "text"}


@contextmanager
def as_user_errors() -> Iterator[None]:
    """Convert exceptions of Hydra and OmegaConf to UserError; others pass unchanged."""
    try:
        yield
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(error_sentence(error)) from error
    except UserWarning as warning:
        path = re.search(r"path=(.*) is not available", str(warning))
        message = f"hydra.searchpath: {path[1] if path else warning} does not exist. Give [file://FOLDER]."
        raise UserError(message) from warning
    except AssertionError as error:
        if override := _override_being_applied(error):
            raise UserError(_explain_absent_node(override)) from error
        raise
    except (ValueError, yaml.YAMLError) as error:
        if file := _file_being_read(error):
            raise UserError(_explain_unreadable(file, error)) from error
        raise


def _file_being_read(error: BaseException) -> str | None:
    """Return the config file whose reading raised the error, from the frame of Hydra's loader, else None."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        if frame.f_code.co_name == "load_config" and "full_path" in frame.f_locals:
            return str(frame.f_locals["full_path"])
    return None


def _override_being_applied(error: BaseException) -> Override | None:
    """Return the override whose application raised the error, from the frame of Hydra's loader, else None."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        if frame.f_code.co_name == "_apply_overrides_to_config":
            return frame.f_locals.get("override")
    return None


def _explain_absent_node(override: Override) -> str:
    """Return a sentence for a key of a node that is null, where Hydra fails an assertion."""
    node, _, name = override.key_or_group.rpartition(".")[0].rpartition(".")
    return f"{override.input_line}: {node}.{name} is null. Choose it too: {node}={name}."


def _explain_unreadable(file: str, error: BaseException) -> str:
    """Return a sentence with the place at which a config file is not UTF-8, not YAML, or has a bad header."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark:
        mark, problem = error.problem_mark, error.problem or error.context
        way_out = "Indent with spaces, not tabs." if "\\t" in str(problem) else "Correct the YAML there."
        return f"{file}, line {mark.line + 1}, column {mark.column + 1}: {problem}. {way_out}"
    if isinstance(error, UnicodeDecodeError):
        return f"{file}: not UTF-8 at byte {error.start + 1}. Save the file as UTF-8."
    if isinstance(error, yaml.YAMLError):
        return f"{file}: not YAML ({' '.join(str(error).split())}). Save the file as plain text in UTF-8."
    return f"{file}: {error}. Write `# @package _global_`, and nothing else, in the first line."


def is_number(text: str) -> bool:
    """Return whether Hydra reads a value as a number or a boolean and would write it in another way."""
    try:
        value = OverridesParser.create().parse_override(f"key={text}").value()
    except HydraException:
        return False
    return isinstance(value, int | float) and str(value) != text


def check_overrides(overrides: Sequence[str], groups: Mapping[str, Sequence[str]]) -> None:
    """Raise UserError for overrides that Hydra would answer with a traceback or silently misread."""
    for word in overrides:
        if problem := _word_mistake(word, groups):
            raise UserError(problem)
    for override in _parse(overrides):
        if problem := _override_mistake(override, groups):
            raise UserError(problem)


def _word_mistake(word: str, groups: Mapping[str, Sequence[str]]) -> str | None:
    """Explain a word without a key, and a list with a space in it, whose first word ends with a comma."""
    if re.fullmatch(r"[\w./]+=[^'\"]*,", word):
        return f"{word}: the list ends with a comma. Write its values without spaces: {word}..."
    if "=" in word or word.startswith("~"):
        return None
    group = next((group for group, options in groups.items() if word in options), "")
    example = f"{group}={word}" if group else "a key and a value, such as experiment=attention"
    return f"{word}: not readable as KEY=VALUE. Write {example}."


def check_cfg_option(kind: str, overrides: Sequence[str]) -> None:
    """Raise UserError for several values with `--cfg hydra` or `all`, which show only one run."""
    sweeps = [override for override in _parse(overrides) if override.is_sweep_override()]
    if sweeps and kind != "job":
        line = sweeps[0].input_line
        way_out = "Give one value, or use --cfg job to see the config of the first run."
        raise UserError(f"{line}: --cfg {kind} shows one run. {way_out}")


def _parse(overrides: Sequence[str]) -> list[Override]:
    return OverridesParser.create().parse_overrides([*overrides])


def _override_mistake(override: Override, groups: Mapping[str, Sequence[str]]) -> str | None:
    line, key = override.input_line, override.key_or_group
    if override.is_sweep_override() and not override.is_discrete_sweep():
        return f"{line}: a sweep needs a finite list of values. Write {key}=a,b,c or {key}=range(0,3)."
    if key not in groups or override.is_delete():
        return None
    value = override.value()
    lists = [item for item in getattr(value, "list", [value]) if isinstance(item, list)]
    if lists and key in LIST_GROUPS:
        names = [str(name) for choice in lists for name in choice]
        wrong_name = next((name for name in names if name not in groups[key]), None)
        return wrong_name and f"{line}: no such choice; {did_you_mean(wrong_name, groups[key])}"
    if key == "experiment" and (override.is_sweep_override() or lists):
        return f"{line}: each experiment is a separate sweep. Start one command for each."
    if lists:
        names = ",".join(str(getattr(item, "text", item)) for item in lists[0])
        return f"{line}: a list merges its files into one {key}. Write `harness sweep {key}={names}`."
    if override.is_add():
        return f"{line}: the group {key} exists already. Write {str(line).lstrip('+')}"
    if not override.is_sweep_override() and override.value() is None:
        return f"{line}: null is not an option of {key}; {did_you_mean('null', groups[key])}"
    return None


def error_sentence(error: BaseException) -> str:
    """Return the most specific message for an exception and its causes."""
    chain = [*cause_chain(error)]
    match = re.match(r"In '([^']+)': \w+ raised while composing", str(error))
    prefix = f"{match[1]}.yaml: " if match else ""  # empty for a mistake on the command line
    for cause in chain:
        if match and (sentence := _explain_package(match[1], cause)):
            return prefix + sentence
        for explain in (_explain_override, _explain_group_choice, _explain_unknown_key, _explain_wrong_type):
            if sentence := explain(cause):
                return prefix + sentence
    return next(filter(None, map(_first_line, chain)), repr(error))


def _explain_package(file: str, error: BaseException) -> str | None:
    """Explain a key of the whole config in a file of a group that does not begin with its package."""
    group, key = file.partition("/")[0], str(getattr(error, "full_key", None) or "")
    if not re.match(r"Key '.*' (is )?not in", str(error)):
        return None
    parent, _, name = key.partition(".")
    if parent != group or (name and name.partition(".")[0] not in Config.__dataclass_fields__):
        return None
    return (
        f"{key} is not a key, because the keys of this file are read below '{group}'. Make "
        "`# @package _global_` the first line of the file, above every comment."
    )


def _explain_group_choice(error: BaseException) -> str | None:
    """Explain a group option without a file, or a group without a choice."""
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, option = error.missing_cfg_file.rpartition("/")
        if group.endswith("/None"):
            return f"roster=? : the size '{option}' of a member comes from a roster. Write roster=replica."
        if (own := Path("conf", group, f"{option}.yaml")).is_file():
            return f"{own} is not searched. Add 'hydra.searchpath=[file://conf]' to the command."
        return f"{group or 'config'}={option}: no such choice; {did_you_mean(option, error.options or ())}"
    if match := re.match(r"You must specify '(\S+)'", str(error)):
        options = re.findall(r"^\t+(\S+)", str(error), re.MULTILINE)
        return f"{match[1]}=? : choose an option; {did_you_mean('', options)}"
    return None


def _explain_unknown_key(error: BaseException) -> str | None:
    """Explain a key that is not in the schema."""
    text = str(error)
    if isinstance(error, OmegaConfBaseException) and "is not a subclass of SourceConfig" in text:
        return _new_source_message(str(error.key))
    if isinstance(error, OmegaConfBaseException) and "is not a subclass of EvaluationSetConfig" in text:
        return _new_set_message(str(error.key))
    if isinstance(error, ConfigCompositionException):
        if match := re.search(r"Could not override '([^']+)'(?:.*\n.*use \+(\S+))?", text):
            return _unknown_key_message(match[1], match[2])
        if match := re.match(r"Override (\S+) looks like a config group override", text):
            return _unknown_key_message(match[1].partition("=")[0], match[1])
    if isinstance(error, OmegaConfBaseException) and re.match(r"Key '.*' (is )?not in", text):
        return _unknown_key_message(str(error.full_key))
    return None


def _unknown_key_message(key: str, line: str | None = None) -> str:
    if match := re.fullmatch(r"data\.sources\.(\w+)(?:\.(\w+))?", key):
        fields = [field.name for field in dataclasses.fields(SourceConfig)]
        if match[2] in (None, *fields):
            return _new_source_message(match[1])
        return f"{line or key}: no such key; {did_you_mean(match[2], fields)}"
    if match := re.fullmatch(r"evaluation\.sets(?:\.(\w+).*)?", key):
        return _new_set_message(match[1] or "NAME")
    if message := renamed_key_message(key, (line or "").partition("=")[2]):
        return message
    if line and ".options" in key:
        return f"{line}: the config does not set this option yet. Add it with +{line}"
    return f"{line or key}: no such key; {did_you_mean(key, _similar_keys(key))}"


def _new_source_message(name: str) -> str:
    return (
        f"data.sources.{name}: the command line cannot add a source. Write a YAML file for data=, such as "
        "conf/data/prose_code.yaml."
    )


def _new_set_message(name: str) -> str:
    return (
        f"evaluation.sets.{name}: the command line adds all sets at once. Write, in quotes, "
        f"'+evaluation.sets={{{name}:{{path:FILE}}}}' (beside path: column, format and options), or write "
        "them into a YAML file of experiment=."
    )


def _similar_keys(key: str) -> Iterable[str]:
    """Return the candidates for a mistyped key: the closest key of all, else its siblings, else all keys."""
    parent = key.rpartition(".")[0]
    siblings = [candidate for candidate in _schema_keys() if candidate.rpartition(".")[0] == parent]
    close = difflib.get_close_matches(key, _schema_keys(), n=1, cutoff=0.5)
    return close if close and not (parent and siblings) else siblings or _schema_keys()


@functools.cache
def _schema_keys() -> tuple[str, ...]:
    leaves = flatten(Config())
    nodes = {leaf[:end] for leaf in leaves for end in (m.start() for m in re.finditer(r"\.", leaf))}
    return (*sorted({*leaves, *nodes}), "experiment", "question")


def _explain_override(error: BaseException) -> str | None:
    """Explain a syntax error, a missing value, an interpolation, or several values for a single run."""
    if isinstance(error, OverrideParseException):
        key, equals, value = str(error.override).partition("=")
        quoted = bool(equals) and not {*"\"'"} & {*value}
        example = f": \"{key}='{value}'\"" if quoted else ""
        return (
            f"{error.override}: not readable as KEY=VALUE. Quote a value with special characters, once for "
            f"the shell and once for Hydra{example}."
        )
    if isinstance(error, MissingMandatoryValue):
        key = str(error.full_key)
        group = key.partition(".")[0]
        way_out = f"Choose one with {group}=..." if key == f"{group}.name" else f"Set {key}=..."
        return f"{key} has no value. {way_out}"
    if isinstance(error, InterpolationResolutionError):
        return f"{error.full_key}: {_first_line(error)}"
    if match := re.match(r"(?:Ambiguous value for argument|Sweep parameters) '([^']+)'", str(error)):
        return f"{match[1]}: several values make a sweep. Use `harness sweep`, or quote a text with commas."
    return None


def _explain_wrong_type(error: BaseException) -> str | None:
    """Explain a value of the wrong type, or outside an enum."""
    if not isinstance(error, ValidationError):
        return None
    text = _first_line(error)
    if match := re.match(r"Value '(.*)' of type '.*' could not be converted to (\w+)", text):
        way_out = f"; write {float(match[1]):.0f}" if match[2] == "Integer" and _is_whole(match[1]) else ""
        return f"{error.full_key}={match[1]}: not {_TYPE_NAMES.get(match[2], 'a ' + match[2])}{way_out}"
    if re.fullmatch(r"field '.*' is not Optional", text):
        return f"{error.full_key}=null: null is not allowed here. Give a value."
    if match := re.match(r"Invalid value '(.*)', expected one of \[(.*)\]", text):
        if message := renamed_key_message(str(error.full_key), match[1]):
            return message
        return f"{error.full_key}={match[1]}: no such choice; {did_you_mean(match[1], match[2].split(', '))}"
    return f"{error.full_key}: {text}".removeprefix(": ")


def _is_whole(text: str) -> bool:
    try:
        return float(text).is_integer()
    except ValueError:
        return False


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0]
