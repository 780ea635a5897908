"""Students whose branches merge into plain weights: graphs, costs and files for timm."""

import json
import shutil
from collections import Counter

import numpy as np
import onnx
import pytest
import timm
import torch
import toys
from huggingface_hub import ModelCard
from lab import Lab, make_grid
from PIL import Image
from safetensors.torch import load_file

import cdl
from cdl.data.views import Views
from cdl.deployment.costs import costs
from cdl.deployment.export import export
from cdl.deployment.graph import ImageGraph
from cdl.deployment.merged import plain, timm_config, write_timm
from cdl.deployment.model import Model
from cdl.runtime.errors import CdlError

MERGED = ("lora", "inf_lora", "sd_lora")
SSF = {"projection": None, "first_session": "ssf"}


@pytest.fixture
def model(toy_backbone, monkeypatch):
    """A maker of models after two tasks, with random values in all trained tensors."""

    def make(method, options=None, distiller="none", depth=2):
        monkeypatch.setitem(toys.METHODS, method, options or toys.METHODS.get(method, {}))
        learner = toys.learner(toy_backbone(12, depth), method, distiller)
        source = torch.Generator().manual_seed(1)
        for task in (0, 1):
            if task:
                learner.start_task(task, 0, 0)
                learner.prompts.before_training(task, toys.reading(learner))
            for name, tensor in learner.state().items():
                if tensor.is_floating_point() and "projector" not in name:
                    tensor += 0.3 * torch.randn(tensor.shape, generator=source)
        return Model(learner, 1, 4)

    return make


def close(one, two, images):
    with torch.no_grad():
        a, b = one(images), two(images)
    assert a.abs().max() > 0.1
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("method", [*MERGED, "ranpac"])
def test_a_merged_student_predicts_the_same_with_plain_weights(model, method):
    own = model(method, SSF if method == "ranpac" else None)
    merged = plain(own)
    assert merged is not own
    assert not merged.learner.prompts(None, 1).inside
    close(own, merged, toys.batch(6)[0])
    different = {
        name
        for name, tensor in own.learner.backbone.state_dict().items()
        if not torch.equal(tensor, merged.learner.backbone.state_dict()[name])
    }
    sites = {name.rsplit(".", 1)[0] for name in different}
    parts = sites if method == "ranpac" else {"model.blocks.0.attn.qkv", "model.blocks.1.attn.qkv"}
    assert different and sites == parts
    assert len(sites) == (2 * 6 + 2 if method == "ranpac" else 2)


@pytest.mark.parametrize("method", ["adapter", "apt", "coda_prompt"])
def test_what_has_no_plain_weights_is_exported_as_it_is(model, method):
    own = model(method)
    assert plain(own) is own


def test_the_graph_of_a_merged_student_is_that_of_a_plain_vit(model):
    found = []
    for method in ("head_only", "sd_lora"):
        graph = ImageGraph(plain(model(method)), Views(8))
        images = torch.zeros(2, 8, 8, 3, dtype=torch.uint8)
        program = torch.export.export(graph, (images,))
        nodes = Counter(
            str(node.target) for node in program.graph.nodes if node.op != "placeholder"
        )
        found.append((nodes, sorted(map(tuple, (t.shape for t in program.state_dict.values())))))
    assert found[0] == found[1]


def test_a_merged_student_runs_each_block_once_and_reads_no_branch(model):
    unmerged = costs(model("sd_lora"), 8)
    merged, coda = costs(plain(model("sd_lora")), 8), costs(model("head_only"), 8)
    assert merged.block_passes == coda.block_passes == 2
    assert merged.gflops == coda.gflops < unmerged.gflops
    assert merged.parameters == coda.parameters and merged.parameters["prompts"] == 0


RECORD = {
    "timm_model": "vit_base_patch16_224",
    "architecture": {"patch_size": 4, "embed_dim": 12, "depth": 2, "num_heads": 3},
}


@pytest.mark.parametrize("method", [*MERGED, "ranpac", "head_only"])
def test_timm_loads_the_weights_without_this_package(model, tmp_path, method):
    own = model(method, SSF if method == "ranpac" else None)
    file = tmp_path / "model.safetensors"
    about = write_timm(plain(own), RECORD, file)
    made = timm.create_model(about["model"], checkpoint_path=str(file), **about["arguments"])
    mean, std = (torch.tensor(about[name]).view(3, 1, 1) for name in ("mean", "std"))
    images, _ = toys.batch(6)
    close(own, lambda x: made.eval()((x - mean) / std), images)
    assert load_file(file)["head.weight"].shape == (4, 12)


@pytest.mark.parametrize(
    ("method", "options", "distiller", "why"),
    [
        ("adapter", None, "none", "changes the forward pass"),
        ("coda_prompt", None, "none", "changes the forward pass"),
        ("sd_lora", None, "kd_token", "has a second head"),
        ("ranpac", {**SSF, "projection": 8}, "none", "PrototypeHead is not a linear map"),
    ],
)
def test_weights_for_timm_are_refused_with_the_reason(
    model, tmp_path, method, options, distiller, why
):
    own = model(method, options, distiller)
    with pytest.raises(CdlError, match=f"--format timm: .*{why}.*use --format onnx"):
        write_timm(plain(own), RECORD, tmp_path / "model.safetensors")
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def run(inputs, tmp_path_factory):
    """The folder of an evaluated run of SD-LoRA, in a folder of results."""
    root = tmp_path_factory.mktemp("results")
    one = {"grid": {"methods": ["sd_lora"], "distillers": ["none"], "bounds": []}}
    here = Lab(make_grid(one), inputs, root / "tiny")
    learner = here.student("none")
    here.learn_all(learner)
    here.evaluate(learner)
    (root / "data").mkdir()
    (root / "backbones").mkdir()
    (root / "data" / "digits-0").symlink_to(inputs / "data")
    for suffix in ("safetensors", "json"):
        file = root / "backbones" / f"vit_nano-0.{suffix}"
        shutil.copy(inputs / f"vit_nano.{suffix}", file)
    return here.folder / learner.folder


@pytest.mark.parametrize("form", [pytest.param("onnx", marks=pytest.mark.slow), "timm"])
def test_a_finished_run_is_exported_merged(run, tmp_path, form):
    answer = export(run, tmp_path / "student", timm=form == "timm")
    assert answer.parity.holds and answer.parity.unlike_torch == 0
    assert answer.parity.largest < 1e-4
    depth = cdl.load(run)._student.model.learner.backbone.depth
    assert answer.costs.block_passes == depth and answer.costs.parameters["prompts"] == 0
    names = {path.name for path in (tmp_path / "student").iterdir()}
    data = ModelCard.load(tmp_path / "student" / "card.md").data
    about = data.to_dict()
    assert (about["library_name"], about["license"]) == (form, "other") and form in about["tags"]
    assert data.license_name == "non-commercial-research"
    model = {"onnx": "model.onnx", "timm": "model.safetensors"}[form]
    others = {"classes.txt", "preprocessing.json", "card.md", "manifest.json"}
    assert names == {model, *others, "student.py" if form == "onnx" else "config.json"}
    if form == "onnx":  # six products per block, two of the test view, one of the head
        graph = onnx.load(tmp_path / "student" / "model.onnx").graph
        products = [node for node in graph.node if node.op_type in ("MatMul", "Gemm")]
        assert len(products) == 6 * depth + 3


def test_timm_loads_the_folder_alone_with_its_transform_and_labels(run, tmp_path, monkeypatch):
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.setenv(name, "1")
    export(run, tmp_path / "student", timm=True)
    student = cdl.load(run)._student
    made = timm.create_model(f"local-dir:{tmp_path / 'student'}", pretrained=True).eval()
    images = np.random.default_rng(0).integers(0, 256, (5, 11, 9, 3), dtype=np.uint8)
    config = timm.data.resolve_model_data_config(made)
    assert config["input_size"] == (3, student.views.size, student.views.size)
    mean, std = (torch.tensor(config[name]).view(3, 1, 1) for name in ("mean", "std"))
    views = student.preprocess(images)
    with torch.no_grad():
        expected, found = student.logits(views), made((views - mean) / std)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
        transform = timm.data.create_transform(**config)
        own = torch.stack([transform(Image.fromarray(image)) for image in images])
        assert own.shape == views.shape
        torch.testing.assert_close(own * std + mean, views, atol=0.02, rtol=0)
    assert made.pretrained_cfg["label_names"] == list(student.classes)
    about = json.loads((tmp_path / "student" / "config.json").read_text())
    assert (about["num_classes"], about["label_names"]) == (10, list(student.classes))
    hugging = pytest.importorskip("transformers").AutoConfig.from_pretrained(tmp_path / "student")
    assert hugging.id2label == dict(enumerate(student.classes))


@pytest.mark.parametrize(
    ("size", "short"), [(224, 256), (224, 248), (32, None), (16, 18), (224, 235), (384, 384)]
)
def test_the_crop_of_timm_is_the_resize_of_the_test_view(size, short):
    about = {
        "model": "vit_base_patch16_224",
        "arguments": {"img_size": size},
        "mean": [],
        "std": [],
    }
    found = timm_config(about, Views(size, test_resize=short), ["a"], "apache-2.0")[
        "pretrained_cfg"
    ]
    assert found["license"] == "apache-2.0" and found["first_conv"] == "patch_embed.proj"
    mean = {"mean": (0.5,) * 3, "std": (0.5,) * 3}
    crop = {name: found[name] for name in ("crop_pct", "crop_mode", "interpolation")}
    resize = timm.data.create_transform((3, size, size), **crop, **mean).transforms[0]
    assert resize.size == ((size, size) if short is None else short)


def test_a_file_for_timm_is_not_quantised(run, tmp_path):
    with pytest.raises(CdlError, match="--int8 dynamic: .*omit --int8 or --format timm"):
        export(run, tmp_path / "student", int8="dynamic", timm=True)
