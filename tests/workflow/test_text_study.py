"""The real workflow on texts, from a CSV file to the prediction of a sentence."""

import io
import json

import pytest
import yaml
from runs import snakemake
from text_lab import CLASSES, OTHERS, text_config, write_csv
from toy_text import save, save_classifier

import cdl
from cdl.cli import student as commands
from cdl.deployment.learn import learn
from cdl.runtime.errors import CdlError

RUN = "results/texts/tickets/l2p/kd-small-from-large-q-small/seed0"


def test_texts_are_learnt_and_a_sentence_is_classified(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_csv(tmp_path / "csv")
    save(tmp_path / "large", "mpnet", words=OTHERS, seed=1, num_hidden_layers=3)
    save(tmp_path / "small", "bert", pooling="cls")
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(text_config(tmp_path)))
    made = snakemake(tmp_path, "--cores", "1", files=[config])
    assert made.returncode == 0, made.stderr[-4000:]
    assert "Nothing to be done" in snakemake(tmp_path, "--cores", "1", files=[config]).stderr
    student = cdl.load(tmp_path / RUN)
    texts = ["book a table for", "cancel refund please"]
    found = student.predict(texts)
    assert len(found) == 2 and set(found) <= set(student.classes)
    assert student.predict(texts[1]) == found[1:] and student.predict([]) == []
    lines = io.BytesIO("\n".join([*texts, ""]).encode())
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(lines))
    capsys.readouterr()
    commands.predict(RUN, ["-"], 1, as_json=True)
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(r["text"], r["predictions"][0]["class"]) for r in rows] == list(
        zip(texts, found, strict=True)
    )
    with pytest.raises(CdlError, match="the text contains ' '; expected a text that is not blank"):
        student.predict(" ")
    with pytest.raises(CdlError, match="--teacher: is missing; this run was distilled from large"):
        learn(tmp_path / RUN, tmp_path / "csv", "new")


def test_texts_are_learnt_from_a_classifier(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_csv(tmp_path / "csv")
    save(tmp_path / "small", "bert", pooling="cls")
    given = save_classifier(tmp_path / "toy", CLASSES, "distilbert", OTHERS)
    pair = {"teacher": {"classifier": given}, "student": "small"}
    grid = {"methods": ["head_only"], "pairs": [pair], "distillers": ["none", "kd"]}
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(text_config(tmp_path, grid=grid)))
    made = snakemake(tmp_path, "--cores", "1", files=[config])
    assert made.returncode == 0, made.stderr[-4000:]
    run = next((tmp_path / "results/texts/tickets/head_only").glob("kd-*/seed0"))
    assert len(cdl.load(run).predict(["book a table for"])) == 1
