"""Style of figures: learners can be told apart without colour and with colour blindness."""

import itertools

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb

from cdl.distillers import DISTILLERS
from cdl.reporting import style
from cdl.reporting.names import named
from cdl.runtime.facts import Look

# Machado, Oliveira and Fernandes (2009), full severity, on linear RGB
BLIND = {
    "protanopia": [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]],
    "deuteranopia": [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]],
    "nobody": np.eye(3),
}
LAB = np.array([[0.4122, 0.5363, 0.0514], [0.2119, 0.6807, 0.1074], [0.0883, 0.2817, 0.6300]])
OKLAB = [[0.2105, 0.7936, -0.0041], [1.9780, -2.4286, 0.4506], [0.0259, 0.7828, -0.8087]]
NAMES = ["teacher", *DISTILLERS]


def linear(colour):
    rgb = np.array(to_rgb(colour))
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def seen(colour, blindness):
    """OKLab of a colour as a reader sees it."""
    return OKLAB @ np.cbrt(LAB @ np.clip(BLIND[blindness] @ linear(colour), 0, 1))


def test_every_distiller_has_a_look_of_its_own_in_every_configuration():
    looks = [style.look(name) for name in NAMES]
    lacking = [name for name, facts in DISTILLERS.items() if not facts.look]
    assert not lacking, f"give the facts of {lacking} a `look`, such as the one of `kd`"
    assert len({one.colour for one in looks}) == len(looks)
    assert len({(one.marker, one.dash) for one in looks}) == len(looks)  # without colour
    assert style.look("kd (hot)").colour == style.look("kd").colour
    assert style.look("kd (hot)").marker != style.look("kd").marker
    assert style.look("of another package") == style.look("of another package")


def test_a_look_that_cannot_be_drawn_is_refused():
    for wrong in [("red", "o"), ("#5E6670", "oo"), ("#5E6670", "o", "dashed")]:
        with pytest.raises(ValueError, match="look.*: invalid value .*; expected"):
            Look(*wrong)


@pytest.mark.parametrize("colour", [style.look(name).colour for name in NAMES])
def test_lines_can_be_seen_on_white_and_letters_read(colour):
    weights = [0.2126, 0.7152, 0.0722]
    assert 1.05 / (weights @ linear(colour) + 0.05) >= 3
    assert 1.05 / (weights @ linear(style._darker(colour)) + 0.05) >= 4.5


@pytest.mark.parametrize("blindness", BLIND)
def test_learners_of_the_default_run_differ_with_colour_blindness(blindness):
    usual = ["teacher", "none", "kd", "kd_prompt", "cdl_prompt"]
    points = [seen(style.look(name).colour, blindness) for name in usual]
    distances = [np.linalg.norm(a - b) for a, b in itertools.combinations(points, 2)]
    assert min(distances) > 0.08  # about 0.02 is just noticeable


def test_names_at_the_ends_of_lines_do_not_overlap(tmp_path):
    with style.paper():
        figure, (axis,) = style.canvas(["l2p"], "x", "y", "digits, 3 tasks; n = 1 seed")
        ends = {"kd": (1, 0.50), "none": (1, 0.501), "teacher": (1, 0.499)}
        for name, (x, y) in ends.items():
            axis.plot([0, x], [0, y], **style.look(name).line)
        style.label_lines(axis, ends)
        files = [f"{tmp_path}/figure.{kind}" for kind in ("svg", "pdf", "png")]
        style.save(figure, files)
        figure.draw_without_rendering()
        boxes = [text.get_window_extent() for text in axis.texts]
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))
    svg, pdf = (open(file, "rb").read() for file in files[:2])
    assert b"<text" not in svg and b"font-family" not in svg  # letters are paths
    assert b"/FontFile2" in pdf and b"CreationDate" not in pdf


def test_long_titles_of_axes_do_not_overlap():
    titles = [f"method{i} (bottleneck=16, projection=2000, training.lr=0.0003)" for i in range(6)]
    with style.paper():
        figure, axes = style.canvas(titles, "x", "y", "a note")
        renderer = FigureCanvasAgg(figure).get_renderer()
        figure.draw(renderer)
        boxes = [axis.title.get_window_extent(renderer) for axis in axes]
    for i, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[i + 1 :])
        others = [axis for axis in axes if axis is not axes[i]]
        assert not any(box.overlaps(axis.bbox) for axis in others)


def test_rows_are_named_in_words_by_what_they_differ_in():
    rows = [
        ("teacher", "none", "", ""),
        ("student", "none", "learnt", "alignment=null"),
        ("student", "none", "", ""),
        ("student", "kd", "learnt", "alignment=null, alpha=0.9"),
        ("student", "kd", "seen_heads", 'alignment=null, alpha=0.9, soft_columns="seen"'),
        ("student", "kd", "hot", "alignment=null, alpha=0.9, ks=[1, 2], temperature=4.0"),
        ("student", "dkd", "a", "beta=2.0"),
        ("student", "dkd", "b", "beta=2.0"),
    ]
    rows = [("coda_prompt", *row) for row in rows] + [("ranpac", "student", "none", "", "")]
    columns = ["method", "role", "distiller", "variant", "distiller_options"]
    table = pd.DataFrame(rows, columns=columns)
    labels = named(table)["label"].tolist()
    assert labels == [
        *("teacher", "none, heads as learnt", "none, heads aligned", "kd", "kd, all classes seen"),
        *("kd, ks=[1, 2], temperature=4.0", "dkd (a)", "dkd (b)", "none"),
    ]
    assert {style.look(name).colour for name in labels[3:6]} == {style.look("kd").colour}
