"""What `import cdl` offers: runs, tables and comparisons, each as its command has them."""

import math
import os
import pydoc
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import runs

import cdl
from cdl.cli.progress import Lines, run_snakemake
from cdl.cli.run import Ended
from cdl.study.configuration import read
from cdl.study.layers import merged, words_of

DIGITS, TINY = map(str, runs.CONFIGS)
KD = "results/tiny/digits/coda_prompt/kd-vit_nano-from-vit_micro-q-vit_nano/seed0"
HEAVY = {"torch", "numpy", "pandas", "snakemake", "PIL", "yaml", "typer", "rich", "requests"}


def test_importing_cdl_imports_nothing_heavy_and_its_help_is_a_page():
    code = f"import sys, cdl; assert not {HEAVY!r} & set(sys.modules), sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[1])
    page = pydoc.plain(pydoc.render_doc(cdl))
    assert "CLASSES" not in page and len(page.splitlines()) < 250
    for name in cdl.__all__:
        text = getattr(cdl, name).__doc__
        assert f"    {name}(" in page and "Args:" in text and "Raises:" in text, name


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        ({"training.epochs": 5}, {"training": {"epochs": 5}}),
        ({"training": {"lr": 1e-05}}, {"training": {"lr": 1e-05}}),
        ({"grid.seeds": range(3)}, {"grid": {"seeds": [0, 1, 2]}}),
        ({"grid.seeds": np.arange(2)}, {"grid": {"seeds": [0, 1]}}),
        ({"x": (np.float32(0.5), None, True)}, {"x": [0.5, None, True]}),
        ({"x": Path("a") / "b"}, {"x": "a/b"}),
        ({"x": {"yes": "no", "010": "1e3", "": "a: {b}\n'\"# \u2028\x85\U0001f600"}},) * 2,
        ({"x": "y" * 5000}, {"x": "y" * 5000}),
    ],
)
def test_values_of_python_are_those_of_the_configuration(layer, expected):
    (word,) = words_of(layer)
    assert word.isprintable() and merged([word]) == expected


CIRCLE = []
CIRCLE.append(CIRCLE)


@pytest.mark.parametrize(
    ("given", "options", "sentence"),
    [
        ([5], {}, "5: is of type int; expected a path as text"),
        ([None], {}, "None: is of type NoneType; expected a path"),
        ([b"study.yaml"], {}, "is of type bytes; expected a path"),
        ([""], {}, "expected a path as text"),
        (["a\0b"], {}, "expected a path as text"),
        (["training.epochs=5"], {}, "training.epochs=5: is a value; expected a YAML file"),
        (["no.yaml"], {}, "no such file"),
        (["--unlock"], {}, "no such file"),
        (["."], {}, "cannot be read"),
        ([{}], {}, "name"),
        ([{"name": "../x"}], {}, "name"),
        ([DIGITS, "name='a\n b'"], {}, "contains a character that cannot be printed"),
        ([DIGITS, "training.epochs=[1"], {}, "training.epochs: cannot be read as plain YAML"),
        ([DIGITS, {"training.epochs\n": 5}], {}, "is not a field; expected one such as"),
        ([DIGITS, {"training..epochs": 5}], {}, "is not a field"),
        ([DIGITS, {5: 5}], {}, "5: is not a field"),
        ([DIGITS, {"../name=x": 5}], {}, "is not a field"),
        ([DIGITS], {"cores": 0}, "cores: invalid value 0; expected a whole number above 0"),
        ([DIGITS], {"cores": "2; rm -rf /"}, "cores: invalid value '2; rm"),
        ([DIGITS], {"cores": True}, "cores: invalid value True"),
        ([DIGITS], {"training__epochs": 0}, "training.epochs: "),
        ([DIGITS], {"training__epochs": "many"}, "training.epochs: 'many' is not of type"),
        ([DIGITS], {"training__epochs": math.nan}, "training.epochs: "),
        ([DIGITS], {"training__epochs": {1, 2}}, "training.epochs: .* is of type set; expected"),
        ([DIGITS], {"training__epochs": object}, "training.epochs: .* is of type type; expected"),
        ([DIGITS], {"training__epochs": CIRCLE}, "training.epochs: contains itself"),
        ([DIGITS], {"name": "\ud800"}, "name: "),
        ([DIGITS], {"name": "x; rm -rf /"}, "name: "),
        ([DIGITS], {"nmae": "x"}, "unknown key 'nmae' .did you mean 'name'"),
    ],
)
@pytest.mark.parametrize("function", [cdl.run, cdl.status, cdl.results])
def test_what_is_no_configuration_is_refused_in_a_sentence(
    function, given, options, sentence, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    if function is cdl.results and ("cores" in options or given == ["."]):
        pytest.skip("it has no cores, and takes folders")
    with pytest.raises(cdl.CdlError, match=sentence) as caught:
        function(*given, **options)
    assert str(caught.value).replace("\n", "").isprintable() and len(str(caught.value)) < 500
    assert not list(tmp_path.iterdir()), "nothing starts"


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: cdl.load(None), "is of type NoneType; expected a path"),
        (lambda: cdl.compare(1, 2), "1: is of type int; expected a path"),
        (lambda: cdl.export("x", "y", format="pickle"), "format: invalid value 'pickle'; expected"),
        (lambda: cdl.export("x", "y", int8=8), "int8: invalid value 8; expected one of dynamic"),
        (lambda: cdl.results("."), "contains no run that is in a table"),
        (lambda: cdl.results(".", name="x"), "is a folder, which no value changes"),
    ],
)
def test_other_wrong_arguments_are_refused_in_a_sentence(call, sentence, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(cdl.CdlError, match=sentence):
        call()


def test_tables_follow_their_rows_and_are_those_of_the_files(finished, monkeypatch):
    monkeypatch.chdir(finished)
    table = cdl.results(DIGITS, TINY)
    written = pd.read_csv("results/tiny/tables/results.csv", keep_default_na=False)
    assert table["run"].tolist() == written["run"].tolist()
    accuracies = written["final_average_accuracy"].astype(float)
    np.testing.assert_allclose(table["final_average_accuracy"], accuracies, atol=1e-6)
    curves = pd.read_csv("results/tiny/tables/curves.csv")
    np.testing.assert_allclose(table.curves["accuracy"], curves["accuracy"], atol=1e-6)
    assert table.curves["stage"].tolist() == curves["stage"].tolist()
    one = table[table["run"] == KD].sort_values("seed")
    assert one.matrix["run"].unique().tolist() == [KD] and len(one.curves) == 2
    after = one.matrix[(one.matrix["stage"] == 1)]["accuracy"].mean()
    assert after == pytest.approx(one["final_average_accuracy"].iloc[0])
    with pytest.raises(cdl.CdlError, match="the column run is missing"):
        _ = table.drop(columns="run").curves
    monkeypatch.chdir(finished.parent)
    for folder in ("results", "results/tiny", "results/tiny/digits/coda_prompt"):
        below = cdl.results(f"{finished.name}/{folder}")
        assert len(below.curves) == 2 * len(below) and below["run"].is_unique
        assert set(below["run"]) <= {f"{finished.name}/{run}" for run in table["run"]}
    assert len(cdl.results(finished / KD)) == 1
    found = cdl.compare(
        KD.removeprefix("results/"), "digits/coda_prompt/none", finished / "results"
    )
    assert repr(found) == found.text()


def test_two_threads_run_one_after_the_other_and_find_the_same(copied, monkeypatch, capsys):
    monkeypatch.chdir(copied)
    found, given = [], (read(DIGITS), TINY)

    def run():
        found.append(cdl.run(*given, cores=1))

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    pd.testing.assert_frame_equal(*found)
    assert len(found[0]) == len(cdl.results(*given)) and Path.cwd() == copied
    said = capsys.readouterr()
    assert said.err.count("Nothing to be done") == 2 and "Traceback" not in said.err
    assert cdl.status(*given).cells["missing"] == 0


def test_a_run_that_stops_says_why(monkeypatch, capsys):
    ended = Ended(1, False, "cdl: stopped because a job failed; ...")
    monkeypatch.setattr("cdl.cli.run.start", lambda *_: ended)
    with pytest.raises(cdl.CdlError, match="^stopped because a job failed"):
        cdl.run(DIGITS)
    ended = Ended(1, False, "")
    with pytest.raises(cdl.CdlError, match="stopped with exit code 1; the lines above say why"):
        cdl.run(DIGITS)
    ended = Ended(130, True, "interrupted; the results of finished jobs are kept")
    with pytest.raises(KeyboardInterrupt):
        cdl.run(DIGITS)
    assert capsys.readouterr().err.startswith("interrupted; the results")


@pytest.mark.parametrize("in_main", [True, False])
def test_ctrl_c_reaches_the_run_once_and_its_lines_are_forwarded(in_main):
    child = "import signal, sys, time\nn = []\nsignal.signal(2, lambda *_: n.append(1))\n"
    child += "print('ready', flush=True)\nwhile not n: time.sleep(0.01)\nprint(len(n))\nsys.exit(7)"
    lines, ended = [], []

    def forward(line):
        lines.append(line)
        if line == "ready":
            os.kill(os.getpid() if in_main else int(lines[0]), signal.SIGINT)

    def run():
        command = f"import os\nprint(os.getpid(), flush=True)\n{child}"
        ended.append(run_snakemake([sys.executable, "-c", command], forward=forward))

    before = signal.getsignal(signal.SIGINT)
    if in_main:
        run()
    else:  # only the main thread can handle signals
        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
    assert ended == [(7, in_main)] and lines[1:] == ["ready", "1"]
    assert signal.getsignal(signal.SIGINT) is before


def test_progress_is_one_line_in_a_notebook(monkeypatch, capsys):
    plain, there = Lines(), type(sys.stderr)
    monkeypatch.setattr(there, "__module__", "ipykernel.iostream")
    notebook = Lines()
    for lines in (plain, notebook):
        for line in ("1/4 jobs; running: train teacher", "2/4 jobs", "failed: train"):
            lines(line)
    said = capsys.readouterr().err
    assert said.startswith("1/4 jobs; running: train teacher\n2/4 jobs\nfailed: train\n\r[#####...")
    first, second, _ = said.split("\r", 1)[1].replace("\r", "\n").splitlines()
    assert len(second) >= len(first) and second.startswith("[##########..........] 2/4 jobs")
    assert said.endswith("\nfailed: train\n")
