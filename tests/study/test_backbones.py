"""Planning with backbones of different families, sizes and patch sizes."""

import subprocess
import sys
from pathlib import Path

import pytest
from lab import make_grid

from cdl.study.configuration import ConfigError, read, resolve
from cdl.study.grid import Grid
from cdl.study.specifications import protocol, specification

ROOT = Path(__file__).parents[2]
DINO, SIGLIP = "vit_small_patch14_reg4_dinov2.lvd142m", "vit_base_patch16_siglip_224.webli"
PLAIN = "vit_tiny_patch16_224.augreg_in21k"


def pair(teacher, student, distillers=("none", "kd"), method="coda_prompt", view=224):
    teacher, student = (x if isinstance(x, dict) else {"timm": x} for x in (teacher, student))
    return make_grid(
        {
            "datasets": {"digits": {"view": {"size": view}}},
            "backbones": {"tutor": teacher, "pupil": student},
            "grid": {
                "pairs": [{"teacher": "tutor", "student": "pupil"}],
                "distillers": list(distillers),
                "methods": [method],
            },
        }
    )


@pytest.mark.parametrize("name", ["dinov3", "clip"])
def test_shipped_pairs_of_families_are_planned(name):
    grid = Grid(resolve(read(ROOT / "config" / "backbones" / f"{name}.yaml")))
    assert len(grid.runs) == 3 * 7
    assert {grid.shape(run.backbone).patch for run in grid.runs} == {16}


def test_planning_imports_no_torch():
    code = (
        "import sys\n"
        "from cdl.study.configuration import read, resolve\n"
        "from cdl.study.grid import Grid\n"
        f"Grid(resolve(read(r'{ROOT / 'config' / 'backbones' / 'dinov3.yaml'}')))\n"
        "assert not {'torch', 'timm'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_a_backbone_has_a_size_of_its_own():
    grid = pair({"timm": DINO, "size": 98}, PLAIN)
    tutor = next(run for run in grid.runs if run.role == "teacher")
    none = next(run for run in grid.runs if run.role == "student" and not run.teacher)
    kd = next(run for run in grid.runs if run.teacher)
    assert specification(grid, tutor).sizes == {"tutor": 98}
    assert specification(grid, kd).sizes == {"tutor": 98}
    assert specification(grid, none).sizes is None
    assert "sizes" not in protocol(grid, kd)  # neither the student nor its query is resized
    assert protocol(grid, tutor)["sizes"] == {"tutor": 98}
    spec = specification(grid, tutor)
    assert spec.queries("tutor").sizes == {"tutor": 98}
    assert spec.test_queries("tutor", None).sizes == {"tutor": 98}
    assert spec.queries("pupil").sizes is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ({"timm": DINO, "size": 100}, PLAIN),
            "backbones.tutor.size: invalid value 100; .* multiple of 14",
        ),
        ((DINO, PLAIN, ["fitnets"]), "fitnets: .* equally many patches, not 16 x 16 and 14 x 14"),
        (({"timm": DINO, "size": 196}, PLAIN, ["fitnets"]), None),
        (
            (SIGLIP, PLAIN, ["fitnets"]),
            "fitnets: .* two backbones with a class token, or two witho",
        ),
        (
            (SIGLIP, PLAIN, ["cls_feature"]),
            "cls_feature: .* two backbones with a class token, which",
        ),
        ((SIGLIP, PLAIN, ["kd", "kd_token", "kd_prompt", "cdl_prompt"]), None),
        ((DINO, PLAIN, ["kd"], "apt"), None),
        (
            (SIGLIP, PLAIN, ["kd"], "apt"),
            "methods.apt: invalid value 'tutor'; .* a backbone with a class token",
        ),
        (
            ("convnext_tiny.fb_in1k", PLAIN),
            "methods.coda_prompt: 'convnext_tiny' cannot be prompted: .* reads features only",
        ),
        (
            ({"timm": PLAIN, "model": "x"}, DINO),
            "tutor.model: only valid together with file; remove it",
        ),
    ],
)
def test_what_cannot_work_together_is_one_sentence(arguments, message):
    if message is None:
        pair(*arguments)
        return
    with pytest.raises(ConfigError, match=message):
        pair(*arguments)


def test_a_file_and_the_model_it_holds(tmp_path):
    file = tmp_path / "x.safetensors"
    header = b'{"__metadata__":{"embed_dim":"48","num_heads":"3","depth":"2"}}'
    file.write_bytes(len(header).to_bytes(8, "little") + header)
    given = {"file": str(file), "model": "vit_base_patch16_siglip_224"}
    shape = pair(given, PLAIN, method="head_only").shape("tutor")
    assert (shape.width, shape.depth, shape.patch, shape.class_token) == (48, 2, 16, False)
    message = "tutor.model: 'siglip' is not an architecture of timm; did you mean"
    with pytest.raises(ConfigError, match=message):
        pair(given | {"model": "siglip"}, PLAIN)
