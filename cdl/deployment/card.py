"""What goes with an exported student: what it learnt, from what, and how well it knows it."""

from collections.abc import Mapping
from typing import Any

import yaml

from cdl.data.stream import Stream

_LIMITS = """\
It knows the classes named here and no others: any image gets one of them. It was tested on images
of the kind that it learnt from, and nowhere else. Its weights contain those of its backbone, whose
licence goes on, and so may that of the images."""


def card(results: Mapping[str, Any], task: int, remarks: list[str]) -> str:
    """Return a model card in Markdown, with the header that the Hugging Face Hub reads.

    Args:
        results: of `results.json`.
        task: after which the student was exported, counted from 0.
        remarks: on how the graph's answers compare with those evaluated.
    """
    spec, matrix = results["learner"], results["matrix"]
    stream = Stream.build(len(results["classes"]), **spec["stream"], seed=spec["seed"])
    method, distiller = spec["method"]["name"], spec["distiller"]["name"]
    header = {
        "library_name": "onnx",
        "pipeline_tag": "image-classification",
        "tags": ["continual-learning", "distillation", method, distiller],
    }
    taught = f", taught by {spec['teacher']} with {distiller}" if spec["teacher"] else ""
    rows = [
        f"| {t + 1} | {', '.join(results['classes'][stream.classes(t)])} | {matrix[task][t]:.2f} |"
        for t in range(task + 1)
    ]
    average = sum(matrix[task][: task + 1]) / (task + 1)
    lines = [
        "---",
        yaml.safe_dump(header, sort_keys=False).strip(),
        "---",
        f"# {spec['backbone']} with {method}{taught}",
        "",
        f"A {spec['role']} that learnt {task + 1} of {len(stream.sizes)} tasks one after the other "
        f"(seed {spec['seed']}); its backbone stayed frozen.",
        "",
        "| task | classes | accuracy in % |",
        "|---|---|---|",
        *rows,
        "",
        f"On average {average:.2f} %, of all classes seen. Evaluated on "
        f"{sum(results['test_images'][: task + 1])} test images.",
        *_forgetting(matrix, task),
        *(f"The exported graph: {remark}." for remark in remarks),
        "",
        "## Use and limits",
        "",
        _LIMITS,
        "",
        "## Made from",
        "",
        *(f"- weights of {name}: {sha}" for name, sha in results["backbones"].items()),
        *(f"- {split} images: {sha}" for split, sha in results["data"].items()),
        f"- checkpoint: {results['checkpoints'][task]}",
        f"- versions: {', '.join(f'{k} {v}' for k, v in results['versions'].items())}",
        "",
    ]
    return "\n".join(lines)


def _forgetting(matrix: list[list[float]], task: int) -> list[str]:
    """Return a sentence on what earlier tasks lost since they were learnt."""
    if task == 0:
        return []
    lost = sum(matrix[t][t] - matrix[task][t] for t in range(task)) / task
    return [f"Since they were learnt, earlier tasks lost {lost:.2f} points on average."]
