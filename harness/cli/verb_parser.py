"""Argument parser of every verb, from which its help and the overview are printed."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any, NoReturn

from harness.core.errors import UserError, did_you_mean

RENAMED_OPTIONS = {
    ("plan", "--layers"): "--compile",
    ("plan", "--calibrate"): "--accuracy",
    ("sample", "--each"): "--per-label",
}
"""New name of each renamed option, by verb and old name."""
_HYDRA_OPTIONS = {"--cfg": "did you mean '--cfg job'?"}
OPTIONS_ELSEWHERE = {
    "harness plan": {"--dry-run": "a plan trains nothing in any case, so leave it out"},
    "harness sweep": _HYDRA_OPTIONS,
    "harness train": {"--dry-run": "`harness sweep --dry-run` predicts one run too"} | _HYDRA_OPTIONS,
}
"""Answer to an option that the parser of a command does not have, but Hydra or another verb."""
TRUST_HELP = (
    "run the modules that the run's config lists in `imports`; not needed where you trained its sweep "
    "(docs/security.md)"
)
RUN_HELP = "directory of a run; without a step its newest good checkpoint"


class VerbParser(argparse.ArgumentParser):
    """Parser that reports a mistake in one sentence (UserError)."""

    def __init__(
        self,
        verb: str,
        summary: str,
        example: str,
        details: str = "",
        notes: str = "",
        *,
        uses_jax: bool = True,
        takes_overrides: bool = False,
    ) -> None:
        """Create a parser without options. `details` are printed above the options, `notes` below them. A
        verb that takes overrides reads `KEY=VALUE` as `harness sweep` does."""
        self.summary, self.example = summary, example
        self.uses_jax, self.takes_overrides = uses_jax, takes_overrides
        texts = (f"harness {verb}: {summary}", f"  $ {example}", details)
        super().__init__(
            f"harness {verb}",
            usage=argparse.SUPPRESS,
            description="\n\n".join(filter(None, texts)),
            epilog=notes,
            formatter_class=partial(argparse.RawDescriptionHelpFormatter, max_help_position=22),
            add_help=False,
        )

    def add(self, name: str, metavar: str, help: str, **settings: Any) -> None:
        """Add an argument with a value, of the type of its default if it has one."""
        if default := settings.get("default"):
            settings["type"] = type(default)
            help += f" (default {default})"
        self.add_argument(name, metavar=metavar, help=help, **settings)

    @property
    def actions(self) -> list[argparse.Action]:
        """Options and values of the parser."""
        return self._actions

    def add_trust(self) -> None:
        """Add the option that allows the modules of a run."""
        self.add_flag("--trust", TRUST_HELP)

    def add_flag(self, name: str, help: str) -> None:
        """Add an option without a value."""
        self.add_argument(name, action="store_true", help=help)

    def parse_known_args(self, args: Iterable[str] | None = None, namespace: Any = None) -> Any:  # pyright: ignore
        """Parse, and raise UserError with the new name for an option that was renamed."""
        words = [] if args is None else [*args]
        for (verb, old), new in RENAMED_OPTIONS.items():
            if self.prog == f"harness {verb}" and any(word.split("=")[0] == old for word in words):
                self.error(f"{old} was renamed: write {new}")
        return super().parse_known_args(words, namespace)

    def check_hydra_options(self, words: Sequence[str]) -> None:
        """Raise UserError for options that Hydra does not have or that exclude each other, where Hydra would
        print its usage or a traceback."""
        from hydra._internal.utils import get_args_parser

        hydra_parser = get_args_parser()
        hydra_parser.error = self.error
        parsed = hydra_parser.parse_intermixed_args([*words])
        if parsed.run and parsed.multirun:
            self.error("--run trains one run, and a sweep all of them: leave it out, or use `harness train`")
        for option in ("resolve", "package"):
            if getattr(parsed, option) and not parsed.cfg:
                self.error(f"--{option} goes with --cfg job")

    def error(self, message: str) -> NoReturn:
        """Raise UserError with the message, the nearest option, and where to find an example."""
        if match := re.match(r"unrecognized arguments: (-\S+)", message):
            elsewhere = OPTIONS_ELSEWHERE.get(self.prog, {})
            answer = did_you_mean(match[1], [*self._option_string_actions, *elsewhere])
            answer = next((hint for option, hint in elsewhere.items() if f"'{option}'" in answer), answer)
            raise UserError(f"{self.prog}: unknown option {match[1]}; {answer}")
        raise UserError(f"{self.prog}: {message}; `{self.prog} --help` shows an example")
