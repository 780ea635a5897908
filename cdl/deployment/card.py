"""Write the model card of an exported student, in the format of the Hugging Face Hub."""

import contextlib
import re
from collections.abc import Mapping
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import timm
from huggingface_hub import EvalResult, ModelCard, ModelCardData

import cdl
from cdl.backbones.weights_facts import EMBEDDED_LICENCE, is_research_only
from cdl.data.sources import licence_of as data_licence_of
from cdl.data.stream import Stream
from cdl.deployment.trained import TrainedStudent, find_backbone
from cdl.evaluation.metrics import metrics
from cdl.layout import ResultsFolder, record_of
from cdl.runtime import artifacts
from cdl.spec import Distiller, Method, Part

_LONGEST = 200  # characters of the licence that a file names
_UNKNOWN = "not recorded; clarify it before you redistribute this model"


def card(
    student: TrainedStudent, remarks: list[str], library: str = "onnx", learns_on: bool = False
) -> str:
    """Return a model card in Markdown.

    Args:
        student: the exported student, after one of its tasks.
        remarks: sentences on the comparison with torch, on costs and on latency.
        library: the library that loads it, by its name on the Hub.
        learns_on: whether it can learn after the export, so that its classes may change.
    """
    results, task = student.results, student.model.task
    spec, matrix = student.spec, results["matrix"][task]
    stream = Stream.learnt(results["classes"], spec.stream.tasks)
    tasks = [
        {
            "classes": [escaped(name) for name in results["classes"][stream.classes(t)]],
            "accuracy": matrix[t],
        }
        for t in range(task + 1)
    ]
    average = sum(matrix[: task + 1]) / (task + 1)
    forgetting = None
    if task:
        seen = slice(task + 1)
        accuracies = np.array(results["matrix"], float)[seen, seen]
        forgetting = metrics(accuracies, results["test_images"][seen])["forgetting_max"]
    source, backbone = _dataset_source(student), backbone_record(student)
    licence = licence_of(student)
    own = escaped((backbone.get("licence") or "")[:_LONGEST]) or _UNKNOWN  # as its file says
    distilled = f", distilled from {spec.teacher} with {spec.distiller.name}" if spec.taught else ""
    title = f"{spec.backbone} with {spec.method.name}{distilled}"
    base = f"timm/{backbone['model']}" if licence else None
    scores = {"accuracy": average, "forgetting": forgetting}
    return str(
        ModelCard.from_template(
            _metadata(student, title, source.get("id"), licence, base, scores, library),
            template_str=(files("cdl") / "assets" / "card.md").read_text(encoding="utf-8"),
            title=title,
            role=spec.role,
            item=student.facts.item,
            items=student.facts.items,
            argument=student.items.argument,
            tasks=tasks,
            n_tasks=len(stream.sizes),
            untrained=_is_untrained(spec.method),
            learns_on=learns_on,
            version=cdl.__version__,
            average=average,
            forgetting=forgetting,
            n_classes=len(student.classes),
            test_images=sum(results["test_images"][: task + 1]),
            remarks=remarks,
            protocol=_protocol(student, source.get("name", "")),
            weights_licence=EMBEDDED_LICENCE if _is_embedded(backbone) else licence or own,
            data_licence=data_licence_of(source.get("name", "")) or _UNKNOWN,
            teacher=_answering(student),
            provenance=_provenance(student),
        )
    )


def _metadata(
    student: TrainedStudent,
    title: str,
    identifier: str | None,
    licence: str | None,
    base: str | None,
    scores: Mapping[str, float | None],
    library: str,
) -> ModelCardData:
    """Return the metadata that the Hub reads.

    Args:
        student: the exported student.
        title: of the card.
        identifier: of the dataset on the Hub.
        licence: of the weights, known for models of timm.
        base: the model on the Hub that the backbone is from.
        scores: results in percent by name.
        library: see `card`.
    """
    name = "non-commercial-research" if _is_embedded(backbone_record(student)) else "see-the-card"
    taught = ["distillation", student.spec.distiller.name] if student.spec.teacher else []
    dataset, purpose = identifier or _dataset_name(student), f"{student.facts.item}-classification"
    return ModelCardData(
        license=licence or "other",
        license_name=None if licence else name,
        library_name=library,
        pipeline_tag=purpose,
        tags=["continual-learning", *taught, library, student.spec.method.name],
        datasets=[identifier] if identifier else None,
        base_model=base,
        metrics=["accuracy"],
        model_name=title,
        eval_results=[
            EvalResult(purpose, dataset, dataset, kind, round(value, 4))
            for kind, value in scores.items()
            if value is not None
        ],
    )


def escaped(text: str) -> str:
    """Return text that Markdown shows as it is: no link, image, tag, address or end of a cell."""
    return re.sub(r"([!-+./:-@[-^`{-~]|(?<!\w)_|_(?!\w))", r"\\\1", text)


def _dataset_name(student: TrainedStudent) -> str:
    """Return the dataset's name in the configuration, without the name of a variant."""
    return Path(student.files.folder).resolve().parents[2].name.partition("+")[0]


def _dataset_source(student: TrainedStudent) -> dict[str, Any]:
    """Return the source of the dataset; empty if its packed images are not in the results."""
    packed = student.packed()
    return {} if packed is None else dict(artifacts.read_json(packed.manifest)["source"])


def backbone_record(student: TrainedStudent) -> dict[str, Any]:
    """Return the JSON record of the student's backbone."""
    name = student.spec.backbone
    folder = ResultsFolder.of_run(Path(student.files.folder))
    path = find_backbone(folder, name, student.results["backbones"][name])
    return artifacts.read_json(record_of(path))


def _is_embedded(backbone: Mapping[str, Any]) -> bool:
    """Return whether the weights of a backbone, given its record, are those of this package."""
    asset = Path(str(files("cdl") / "assets"), f"{Path(backbone['model']).name}.safetensors")
    return asset.is_file() and artifacts.fingerprint_file(asset) == backbone["file_sha256"]


def research_only(student: TrainedStudent) -> bool:
    """Return whether the licence of the backbone's weights is known to allow research only."""
    backbone = backbone_record(student)
    return _is_embedded(backbone) or is_research_only("timm", backbone["model"])


def licence_of(student: TrainedStudent) -> str | None:
    """Return the licence of the backbone's weights, which is known for models of timm."""
    found = None
    with contextlib.suppress(RuntimeError):  # a file that is named as an architecture
        found = timm.get_pretrained_cfg(backbone_record(student)["model"])
    return getattr(found, "license", None)


def _is_untrained(method: Method) -> bool:
    """Return whether a method takes no gradient step: it computes a head from fixed features."""
    return not method.facts.trains and method.facts.reads_features(method.options)


def _answering(student: TrainedStudent) -> str:
    """Return name and licence of a teacher that cdl did not train; empty if it taught nothing."""
    spec = student.spec
    labelled = spec.labelling is not None and spec.labelling.by == "teacher"
    if spec.answers is None or not (spec.taught or labelled):
        return ""
    if spec.answers.values != "classifier":
        return f"answers of the teacher, from the file {escaped(spec.answers.name)}: {_UNKNOWN}"
    folder = ResultsFolder.of_run(Path(student.files.folder))
    records = map(artifacts.read_json, folder.classified(spec.answers.name))
    own = (found for found in records if found["classifier"] == spec.answers.sha256)
    origin: dict[str, Any] = next((found["origin"] for found in own), {})
    licence = escaped(origin["licence"]) if origin.get("licence") else _UNKNOWN
    name = origin.get("repository") or Path(origin.get("path", spec.answers.name)).name
    name += f" at {origin['revision']}" if origin.get("revision") else ""
    return f"classifier that taught, {escaped(name)}: {licence}"


def _protocol(student: TrainedStudent, source: str) -> dict[str, str]:
    """Return the data and the training of the student as text, by topic."""
    spec, data, items = student.spec, _dataset_name(student), student.facts.items

    def as_text(part: Part | None) -> str:
        values = part.to_json().items() if part else ()
        empty: tuple[object, ...] = (None, "", [], {})
        return ", ".join(f"{k} {v}" for k, v in values if k != "name" and v not in empty)

    def changed(block: Method | Distiller) -> str:
        """Name the options that differ from their defaults, which artifacts store too."""
        known = block.facts.options
        usual = {k: known[k]["default"] for k in known if "default" in known[k]}
        options = {k: v for k, v in block.options.items() if k not in usual or usual[k] != v}
        return as_text(replace(block, options=options)) or "default options"

    data += f" (source {source})" if source not in ("", data) else ""
    trained = not _is_untrained(spec.method)
    each = spec.images_per_class
    images = [str(n or "all") for n in (each if isinstance(each, tuple) else (each,))]
    found = {
        "data": f"{data}, {', '.join(images)} training {items} of each class"
        + (" of its tasks in order" if images[1:] else ""),
        "labels": as_text(spec.labels),
        "tasks": escaped("{tasks}, class order {class_order}".format(**spec.stream.to_json())),
        "views": as_text(spec.view),
        "training": as_text(spec.training) if trained else "",
        f"method {spec.method.name}": changed(spec.method),
        f"distiller {spec.distiller.name}": changed(spec.distiller) if trained else "",
        "alignment of the heads": as_text(spec.alignment),
        "query": f"features of {spec.query}" if spec.method.facts.needs_query else "",
        "seed": str(spec.seed),
    }
    return {name: text for name, text in found.items() if text}


def _provenance(student: TrainedStudent) -> list[str]:
    """Return hashes and versions of everything that the student was made from."""
    results, answers = student.results, student.spec.answers
    return [
        *(f"weights of {name}: {sha}" for name, sha in results["backbones"].items()),
        *(f"{split} {student.facts.items}: {sha}" for split, sha in results["data"].items()),
        *([f"answers of {answers.name}: {answers.sha256}"] if answers else []),
        f"checkpoint: {results['checkpoints'][student.model.task]}",
        f"versions: {', '.join(f'{k} {v}' for k, v in results['versions'].items())}",
    ]
