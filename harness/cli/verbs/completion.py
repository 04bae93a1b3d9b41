"""`harness completion`: print the script with which a shell completes the command."""

from __future__ import annotations

from collections.abc import Sequence

from harness.cli.verb_parser import VerbParser

NOTES = """\
bash: eval "$(harness completion bash)" in ~/.bashrc
zsh:  eval "$(harness completion zsh)" in ~/.zshrc, after compinit
fish: harness completion fish > ~/.config/fish/completions/harness.fish"""


def make_parser() -> VerbParser:
    """Build the parser of `harness completion`."""
    parser = VerbParser(
        "completion",
        "print the script for a shell that completes verbs, options, config keys, choices and runs",
        "harness completion bash",
        notes=NOTES,
        uses_jax=False,
    )
    parser.add("shell", "SHELL", "bash, zsh or fish", choices=["bash", "zsh", "fish"])
    return parser


def run(arguments: Sequence[str]) -> int:
    """Print the script. Return the exit status."""
    shell = make_parser().parse_args(arguments).shell
    from argcomplete.shell_integration import shellcode

    print(shellcode(["harness"], shell=shell))
    return 0
