"""Find a finished run by its folder or an abbreviation, and folders with results nearby."""

from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path

from cdl.layout import RESULTS, ResultsFolder, RunFiles, runs_below
from cdl.runtime.errors import CdlError

SHOWN = 6  # runs that a message lists


def find_run(name: str) -> Path:
    """Return the folder of a finished run.

    Args:
        name: folder of a run, or a folder with one run below it; or the beginnings of parts of the
            folder of a run in ./results, in order and separated by `/`, such as `digits/kd/seed0`.

    Raises:
        CdlError: no run or several runs are meant.
    """
    path = Path(name)
    if _is_run(path):
        return path
    if path.is_dir():
        found = runs_below(path)
        return _only(found, f"{name}: is not a finished run, but contains") if found else path
    runs = [Path(run.folder) for run in ResultsFolder(Path(RESULTS)).runs()]
    words = [word for word in name.removeprefix(f"{RESULTS}/").split("/") if word]
    found = [run for run in runs if words and _matches(words, run.parts[1:])]
    whole = [f"{word}-" for word in words]  # `kd` means kd-... rather than kd_prompt-...
    exact = [run for run in found if any(part.startswith(tuple(whole)) for part in run.parts[1:])]
    found = exact or found
    if not found and not runs:
        raise CdlError(f"{name}: is not a finished run; {nothing_here()}")
    if not found:
        some = ", ".join(map(str, runs[:SHOWN]))
        near = did_you_mean(name, map(str, runs))
        raise CdlError(f"{name}: is not a finished run{near}; expected one of {some}")
    return _only(found, f"{name}: is not unique; it can mean")


def did_you_mean(name: str, folders: Iterable[str]) -> str:
    """Return the question whether a similar name is meant; empty if there is none.

    Args:
        name: parts of a run's folder, or their beginnings, separated by `/`.
        folders: folders of runs that can be named.
    """
    parts = {part for folder in folders for part in folder.split("/")}
    known = sorted(parts | {part.partition("-")[0] for part in parts})
    words = name.split("/")
    similar = [
        word
        if any(part.startswith(word) for part in known)
        else next(iter(get_close_matches(word, known, 1)), word)
        for word in words
    ]
    return f" (did you mean {'/'.join(similar)!r}?)" if similar != words else ""


def results_nearby(name: str = "") -> list[Path]:
    """Return folders above or two levels below the current one with results, without itself.

    Args:
        name: name of a configuration; empty for any results.
    """
    here = Path.cwd()
    below = [file.parent for pattern in ("*", "*/*") for file in here.glob(f"{pattern}/{RESULTS}")]
    places = [*here.parents, *sorted(below)]
    pattern = name or "*/tables"
    return [place for place in places if any((place / RESULTS).glob(pattern))]


def elsewhere() -> str:
    """Return the end of a sentence: which other folder has results; empty if none has."""
    return "".join(f"; results are in {place}" for place in results_nearby()[:1])


def nothing_here(name: str = "") -> str:
    """Return a sentence that the current folder has no results, and which folder has."""
    what = f"no results of {name!r}" if name else "no results"
    found = results_nearby(name)
    where = f"; they are in {found[0]}" if found else "; run `cdl run CONFIG` first"
    return f"{Path.cwd()} contains {what}{where}"


def _is_run(path: Path) -> bool:
    return Path(RunFiles(str(path)).results).is_file()


def _only(found: list[Path], problem: str) -> Path:
    """Return the only run, or raise `CdlError` with the names of the first ones."""
    if len(found) == 1:
        return found[0]
    more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    raise CdlError(f"{problem} {', '.join(map(str, found[:SHOWN]))}{more}")


def _matches(words: list[str], parts: tuple[str, ...]) -> bool:
    """Return whether words begin parts of a folder, in the same order."""
    rest = iter(parts)
    return all(any(part.startswith(word) for part in rest) for word in words)
