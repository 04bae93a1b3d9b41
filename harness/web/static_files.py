"""Files of the page: the document, its scripts, and its style in the colours of the report."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from harness.report.charts import theme
from harness.report.page.page_style import STYLE

FOLDER = Path(__file__).parent / "static"
TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}


@dataclass(frozen=True)
class StaticFile:
    """File that is the same for every request."""

    content: bytes
    media_type: str


def read_static_files() -> dict[str, StaticFile]:
    """Return the files by name."""
    files = {path.name: path.read_text(encoding="utf-8") for path in sorted(FOLDER.iterdir())}
    files["live.css"] = STYLE + _part_colours() + files["live.css"]
    return {
        name: StaticFile(text.encode(), f"{TYPES[Path(name).suffix]}; charset=utf-8")
        for name, text in files.items()
        if Path(name).suffix in TYPES
    }


def _part_colours() -> str:
    """Return the colours of the phases as variables, in both tones."""
    light, dark = (
        "".join(f"--part-{i}: {colour}; " for i, colour in enumerate(tone["parts"]))
        for tone in (theme.LIGHT, theme.DARK)
    )
    return (
        f":root {{ {light} }}\n:root[data-tone=dark] {{ {dark} }}\n"
        f"@media (prefers-color-scheme: dark) {{ :root:not([data-tone=light]) {{ {dark} }} }}\n"
    )
