"""What was left out or doubled in the data stands on the page."""

import json
import re

import pandas as pd
import pytest
from study import write_study_page

from cdl.reporting.overview import _labels


def test_the_page_says_what_was_left_out_and_what_is_doubled(tmp_path):
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
        "left out as no images: 3 .txt, 1 hidden; "
        "images with copies in the other split: 2; images with copies with another label: 4"
    )
    assert "content.remarks" in text


@pytest.mark.parametrize(
    ("level", "teacher", "text"),
    [
        ("all", "all", ""),
        ("10", "10", "10 labels a class"),
        ("10", "all", "10 labels a class; the teacher saw all"),
        ("5%", "all", "5% labels; the teacher saw all"),
    ],
)
def test_the_page_says_how_few_labels_students_and_their_teachers_saw(level, teacher, text):
    columns = ["role", "teacher", "labels", "teacher_labels"]
    rows = [
        ("teacher", "", teacher, ""),
        ("student", "", level, ""),
        ("student", "big", level, teacher),
    ]
    assert _labels(pd.DataFrame(rows, columns=columns)) == text
