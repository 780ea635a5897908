"""All golden cases in a folder (CDL_VECTORS, or all copies here), one line per case."""

import json
import math
import os
from pathlib import Path

import pytest
import torch
from adapter import run_case
from safetensors.torch import load_file

HERE = Path(__file__).parent
OTHER = os.environ.get("CDL_VECTORS")
FOLDERS = [Path(OTHER)] if OTHER else [HERE / name for name in ("vectors", "vectors2", "vectors3")]
CASES = {
    path.stem: path
    for folder in FOLDERS
    for path in sorted(folder.glob("*.json"))
    if "kind" in json.loads(path.read_text())
}


def flatten(value, path=""):
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    else:
        return {path: value}
    flat = {}
    for key, inner in items:
        flat |= flatten(inner, f"{path}.{key}" if path else str(key))
    return flat


def read_case(name):
    path = CASES[name]
    case = json.loads(path.read_text())
    tensors = load_file(path.with_suffix(".safetensors"))
    for shared in case["shared_files"]:
        tensors |= load_file(path.parent / shared)
    return case, tensors


def worst(found, expected, rtol, atol):
    """Return the largest error, relative to its tolerance."""
    expected = math.nan if expected is None else expected  # JSON has no NaN
    found, expected = torch.as_tensor(found).double(), torch.as_tensor(expected).double()
    assert found.shape == expected.shape, (found.shape, expected.shape)
    if not expected.numel():
        return 0.0
    errors = (found - expected).abs() / (atol + rtol * expected.abs())
    errors[found.isnan() & expected.isnan()] = 0.0
    return float(errors.nan_to_num(nan=math.inf, posinf=math.inf).max())


def test_an_error_that_is_no_number_is_the_worst():
    assert worst(torch.tensor([0.0, math.nan]), torch.zeros(2), 0, 1) == math.inf
    assert worst(torch.tensor([1.0, math.inf]), torch.ones(2), 0, 1) == math.inf
    assert worst(math.nan, None, 0, 1) == 0
    assert worst(torch.tensor([0.0, 2.0]), torch.zeros(2), 0, 4) == 0.5


def test_there_are_cases():
    assert CASES, f"no golden case in {FOLDERS}"


@pytest.mark.parametrize("name", CASES)
def test_golden(name, capsys):
    case, tensors = read_case(name)
    inputs = {k: t for k, t in tensors.items() if not k.startswith("out.")}
    result = run_case(case["kind"], case["hyper"], inputs)
    expected = {k: t for k, t in tensors.items() if k.startswith("out.")}
    expected |= flatten(case["scalars"])
    errors = {}
    for key, value in expected.items():
        assert key in result, f"{name}: the adapter returned no {key}"
        errors[key] = worst(result[key], value, **case["tolerance"])
    key = max(errors, key=errors.get)
    with capsys.disabled():
        print(
            f"\n{name}: {len(errors)} values, worst {key} at {100 * errors[key]:.2f} % "
            "of its tolerance",
            end="",
        )
    assert errors[key] <= 1, (key, errors[key])


def test_an_unknown_kind_fails():
    with pytest.raises(KeyError, match="unknown_kind"):
        run_case("unknown_kind", {}, {})
