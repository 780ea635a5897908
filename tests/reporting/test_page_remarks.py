"""Remarks on the page: skipped files, duplicate images, few labels."""

import re

import pandas as pd
import pytest
from study import write_study_page

from cdl.reporting.names import dataset_names
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
    remarks = dict(re.findall(r'<li><a href="(\w+)/manifest.json">\w+</a> (.*?)</li>', text))
    assert remarks["clean"] == ""
    assert remarks["digits"] == (
        "skipped, not images: 3 .txt, 1 hidden; "
        "examples with copies in the other split: 2; examples with copies with another label: 4"
    )


@pytest.mark.parametrize(
    ("level", "teacher", "text"),
    [
        ("all", "all", ""),
        ("10", "10", "with 10 labels per class"),
        ("10", "all", "with 10 labels per class, the teacher saw all labels"),
        ("5%", "all", "with 5% of the labels, the teacher saw all labels"),
    ],
)
def test_the_page_reports_the_label_levels_of_students_and_teachers(level, teacher, text):
    columns = ["dataset", "role", "teacher", "labels", "teacher_labels"]
    rows = [
        ("digits+few", "teacher", "", teacher, ""),
        ("digits+few", "student", "", level, ""),
        ("digits+few", "student", "big", level, teacher),
    ]
    table = pd.DataFrame(rows, columns=columns)
    name = dataset_names(table)["digits+few"].removeprefix("digits ")
    found = ", ".join(filter(None, [name, _labels(table)]))
    assert found == (text or "(few)")


def test_a_dataset_has_its_own_name_and_variants_differ():
    columns = ["dataset", "role", "labels"]
    rows = [
        *[("photos", "teacher", "all"), ("photos", "student", "all")],
        *[("photos+l10", "student", "10"), ("photos+l10", "student", "10")],
        *[("photos+other", "student", "10"), ("photos+small", "student", "all")],
    ]
    assert dataset_names(pd.DataFrame(rows, columns=columns)) == {
        "photos": "photos",
        "photos+l10": "photos with 10 labels per class",
        "photos+other": "photos with 10 labels per class (other)",
        "photos+small": "photos (small)",
    }
