"""Every method and every distiller exports to an ONNX graph that predicts like torch."""

import numpy as np
import onnxruntime
import pytest
import torch
import toys
from toys import METHODS

from cdl.data.views import Views
from cdl.deployment.graph import ImageGraph, write_onnx
from cdl.deployment.model import Model
from cdl.distillers import DISTILLERS
from cdl.distillers.base import Distiller
from cdl.methods import PROMPTS
from cdl.study.configuration import schema

pytestmark = pytest.mark.slow  # each export takes seconds
SHAPES = ((1, 8, 8), (3, 21, 13), (2, 7, 30))
SHALLOW = {  # the time grows with the number of blocks; one is enough, or two that differ
    "l2p": {"layers": (0,)},
    "dual_prompt": {"g_layers": (0,), "e_layers": (1,)},
    "coda_prompt": {"layers": (0, 1)},
    "one_prompt": {"g_layers": (0,), "e_layers": (1,)},
    "vq_prompt": {"layers": (0,)},
    "ranpac": {"projection": 16},
    "fecam": {"tukey": 0.5},
    "aper": {"bottleneck": 3},
    "ssiat": {"bottleneck": 3},
}
TWO = ("dual_prompt", "coda_prompt", "one_prompt")  # methods above with prompts in two blocks
# distillers that change the prediction of the student; the others are not in the graph
IN_PREDICTION = ("kd_token", "kd_prompt", "cdl_prompt")
CROPPED = "head_only"
CASES = [  # a covering set: every method, every distiller in the prediction and every mapping once
    ("l2p", "kd_token", {}),
    ("dual_prompt", "cdl_prompt", {"mapping": "attention"}),
    ("coda_prompt", "kd_prompt", {}),
    ("apt", "kd_prompt", {}),
    ("one_prompt", "cdl_prompt", {"mapping": "self_attention"}),
    ("vq_prompt", "cdl_prompt", {"mapping": "linear"}),
    ("ranpac", "none", {}),
    ("fecam", "none", {}),
    ("aper", "none", {}),
    ("ssiat", "none", {}),
]
MERGED = ("lora", "inf_lora", "sd_lora")  # a plain ViT, see test_merged.py
ALIKE = {"adapter": "ssiat", "simple_cil": "aper", "ease": "aper"}  # the same parts in the graph


@pytest.fixture(autouse=True)
def shallow(monkeypatch):
    for name, options in SHALLOW.items():
        monkeypatch.setitem(toys.METHODS, name, METHODS.get(name, {}) | options)


def model_of(toy_backbone, method, distiller, **options):
    depth = 2 if method in TWO else 1
    large, small = toy_backbone(24, depth + 1, seed=1), toy_backbone(12, depth)
    teacher = toys.learner(large, method, query=small, seed=1)
    student = toys.learner(small, method, distiller, teacher=large, options=options)
    student.distiller.read_teacher(teacher.prompts.state_dict())
    student.end_task(0)
    torch.nn.init.normal_(
        getattr(student.head, "weight", torch.empty(1))
    )  # RanPAC's weights start at 0
    for parameter in student.prompts.parameters():
        if not parameter.any():  # adapters start at 0
            torch.nn.init.normal_(parameter, std=0.3)
    query = small if student.needs_query else None
    return Model(student, 0, 4, query, query)


def check(graph, path):
    write_onnx(graph, path)
    session = onnxruntime.InferenceSession(path)
    (images,), (logits, features) = session.get_inputs(), session.get_outputs()
    assert (images.name, images.type, images.shape[3]) == ("images", "tensor(uint8)", 3)
    assert (logits.name, logits.shape[1]) == ("logits", 4)
    rng = np.random.default_rng(0)
    for shape in SHAPES:
        pixels = rng.integers(0, 256, (*shape, 3), dtype=np.uint8)
        views = graph.views.test(
            torch.from_numpy(pixels).permute(0, 3, 1, 2), torch.tensor([shape[1:]] * shape[0])
        )
        expected, tokens = graph.model.outputs(views)
        found = session.run(None, {"images": pixels})
        np.testing.assert_allclose(found[0], expected, atol=2e-5)
        np.testing.assert_allclose(found[1], tokens, atol=2e-5)
        assert features.shape[1:] == [*tokens.shape[1:]]


@pytest.mark.parametrize(("method", "distiller", "options"), CASES)
def test_the_graph_predicts_like_torch(toy_backbone, tmp_path, method, distiller, options):
    model = model_of(toy_backbone, method, distiller, **options)
    check(ImageGraph(model, Views(8)), tmp_path / "model.onnx")


def test_the_cases_have_every_method_distiller_and_mapping():
    methods, distillers, options = zip(*CASES, strict=True)
    assert {*methods, CROPPED, *MERGED, *ALIKE} == set(PROMPTS)
    assert {*ALIKE.values()} <= {*methods}
    assert {*distillers} == {"none", *IN_PREDICTION}
    mapping = schema()["properties"]["distillers"]["properties"]["cdl_prompt"]["properties"][
        "mapping"
    ]
    assert {o["mapping"] for o in options if o} == set(mapping["enum"])


@pytest.mark.parametrize("name", sorted(set(DISTILLERS) - set(IN_PREDICTION)))
def test_other_distillers_do_not_change_the_prediction(name):
    kind = DISTILLERS[name].load()
    assert kind.inject is Distiller.inject and kind.predict is Distiller.predict


def test_a_central_crop_and_a_backbone_of_another_size_export(toy_backbone, tmp_path):
    model = model_of(toy_backbone, CROPPED, "none")
    check(ImageGraph(model, Views(12, test_resize=14)), tmp_path / "model.onnx")
