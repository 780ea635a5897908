"""Remarks on the page: skipped files, duplicate images, few labels."""

import json
import re

import pandas as pd
import pytest
from study import write_study_page

from cdl.reporting.overview import _labels


def test_the_page_reports_skipped_files_and_duplicates(tmp_path):
    manifests = {
        "digits": {
            "skipped": {".txt": 3, "hidden": 1},
            "equal_pixels_in_both_splits": 2,
            "equal_pixels_in_one_split": 0,
            "equal_pixels_under_two_labels": {"images": 4, "first": ["a", "b", "c", "d"]},
        },
        "clean": {"skipped": {}},
    }
    write_study_page(tmp_path, manifests=manifests, methods=["l2p"], seeds=[0])
    text = (tmp_path / "index.html").read_text()
    content = json.loads(re.search(r'id="content">(.*?)</script>', text, re.DOTALL)[1])
    assert content["remarks"]["clean"] == ""
    assert content["remarks"]["digits"] == (
        "skipped, not images: 3 .txt, 1 hidden; "
        "images with copies in the other split: 2; images with copies with another label: 4"
    )
    assert "content.remarks" in text


@pytest.mark.parametrize(
    ("level", "teacher", "text"),
    [
        ("all", "all", ""),
        ("10", "10", "10 labels per class"),
        ("10", "all", "10 labels per class; the teacher saw all"),
        ("5%", "all", "5% labels; the teacher saw all"),
    ],
)
def test_the_page_reports_the_label_levels_of_students_and_teachers(level, teacher, text):
    columns = ["role", "teacher", "labels", "teacher_labels"]
    rows = [
        ("teacher", "", teacher, ""),
        ("student", "", level, ""),
        ("student", "big", level, teacher),
    ]
    assert _labels(pd.DataFrame(rows, columns=columns)) == text
