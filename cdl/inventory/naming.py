"""Find runs and cells by the names that a user may mean, and folders with results nearby."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from cdl.layout import RESULTS, ResultsFolder, RunFiles, runs_below
from cdl.runtime.errors import CdlError

SHOWN = 6  # runs that a message lists
USUAL = "default"  # preferred study for a name without one that matches cells of several studies


@dataclass(frozen=True)
class Cell:
    """Finished runs of one learner.

    Attributes:
        folder: `NAME/DATASET/METHOD/LEARNER`, below the folder of results.
        runs: files of each run, by seed.
        names: names in the identity columns of the tables, column by column; empty without a
            table.
        protocol: hash of the protocol in the tables.
    """

    folder: str
    runs: Mapping[int, RunFiles]
    names: tuple[frozenset[str], ...] = ()
    protocol: str = ""

    @property
    def parts(self) -> tuple[str, ...]:
        """Parts of the folder."""
        return Path(self.folder).parts


def matching(name: str, cells: Sequence[Cell], results: Path) -> list[Cell]:
    """Return the cells that a name matches, reduced to one run each if the name has a seed.

    Args:
        name: folder of a cell or of a run (`.../seed0`), with or without the folder of its study
            and parent folders; or names from the columns of the tables, in their order and
            separated by `/` or `|`, such as `cifar20/coda_prompt/kd`; or the beginnings of parts of
            the folder, in their order. A number at its end is a seed, unless it is a name.
        cells: cells with finished runs.
        results: folder of the results.

    Raises:
        CdlError: the only cell that matches has no run with this seed.
    """
    words = [word.strip() for word in below(name, results).replace("|", "/").split("/")]
    words = [word for word in words if word.strip(".")]
    seed = next((word for word in words if _is_seed(word)), None)
    if seed is not None:
        return _of_seed(name, int(seed.removeprefix("seed")), words[: words.index(seed)], cells)
    matched = _matching(words, cells)
    if not matched and len(words) > 1 and words[-1].isdecimal():
        return _of_seed(name, int(words[-1]), words[:-1], cells)
    return matched


def _of_seed(name: str, seed: int, words: Sequence[str], cells: Sequence[Cell]) -> list[Cell]:
    matched = _matching(words, cells) if words else cells
    if len(matched) == 1 and seed not in matched[0].runs:
        raise CdlError(
            f"{name!r}: seed {seed} is not finished; expected one of {seed_list(matched[0].runs)}"
        )
    return [replace(cell, runs={seed: cell.runs[seed]}) for cell in matched if seed in cell.runs]


def _matching(words: Sequence[str], cells: Sequence[Cell]) -> list[Cell]:
    """Return the cells whose folder, else names in tables, else parts of the folder words match."""
    if not words:
        return []
    matched = [cell for cell in cells if tuple(words) in (cell.parts, cell.parts[1:])]
    matched = matched or [
        cell for cell in cells if _in_order(words, cell.names, frozenset.__contains__)
    ]
    matched = matched or _beginning(words, cells)
    usual = [cell for cell in matched if cell.parts[0] == USUAL]
    return usual if len(usual) == 1 else matched


def _beginning(words: Sequence[str], cells: Sequence[Cell]) -> list[Cell]:
    """Return the cells that words abbreviate; `kd` means kd-... rather than kd_prompt-..."""
    matched = [cell for cell in cells if _in_order(words, cell.parts, str.startswith)]
    whole = [
        sum(any(f"{part}-".startswith(f"{word}-") for part in cell.parts) for word in words)
        for cell in matched
    ]
    return [cell for cell, n in zip(matched, whole, strict=True) if n == max(whole)]


def _in_order(words: Iterable[str], parts: Iterable[Any], fits: Callable[[Any, str], bool]) -> bool:
    """Return whether every word fits a part, in the order of the parts."""
    rest = iter(parts)
    return all(any(fits(part, word) for part in rest) for word in words)


def _is_seed(word: str) -> bool:
    return word.startswith("seed") and word.removeprefix("seed").isdecimal()


def below(name: str, results: Path) -> str:
    """Return a name without the folder of results in front, if it is a path."""
    path = Path(name)
    if path.is_absolute() or path.exists():
        with suppress(ValueError):
            return str(path.resolve().relative_to(results.resolve()))
    return name.removeprefix("./").removeprefix(f"{RESULTS}/")


def seed_list(runs: Mapping[int, Any]) -> str:
    """Return the seeds of runs as text."""
    return ", ".join(map(str, sorted(runs)))


def find_cell(name: str, cells: Sequence[Cell], results: Path) -> Cell:
    """Return the cell that a name matches, reduced to one run if the name has a seed.

    Raises:
        CdlError: the name does not match exactly one cell with this seed.
    """
    matched = matching(name, cells, results)
    if len(matched) != 1:
        known = [cell.folder for cell in matched or cells]
        some = get_close_matches(name, known, cutoff=0) if not matched else known[:4]
        why = f"matches {len(matched)} cells" if matched else "matches no cell with finished runs"
        raise CdlError(f"{name!r} {why}; expected one such as {', '.join(some)}")
    return matched[0]


def find_run(name: str) -> Path:
    """Return the folder of a finished run.

    Args:
        name: folder of a run, or a folder with one run below it; or what `matching` takes of a run
            in ./results but for the names in tables, such as `digits/kd/seed0`.

    Raises:
        CdlError: no run or several runs are meant.
    """
    path = Path(name)
    if Path(RunFiles(name).results).is_file():
        return path
    if path.is_dir():
        inside = runs_below(path)
        return _only(inside, f"{name}: is not a finished run, but contains") if inside else path
    results = ResultsFolder(Path(RESULTS))
    cells = [Cell(folder, runs) for folder, runs in results.finished().items()]
    if not cells:
        raise CdlError(f"{name}: is not a finished run; {nothing_here()}")
    meant = _folders(matching(name, cells, results.path))
    if not meant:
        known = list(map(str, _folders(cells)))
        some = ", ".join(known[:SHOWN])
        near = did_you_mean(name, known)
        raise CdlError(f"{name}: is not a finished run{near}; expected one of {some}")
    return _only(meant, f"{name}: is not unique; it can mean")


def _folders(cells: Iterable[Cell]) -> list[Path]:
    return [Path(run.folder) for cell in cells for run in cell.runs.values()]


def _only(runs: list[Path], problem: str) -> Path:
    """Return the only run, or raise `CdlError` with the names of the first ones."""
    if len(runs) == 1:
        return runs[0]
    more = f" and {len(runs) - SHOWN} more" if len(runs) > SHOWN else ""
    raise CdlError(f"{problem} {', '.join(map(str, runs[:SHOWN]))}{more}")


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
    places = results_nearby(name)
    where = f"; they are in {places[0]}" if places else "; run `cdl run CONFIG` first"
    return f"{Path.cwd()} contains {what}{where}"
