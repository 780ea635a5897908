"""Add pages to the site: pages of the repository, the tutorial and the API reference.

The page of `cdl demo` that `make live` writes is added as it is, if it is there.
Pages of the repository are not copied: each is read in its place, and its links to files are
replaced by links to pages of the site. A linked file without a page gets one with its text.
"""

import ast
import json
import posixpath
import re
import shutil
from functools import cache
from pathlib import Path
from textwrap import indent

from griffe import Class, Extension
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.nav import Link, Navigation
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
PAGES = {  # pages of the repository, and their names on the site
    "README.md": "index.md",
    "config/README.md": "configuration.md",
    "CONTRIBUTING.md": "contributing.md",
    "results/README.md": "results_folder.md",
    "cdl/assets/README.md": "model_card.md",
    "tests/conformance/README.md": "golden_vectors.md",
    "benchmarks/README.md": "benchmarks.md",
    "tests/README.md": "promises.md",
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "security.md",
    "docs/tutorial.ipynb": "tutorial.md",
}
BADGE = re.compile(r"^\[!\[.*?\]\((?:https://|\.\./\.\./).*\n", re.MULTILINE)  # remote images
FENCED = re.compile(r"(^ *```.*?^ *```$)", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!\w+:|#)([^)#\s]+)(#[^)\s]*)?\)")
LIVE = ROOT / "results" / "live"  # of `make live`
LANGUAGES = {".cff": "yaml", ".csv": "text", "": "text"}  # otherwise the suffix


class Fields(Extension):
    """Read lines `name: meaning` at the end of a class's docstring as its attributes."""

    def on_class(self, *, cls: Class, **_: object) -> None:
        """Add the heading that Griffe expects above attributes."""
        if cls.docstring:
            text, _, fields = cls.docstring.value.rpartition("\n\n")
            if text and all(re.match(r"\w+: |\s", line) for line in fields.splitlines()):
                cls.docstring.value = f"{text}\n\nAttributes:\n{indent(fields, '    ')}"


def on_config(config: MkDocsConfig) -> None:
    """Add the rooms of cdl/ to the navigation, below the API reference."""
    (entry,) = (entry for entry in config.nav if "API reference" in entry)
    rooms = [{name: uri} for name, uri in (("cdl", "api/index.md"), *rooms_of_the_api().items())]
    entry["API reference"] = rooms


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Add all pages that are not in docs/."""
    for source, uri in PAGES.items():
        files.append(File.generated(config, uri, content=markdown(ROOT / source)))
    rooms = rooms_of_the_api()
    files.append(File.generated(config, "api/index.md", content=api_index(rooms)))
    for room, uri in rooms.items():
        files.append(File.generated(config, uri, content=f"::: cdl.{room}\n"))
    for path in sorted(shown_files()):
        language = LANGUAGES.get(path.suffix, path.suffix[1:])
        text = f"# `{path.name}`\n\n`{path_in_repository(path)}`\n\n"
        text += f"```{language}\n{path.read_text()}\n```\n"
        files.append(File.generated(config, file_page(path), content=text))


def on_nav(nav: Navigation, **_: object) -> None:
    """Add the live page to the navigation."""
    if LIVE.is_dir():
        after = next(i for i, item in enumerate(nav.items) if item.title == "Use a student")
        nav.items.insert(after + 1, Link("Live demo", f"{LIVE.name}/index.html"))


def on_post_build(config: MkDocsConfig) -> None:
    """Copy the live page; its files are not pages, not even the student's card."""
    if LIVE.is_dir():
        shutil.copytree(LIVE, Path(config.site_dir, LIVE.name), dirs_exist_ok=True)


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Turn links to files of the repository into links to the pages of the site."""
    source = source_of(page.file.src_uri)
    return with_site_links(markdown, source, page.file.src_uri) if source.is_file() else markdown


def source_of(uri: str) -> Path:
    """Return the file of the repository behind a page of the site."""
    return ROOT / {page: source for source, page in PAGES.items()}.get(uri, f"docs/{uri}")


def path_in_repository(path: Path) -> str:
    """Return a file's path inside the repository."""
    return path.relative_to(ROOT).as_posix()


def links(text: str, source: Path) -> list[Path]:
    """Return the files that a page of the repository links to."""
    prose = FENCED.sub("", text)
    return [Path(posixpath.normpath(source.parent / found[1])) for found in LINK.finditer(prose)]


@cache
def shown_files() -> frozenset[Path]:
    """Return the linked files that are not pages, pictures or modules."""
    pages = [*ROOT.glob("docs/**/*.md"), *(ROOT / source for source in PAGES)]
    found = {path for page in pages for path in links(markdown(page), page)}
    wrong = [path_in_repository(path) for path in found if not path.is_file()]
    if wrong:
        raise PluginError(f"broken links, no such file: {', '.join(wrong)}")
    places = (ROOT / "docs", *(ROOT / source for source in PAGES))
    found = {path for path in found if not any(path.is_relative_to(place) for place in places)}
    return frozenset(path for path in found if not is_module(path))


def is_module(path: Path) -> bool:
    """Return whether a file is a module that the API reference describes."""
    return path.suffix == ".py" and path.is_relative_to(ROOT / "cdl")


def file_page(path: Path) -> str:
    """Return the page of the site with the text of a file."""
    return f"files/{path_in_repository(path)}.md"


def with_site_links(text: str, source: Path, uri: str) -> str:
    """Return a page's text with links to the pages of the site."""

    def replace(found: re.Match[str]) -> str:
        path = Path(posixpath.normpath(source.parent / found[1]))
        if is_module(path):
            return f"][{'.'.join(path.relative_to(ROOT).with_suffix('').parts)}]"
        if path_in_repository(path) in PAGES:
            target = PAGES[path_in_repository(path)]
        elif path.is_relative_to(ROOT / "docs"):
            target = path.relative_to(ROOT / "docs").as_posix()
        else:
            target = file_page(path)
        return f"]({posixpath.relpath(target, posixpath.dirname(uri) or '.')}{found[2] or ''})"

    parts = FENCED.split(text)
    return "".join(part if i % 2 else LINK.sub(replace, part) for i, part in enumerate(parts))


def markdown(path: Path) -> str:
    """Return the text of a page, or of a notebook with its outputs."""
    if path.suffix != ".ipynb":
        return BADGE.sub("", path.read_text())
    parts = []
    for cell in json.loads(path.read_text())["cells"]:
        text = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(text)
            continue
        shell, _, commands = text.partition("\n")
        is_shell = shell.startswith("%%bash")
        parts.append(f"```sh\n{commands}\n```" if is_shell else f"```python\n{text}\n```")
        parts += [output_as_markdown(output) for output in cell["outputs"]]
    return "\n\n".join(parts)


def output_as_markdown(output: dict) -> str:
    """Return an output of a notebook cell as Markdown."""
    if output["output_type"] == "stream":
        return f"```text\n{''.join(output['text'])}\n```"
    data = output["data"]
    if "text/markdown" in data:
        return "".join(data["text/markdown"])
    if "image/png" in data:
        return f"![output](data:image/png;base64,{data['image/png'].strip()})"
    return f"```text\n{''.join(data['text/plain'])}\n```"


@cache
def rooms_of_the_api() -> dict[str, str]:
    """Return every room of cdl/ and its page, in the order of their names."""
    rooms = sorted(path.parent.name for path in ROOT.glob("cdl/*/__init__.py"))
    return {room: f"api/{room}.md" for room in rooms}


def api_index(rooms: dict[str, str]) -> str:
    """Return the first page of the API reference: the public functions, and a list of the rooms."""
    lines = ["# API reference", "", "| room | purpose |", "|---|---|"]
    for room in rooms:
        text = ast.get_docstring(ast.parse((ROOT / "cdl" / room / "__init__.py").read_text()))
        summary = " ".join(text.split("\n\n")[0].split()).removesuffix(" Nothing is imported here.")
        lines.append(f"| [`cdl.{room}`]({room}.md) | {summary} |")
    options = "\n    options: {heading_level: 2, skip_local_inventory: true}"
    public = [
        "The interface for programs that use a student:",
        f"::: cdl.load{options}",
        f"::: cdl.deployment.device.classifier.Classifier{options}",
        f"::: cdl.deployment.device.student.DeviceStudent{options}",
    ]
    return "\n\n".join(["\n".join(lines[:2]), *public, "## Rooms", "\n".join(lines[2:])]) + "\n"
