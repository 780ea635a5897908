"""Table and figure of exported students: accuracy against cost on one machine."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from cdl.reporting.names import method_of, names, names_of
from cdl.reporting.style import about, canvas, embedded, legend, look, paper, save
from cdl.reporting.tables import read
from cdl.reporting.text import as_markdown
from cdl.runtime.artifacts import read_json, write_json, write_text

NOTE = (
    "Accuracy: mean over tasks after the last one, in percent, of the exported graph on all test "
    "examples. Forgetting: of the run, in points. Parameters: those that a prediction uses. "
    "GFLOPs: multiplications and additions for one input, with and without the query's pass. "
    "Blocks: number of executions of a ViT block. Latency: single inputs, from pixels or words to "
    "logits, one thread, median and 95th percentile. Inputs/s: batches of 32, one and two threads. "
    "Memory: largest resident memory of a process that loads the student and classifies inputs. "
    "Students are timed in turns, in several rounds."
)


def write_deployment(tables: Any, outputs: Any, datasets: Sequence[str]) -> None:
    """Write the Markdown table and the figures of each dataset.

    Args:
        tables: path of `deployment` and of its record, `deployment_record`.
        outputs: paths of `md`, of all `figures`, and of the `record` with their hashes.
        datasets: in the order of the figures.

    Raises:
        CdlError: the table does not match its record.
    """
    table, machine = _read(tables)
    note = f"Machine: {machine}. {NOTE}"
    write_text(outputs.md, as_markdown(display_table(table), note))
    figures = list(outputs.figures)
    for i, dataset in enumerate(datasets):
        each = len(figures) // len(datasets)
        rows = table[table["dataset"] == dataset]
        save(accuracy_against_latency(rows, machine), figures[i * each : (i + 1) * each])
    write_json(outputs.record, {}, files=[outputs.md, *figures])


def _read(tables: Any) -> tuple[pd.DataFrame, str]:
    """Return the table of `cdl.deployment.measure.measure` and a description of the machine."""
    table = read(tables.deployment, tables.deployment_record)
    machine = read_json(tables.deployment_record)["machine"]
    return table, (
        f"{machine['cpu']}, {machine['cores']} cores, {machine['system']}; onnxruntime "
        f"{machine['onnxruntime']}; load before the first turn {machine['load_before']}"
    )


def on_page(tables: Any) -> dict[str, Any] | None:
    """Return the content of the page's deployment section; None if nothing was deployed.

    Args:
        tables: as for `write_deployment`, and the paths of its figures, `deployment_figures`.

    Raises:
        CdlError: the table does not match its record.
    """
    if getattr(tables, "deployment", None) is None:
        return None
    table, machine = _read(tables)
    drawn = [path for path in tables.deployment_figures if path.endswith(".svg")]
    return {
        "machine": machine,
        "note": NOTE,
        "rows": display_table(table),
        "figures": [embedded(path) for path in drawn],
    }


def display_table(table: pd.DataFrame) -> list[dict[str, str]]:
    """Return the table as text: for each row a dictionary from heading to text."""
    return [_display_row(row) for row in table.to_dict("records")]


def _display_row(row: Mapping[Hashable, Any]) -> dict[str, str]:
    def number(name: str, digits: int = 2) -> str:
        return "-" if pd.isna(row[name]) else f"{row[name]:.{digits}f}"

    parts = ("backbone", "query_backbone", "prompts", "head", "distiller")
    sizes = {part: row[f"parameters_{part}"] for part in parts}
    return {
        "dataset": row["dataset"],
        **names_of(row),
        "seed": f"{row['seed']:.0f}",
        "weights": row["weights"],
        "accuracy": number("accuracy"),
        "forgetting": number("forgetting_max"),
        "MB": number("megabytes", 1),
        "parameters": ", ".join(
            f"{part.replace('_', ' ')} {n:,.0f}" for part, n in sizes.items() if n
        ),
        "GFLOPs": f"{row['gflops']:.3g}",
        "without query": f"{row['gflops_without_query']:.3g}",
        "blocks": number("block_passes", 0),
        "p50 (ms)": number("latency_p50_ms"),
        "p95 (ms)": number("latency_p95_ms"),
        "inputs/s, 1 thread": number("images_per_second_1", 0),
        "2 threads": number("images_per_second_2", 0),
        "memory (MB)": number("peak_memory_mb", 0),
    }


@paper()
def accuracy_against_latency(table: pd.DataFrame, machine: str) -> Figure:
    """Draw accuracy against the median latency of one input: fp32 filled, int8 hollow.

    Args:
        table: rows of one dataset.
        machine: description of the machine.
    """
    note = f"{about(table, None, '')}; filled: fp32, hollow: int8; {machine}"
    named = table.assign(name=names(table), title=table.apply(method_of, axis=1))
    titles = list(dict.fromkeys(named["title"]))
    x, y = "latency of one input, median (ms)", "final average accuracy (%)"
    figure, axes = canvas(titles, x, y, note, sharex=True, sharey=True)
    for axis, title in zip(axes, titles, strict=True):
        for _, pair in named[named["title"] == title].groupby("run", sort=False):
            style = look(pair["name"].iloc[0])
            points = list(zip(pair["latency_p50_ms"], pair["accuracy"], strict=True))
            axis.plot(*zip(*points, strict=True), color=style.colour, linewidth=0.6, alpha=0.6)
            for point, weights in zip(points, pair["weights"], strict=True):
                hollow = {"markerfacecolor": "none", "markeredgecolor": style.colour}
                extra = {"label": pair["name"].iloc[0]} if weights == "fp32" else hollow
                axis.plot(*point, **{**style.point, **extra})
    axes[0].set_xlim(left=0)
    legend(figure, axes)
    return figure
