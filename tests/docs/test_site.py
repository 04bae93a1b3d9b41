"""The documentation site: parts made of the code, links, and the built pages."""

from __future__ import annotations

import functools
import importlib
import inspect
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from omegaconf import DictConfig, OmegaConf

from docs.site.command_pages import command_reference
from docs.site.config_keys import config_nodes, type_words
from docs.site.config_pages import config_reference
from docs.site.pictures import PICTURES
from docs.site.public_names import plain_docstring, public_names
from harness.cli import VERBS
from harness.config.compose import compose
from harness.config.schema.decision import Axis
from harness.config.schema.run import Config, ModuleConfig
from tests.docs.documents import DOCUMENTS, FENCE, ROOT
from tests.docs.follow import blocks, follow

SITE = ROOT / "docs" / "_build" / "html"
KEYS = {key.name: key for node in config_nodes() for key in node.keys}

GENERATED = {"reference/config.md": config_reference, "reference/command.md": command_reference}
MODULES = ("harness", "harness.compare", "harness.extend")


def leaves(node: Any, name: str = "") -> set[str]:
    """Return the dotted keys of a schema that OmegaConf has; a mechanism counts as one."""
    if (
        not isinstance(node, DictConfig)
        or node._is_none()
        or OmegaConf.get_type(node) in (ModuleConfig, dict)
    ):
        return {name}
    return {leaf for key in node for leaf in leaves(node._get_node(key), f"{name}.{key}".lstrip("."))}


def test_the_reference_has_every_key_of_the_config():
    nodes = {node.name.removesuffix(".NAME").removesuffix(".N") for node in config_nodes()}
    assert leaves(OmegaConf.structured(Config)) <= KEYS.keys() | nodes
    assert {"data.sources.NAME.weight", "optimizer.groups.N.match", "tracker.wandb.mode"} <= KEYS.keys()


def test_every_key_has_a_meaning():
    assert [key.name for key in KEYS.values() if not key.meaning.split("(")[0]] == []


def test_a_default_is_what_a_run_without_overrides_has():
    config = OmegaConf.structured(compose([]))
    for name in ("seed", "scale.tokens", "optimizer.learning_rate", "data.mask_documents", "rule.target"):
        assert OmegaConf.create({"value": OmegaConf.select(config, name)}) == OmegaConf.from_dotlist(
            [f"value={KEYS[name].default}"]
        )


@pytest.mark.parametrize(
    ("hint", "words"),
    [
        (int | None, "integer or null"),
        (list[float], "list of numbers"),
        (dict[str, float], "numbers by name"),
        (Axis, "`tokens`, `flops` or `seconds`"),
        (list[ModuleConfig], "list of `{name, options}`"),
    ],
)
def test_a_type_reads_as_words(hint, words):
    assert type_words(hint) == words


def test_the_reference_has_every_option_that_help_prints():
    page = command_reference()
    for verb in VERBS:
        section = page.partition(f"## harness {verb}\n")[2].partition("\n## ")[0]
        shown = importlib.import_module(f"harness.cli.verbs.{verb}").make_parser().format_help()
        options = {*re.findall(r"^  (--[\w-]+)", shown, re.MULTILINE)}
        assert options <= {*re.findall(r"(--[\w-]+)", section)}, verb


@pytest.mark.parametrize("module", MODULES)
def test_the_reference_has_every_public_name_with_its_docstring(module):
    owner = importlib.import_module(module)
    page = public_names(module)
    for name in owner.__all__:
        assert re.search(rf":: [\w.]*\.{name}$", page, re.MULTILINE), name
        assert inspect.getdoc(getattr(owner, name)), name


def test_signs_in_a_docstring_are_no_markup():
    lines = ["k = d / (1 + |d|), of `a*b`", "RUN@STEP and *args."]
    plain_docstring(lines)
    assert lines == [r"k = d / (1 + \|d\|), of ``a*b``", r"RUN\@STEP and \*args."]


def test_the_pictures_are_those_that_the_code_draws():
    assert {name: (ROOT / "docs" / name).read_text() for name in PICTURES} == {
        name: draw() for name, draw in PICTURES.items()
    }


def test_the_table_of_the_answers_is_that_of_the_gallery():
    (table,) = (block.text for block in blocks(ROOT / "docs/faq.md") if block.kind == "csv")
    assert table == (ROOT / "docs/gallery/one_seed.csv").read_text()


@functools.cache
def anchors(document: Path) -> set[str]:
    """Return the anchors of a document's headings, as GitHub and MyST make them."""
    text = document.read_text()
    for page, make in GENERATED.items():
        text += make() if document == ROOT / "docs" / page else ""
    titles = re.findall(r"^#+ (.*)$", FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_link_to_a_heading_finds_it(document):
    for path, anchor in re.findall(r"\]\(([\w./-]*)#([\w-]+)\)", FENCE.sub("", document.read_text())):
        target = (document.parent / path).resolve() if path else document
        assert anchor in anchors(target), (path, anchor)


@pytest.mark.slow
@pytest.mark.parametrize(("page", "compared"), [("index.md", 2), ("faq.md", 3)])
def test_a_page_does_what_it_says(page, compared, tmp_path, monkeypatch):
    """The first page trains two sweeps on a text that it makes."""
    monkeypatch.setenv("AB_HARNESS_CACHE", str(tmp_path / "cache"))
    followed = follow(ROOT / "docs" / page, tmp_path)
    assert followed.compared == compared
    if page == "index.md":
        assert (followed.status, (tmp_path / "mine/runs/mine/report.html").exists()) == (0, True)


class Links(HTMLParser):
    """Links and anchors of a page."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.links += [value for name in ("href", "src") if (value := values.get(name)) and value != "#"]
        self.anchors |= {value for name in ("id", "name") if (value := values.get(name))}


@pytest.mark.slow
def test_every_link_of_the_built_site_leads_somewhere():
    if not SITE.is_dir():
        pytest.skip("docs/_build/html is not there: `make docs` builds it")
    pages = {page: Links(page) for page in SITE.rglob("*.html") if page.parent.name != "gallery"}
    ours = [page for page in pages if page.relative_to(SITE).parts[0] not in ("_static", "_modules")]
    assert len(ours) > 50
    assert [(str(page.relative_to(SITE)), link) for page in ours for link in broken_links(page, pages)] == []


def broken_links(page: Path, pages: dict[Path, Links]) -> list[str]:
    """Return the links of a page that lead nowhere on the site, or have no form of an address."""
    return [link for link in pages[page].links if not leads_somewhere(link, page, pages)]


def leads_somewhere(link: str, page: Path, pages: dict[Path, Links]) -> bool:
    parts = urlsplit(link)
    if parts.scheme or parts.netloc:
        return parts.scheme in ("https", "http", "mailto", "data") and bool(parts.netloc or parts.path)
    target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
    anchor = unquote(parts.fragment)
    return target.exists() and (not anchor or target not in pages or anchor in pages[target].anchors)
