"""Keep the first table of the results, `docs/studies/data/default.csv`, of a default run.

    python -m tools.default_run [FOLDER OF TABLES]

Accuracy and forgetting are means over the seeds of `results.csv`, differences are those of
`contrasts.csv`, with Holm's correction over the differences of this table.
"""

import argparse
import sys
from pathlib import Path

import pandas as pd

from cdl.layout import Layout, TableFiles
from cdl.reporting.crossed import holm
from cdl.reporting.names import cell_name
from cdl.reporting.tables import read
from cdl.runtime.errors import CdlError
from tools import pages

NONE = "coda_prompt/student+learnt"
SHOWN = {  # cells by the names of their rows
    "nothing trained: class means": "simple_cil/student",
    "nothing trained: a ridge": "ranpac/student",
    "`none`: no teacher": NONE,
    "`kd`, as in the papers: classes of the task": "coda_prompt/kd+learnt",
    "`kd_prompt`: KD prompts": "coda_prompt/kd_prompt+learnt",
    "`cdl_prompt`: mapped prompts": "coda_prompt/cdl_prompt+learnt",
    "`kd` over all classes seen": "coda_prompt/kd+seen",
    "`none`, heads aligned": "coda_prompt/student",
    "`none`, heads from class means": "coda_prompt/student+means",
    "the teacher, heads aligned": "coda_prompt/teacher",
}


def over_none(contrasts: pd.DataFrame) -> pd.DataFrame:
    """Return the difference of each shown cell from `none`, `p` with Holm's correction."""
    ends = ["low", "high", "low_by_class", "high_by_class"]
    turned = contrasts.rename(columns={"first": "second", "second": "first"})
    turned[["difference", *ends]] = -turned[["difference", "high", "low", *ends[:1:-1]]].to_numpy()
    both = pd.concat([contrasts, turned])
    both.index = pd.Index(both["first"].map(cell_name))
    shown = [name for name in SHOWN.values() if name != NONE]
    found = both[both["second"].map(cell_name) == NONE].loc[shown]
    return found.assign(p=holm(list(found["p"])))


def cells(tables: TableFiles) -> list[dict[str, str]]:
    """Return the cells of the table.

    Raises:
        CdlError: a table was changed, or a cell is missing.
    """
    runs = read(tables.results, tables.protocols)
    names = runs["run"].map(lambda run: cell_name(str(Path(run).parent)))
    means = runs.groupby(names)[["final_average_accuracy", "forgetting_max"]].mean()
    try:
        gains = over_none(read(tables.contrasts, tables.record("summary")))
        means = means.loc[list(SHOWN.values())]
    except KeyError as error:
        raise CdlError(f"{tables.folder}: not the tables of the default run, {error}") from error
    found = []
    for label, name in SHOWN.items():
        accuracy, forgetting = (f"{value:.1f}" for value in means.loc[name])
        gain = {name: {"note": "-"} for name in ("points above `none`", "p (Holm)", "over classes")}
        if name != NONE:
            row = gains.loc[name]
            point, *ends = (f"{row[end]:.1f}" for end in ("difference", "low", "high"))
            over = [f"{row[end]:.1f}" for end in ("low_by_class", "high_by_class")]
            p = "< 0.001" if row["p"] < 0.001 else f"{row['p']:.{3 if row['p'] < 0.1 else 2}f}"
            gain = {
                "points above `none`": {"value": point, "low": ends[0], "high": ends[1]},
                "p (Holm)": {"note": p},
                "over classes": {"low": over[0], "high": over[1]},
            }
        shown = {"accuracy, %": {"value": accuracy}, **gain}
        shown |= {"forgetting": {"value": forgetting}, "cell": {"note": f"`{name}`"}}
        found += [{"student": label, "column": column, **entry} for column, entry in shown.items()]
    return found


def main() -> None:
    """Write the table, and say where it comes from."""
    parser = argparse.ArgumentParser(description="Keep the table of the default run.")
    parser.add_argument("tables", nargs="?", default=Layout("default").report.tables.folder)
    tables = TableFiles(parser.parse_args().tables)
    try:
        found = cells(tables)
        origin = pages.origin("config/default.yaml", [Path(tables.cost)])
        pages.write(pages.DATA / "default.csv", origin, found)
    except CdlError as error:
        sys.exit(f"default run: {error}")


if __name__ == "__main__":
    main()
