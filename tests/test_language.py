"""Count words that personify code and files, in the program, its workflow and its pages."""

import json
import re
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[1]
LIMIT = 60
WORDS = re.compile(
    r"\b(told|asked|beside|lies?|stands? for|nobody|whoever|needed is|cannot work)\b", re.IGNORECASE
)
SUFFIXES = {".py", ".smk", ".yaml", ".md", ".ipynb", ".js", ".html", ".css", ".rst", ""}


def files():
    """Return all texts of the program, the workflow, the configurations and the pages."""
    folders = (ROOT / name for name in ("cdl", "workflow", "docs", "config"))
    inside = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
    return pages + sorted(path for path in inside if path.suffix in SUFFIXES)


def text_of(path):
    """Return the text of a file; of a notebook its cells without their outputs."""
    text = path.read_text()
    if path.suffix != ".ipynb":
        return text
    return "\n".join("".join(cell["source"]) for cell in json.loads(text)["cells"])


def test_code_and_pages_describe_files_and_programs_in_plain_words():
    found = {
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}": len(words)
        for path in files()
        for number, line in enumerate(text_of(path).splitlines(), start=1)
        if (words := WORDS.findall(line))
    }
    places = "\n".join(found)
    assert sum(found.values()) <= LIMIT, f"more than {LIMIT} places; see CONTRIBUTING.md\n{places}"


def test_the_words_are_found_in_any_case_and_only_as_whole_words():
    text = "Nobody told it; a file lies here. It stands for that. Believe, besides, families."
    counts = Counter(word.lower() for word in WORDS.findall(text))
    assert counts == {"nobody": 1, "told": 1, "lies": 1, "stands for": 1}
