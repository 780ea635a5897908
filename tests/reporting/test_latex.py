"""The summary as a table for a paper."""

import re
import shutil
import subprocess

import numpy as np
import pytest
from study import make_study, predictions

from cdl.reporting.latex import COLUMNS, DEFAULT, WIDEST, columns_of, escape, write_latex
from cdl.reporting.summary import summarise
from cdl.runtime.errors import CdlError


def table_of(folder, columns=DEFAULT, edit=lambda results: results, **size):
    """The table, and the results that it was made from."""
    results, *_ = make_study(folder, **size)
    results = edit(results)
    cells = summarise(results, predictions)
    write_latex(results, cells, folder / "t.tex", columns)
    return (folder / "t.tex").read_text(), results, cells


def rows_of(text):
    """The cells of all rows with numbers."""
    lines = [line.removesuffix(r" \\") for line in text.splitlines() if line.endswith(r"\\")]
    return [line.split(" & ") for line in lines if " & " in line]


def test_it_has_accuracy_forgetting_and_gain_with_its_interval(tmp_path):
    text, results, cells = table_of(tmp_path)
    rules = [r"\toprule", r"\midrule", r"\bottomrule", r"\begin{table*}", r"\end{table*}"]
    assert all(rule in text for rule in rules) and "longtable" not in text
    heads, *rows = rows_of(text)
    assert heads == ["", r"accuracy (\%)", "forgetting", "gain"]
    assert [row[0] for row in rows] == ["teacher", "none", "kd", "dkd (alpha=0.9)"] * 2
    assert {len(row) for row in rows} == {4}
    kd = results[(results["method"] == "l2p") & (results["distiller"] == "kd")]
    mean, deviation = kd["final_average_accuracy"].agg(["mean", "std"])
    assert rows[2][1] == rf"${mean:.2f} \pm {deviation:.2f}$"
    cell = cells[(cells["method"] == "l2p") & (cells["distiller"] == "kd")].iloc[0]
    ends = f"[{cell['gain_low']:+.2f}, {cell['gain_high']:+.2f}]"
    assert rows[2][3] == f"${cell['gain']:+.2f}$ ${ends}$"
    assert rows[0][3] == rows[1][3] == "--"
    blocks = re.findall(r"\\multicolumn\{4\}\{l\}\{\\textit\{(.*?)\}\}", text)
    assert blocks == ["l2p on digits, big to small", "apt on digits, big to small"]
    caption = re.search(r"\\caption{(.*)}", text)[1]
    assert "over 2 seeds" in caption and "95 \\% interval over seeds and test examples" in caption
    assert "Gain: in points over none" in caption


def test_columns_are_chosen_and_unfinished_runs_are_named(tmp_path):
    def unfinished(results):
        late = (results["method"] == "apt") & (results["distiller"] == "kd")
        numbers = results.select_dtypes("number").columns.drop(["seed", "n_tasks"])
        results.loc[late, numbers] = np.nan
        return results

    text, _, _ = table_of(tmp_path, columns_of("gap, seeds"), unfinished)
    heads, *rows = rows_of(text)
    assert heads == ["", "gap to teacher", "seeds"]
    assert rows[6] == ["kd", "not run", "not run"]
    assert rows[2][2] == "2" and rows[2][1].startswith("$")


def test_nothing_finished_is_a_table_without_numbers(tmp_path):
    def nothing(results):
        numbers = results.select_dtypes("number").columns.drop(["seed", "n_tasks"])
        return results.assign(**dict.fromkeys(numbers, np.nan))

    text, _, _ = table_of(tmp_path, edit=nothing, methods=["l2p"])
    assert {*rows_of(text)[1][1:]} == {"not run"}


@pytest.mark.parametrize("text", ["accuracy,speed", "gain,gain", ",".join(COLUMNS), ""])
def test_invalid_columns_are_refused(text):
    with pytest.raises(CdlError, match="--columns: invalid value .*; expected "):
        columns_of(text)


def test_special_characters_are_escaped():
    assert escape(r"a_b & 5% #1 {x} ~^\y") == (
        r"a\_b \& 5\% \#1 \{x\} \textasciitilde{}\textasciicircum{}\textbackslash{}y"
    )


@pytest.mark.parametrize("first", [[], ["gain", "closed"]], ids=["headings", "intervals"])
def test_it_compiles_and_fits_the_page(tmp_path, first):
    if shutil.which("pdflatex") is None:
        pytest.skip("pdflatex is not installed")
    rest = sorted({*COLUMNS} - {*first}, key=lambda name: -len(COLUMNS[name].heading))
    table, _, _ = table_of(tmp_path, [*first, *rest][:WIDEST])
    head = r"\documentclass[twocolumn]{article}\usepackage{booktabs}\begin{document}"
    (tmp_path / "paper.tex").write_text(f"{head}\n{table}\\end{{document}}\n")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Overfull" not in done.stdout
