"""The registry of modalities: images where none is named, and no other than the known ones."""

import pytest

from cdl.data.modalities import MODALITIES, backbone_class, views_of
from cdl.data.sources import SOURCES, modality_of
from cdl.data.views import Views
from cdl.runtime.errors import CdlError
from cdl.spec import HeldOutView, InputView, View

VIEW = {"crop_ratio": [0.75, 1.25], "crop_scale": [0.5, 1.0], "flip": 0.5, "size": 8}
VIEW |= {"test_resize": None}


def test_a_view_without_a_modality_is_one_of_images():
    view = InputView.of("images", VIEW)
    assert view == View.from_json(VIEW) and view.to_json() == VIEW
    assert view.held_out() == HeldOutView(8, None) == InputView.from_json(view.held_out().to_json())
    assert isinstance(views_of(view), Views) and view.input_size == 8
    assert backbone_class(view).__name__ == "ImageBackbone"


def test_an_unknown_modality_is_refused():
    with pytest.raises(CdlError, match="spec.view.modality: invalid value 'smell'; expected one"):
        InputView.from_json({"modality": "smell"}, "spec.view")


def test_every_source_has_a_known_modality():
    for name, facts in SOURCES.items():
        options = {key: option.get("default") for key, option in facts.options.items()}
        assert modality_of({name: options}) in MODALITIES
    assert modality_of({"nothing": {}}) == modality_of({}) == "images"
