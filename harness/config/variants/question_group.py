"""Hydra's group `question`: one flat list of names over the folders of experiments/questions."""

from __future__ import annotations

from pathlib import Path

from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.object_type import ObjectType
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigResult
from hydra.plugins.search_path_plugin import SearchPathPlugin

from harness.config.variants.question_files import GROUP, QUESTIONS, question_files


class QuestionSource(FileConfigSource):
    """Source of configs in which the file of a question lies below its socket's folder, and is named without
    it."""

    @staticmethod
    def scheme() -> str:
        """Return the first part of the source's address."""
        return GROUP

    def load_config(self, config_path: str) -> ConfigResult:
        """Load the YAML file of a question."""
        return super().load_config(str(question_files()[_name(config_path)]))

    def is_group(self, config_path: str) -> bool:
        """Return whether this is the group, or the root above it."""
        return config_path in ("", GROUP)

    def is_config(self, config_path: str) -> bool:
        """Return whether this is a question of the group."""
        return config_path.startswith(f"{GROUP}/") and _name(config_path) in question_files()

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        """Return the names of the questions; of the root, the group."""
        is_wanted = results_filter in (None, ObjectType.CONFIG if config_path else ObjectType.GROUP)
        return ([*question_files()] if config_path else [GROUP]) if is_wanted else []


def _name(config_path: str) -> str:
    return Path(config_path).name.removesuffix(".yaml")


class QuestionSearchPath(SearchPathPlugin):
    """Addition of the questions to the places where Hydra looks for configs."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Append the source of the questions."""
        search_path.append("questions", f"{GROUP}://{QUESTIONS}")


def register_group() -> None:
    """Let Hydra find the questions in this process: other programs of the environment do not see them."""
    for plugin in (QuestionSource, QuestionSearchPath):
        Plugins.instance().register(plugin)
