"""Build the site: write its pages into build/ and let Zensical render them.

Its pages are those of docs/, pages of the repository, the tutorial and the API reference. Links to
files are replaced by links to pages of the site; a linked file without a page gets one with its
text. The page of `cdl demo` that `make live` writes is added as it is, if it is there.
"""

import ast
import json
import posixpath
import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from textwrap import indent

from griffe import Class, Extension

ROOT = Path(__file__).parents[1]
BUILD = ROOT / "build" / "pages"  # of Zensical: pages and configuration
SITE = ROOT / "site"
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


def pages() -> dict[str, str]:
    """Return the text of all pages by their names on the site."""
    sources = {uri: ROOT / source for source, uri in PAGES.items()}
    sources |= {
        path.relative_to(ROOT / "docs").as_posix(): path for path in ROOT.glob("docs/**/*.md")
    }
    found = {uri: with_site_links(markdown(path), path, uri) for uri, path in sources.items()}
    rooms = rooms_of_the_api()
    found["api/index.md"] = api_index(rooms)
    found |= {uri: f"::: cdl.{room}\n" for room, uri in rooms.items()}
    for path in sorted(shown_files()):
        language = LANGUAGES.get(path.suffix, path.suffix[1:])
        text = f"# `{path.name}`\n\n`{path_in_repository(path)}`\n\n"
        found[file_page(path)] = text + f"```{language}\n{path.read_text()}\n```\n"
    return found


def configuration() -> str:
    """Return zensical's configuration: mkdocs.yml with all pages of the API and the live page."""
    text = (ROOT / "mkdocs.yml").read_text()
    rooms = {"cdl": "api/index.md"} | rooms_of_the_api()
    added = "".join(f"\n      - {name}: {uri}" for name, uri in rooms.items())
    text = re.sub(r"(?<=- API reference:) \[\].*", added, text)
    if LIVE.is_dir():
        student = "  - Use a student: use_a_student.md\n"
        text = text.replace(student, f"{student}  - Live demo: {LIVE.name}/index.html\n")
    return text.replace("{ROOT}", str(ROOT))


def main() -> int:
    """Write all pages, build the site, and return the exit code of Zensical."""
    shutil.rmtree(BUILD, ignore_errors=True)
    pictures = shutil.ignore_patterns("*.md", "*.py", "*.ipynb", "__pycache__")
    shutil.copytree(ROOT / "docs", BUILD / "docs", ignore=pictures)
    for uri, text in pages().items():
        path = BUILD / "docs" / uri
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (BUILD / "mkdocs.yml").write_text(configuration())
    build = [sys.executable, "-m", "zensical", "build", "--strict", "--clean"]
    code = subprocess.run([*build, "-f", BUILD / "mkdocs.yml"], check=False).returncode
    if code == 0:
        shutil.rmtree(SITE, ignore_errors=True)
        shutil.move(BUILD / "site", SITE)
        if LIVE.is_dir():  # its files are not pages, not even the student's card
            shutil.copytree(LIVE, SITE / LIVE.name)
    return code


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
        sys.exit(f"docs: broken links, no such file: {', '.join(wrong)}")
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
        f"::: cdl.device.classifier.Classifier{options}",
        f"::: cdl.device.student.DeviceStudent{options}",
    ]
    return "\n\n".join(["\n".join(lines[:2]), *public, "## Rooms", "\n".join(lines[2:])]) + "\n"


if __name__ == "__main__":
    sys.exit(main())
