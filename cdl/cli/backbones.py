"""Commands for backbones: `cdl backbones list`, `check`, `fetch` and `import`.

Torch is imported only by `check`, `fetch` and `import`.
"""

from dataclasses import asdict, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Annotated, Any

import typer

from cdl.backbones.architectures import architectures
from cdl.backbones.weights_facts import is_research_only
from cdl.cli.options import AsJson, print_json

app = typer.Typer(
    help="List, check, fetch and import frozen backbones.",
    epilog="Example: cdl backbones list '*dinov3*'",
)


@app.command("list", epilog="Example: cdl backbones list '*dinov3*'")
def list_(
    pattern: Annotated[
        str, typer.Argument(metavar="PATTERN", help="Part of a name; * matches any characters.")
    ] = "*",
    as_json: AsJson = False,
) -> None:
    """List timm's architectures and their tags.

    Those for heads only have no blocks. Exit code 1 if none matches PATTERN.
    """
    wanted = pattern if "*" in pattern else f"*{pattern}*"
    listed: list[dict[str, Any]] = [
        {
            "architecture": a.name,
            "width": a.shape.width,
            "depth": a.shape.depth,
            "patch": a.shape.patch,
            "size": a.size,
            "pooling": a.pool,
            "tags": list(a.tags),
        }
        for a in architectures().values()
        if a.shape
        and any(fnmatch(name, wanted) for name in (a.name, *_tagged_names(a.name, a.tags)))
    ]
    if as_json:
        print_json(listed)
    text = "{architecture}: width {width}, {depth} blocks, patch {patch}, {size} px, {pooling}"
    heads = "{architecture}: width {width}, {size} px, for heads only"
    for entry in () if as_json else listed:
        print((text if entry["depth"] else heads).format(**entry))
        for name in _tagged_names(entry["architecture"], entry["tags"]):
            print(f"  {name}{'  (research only)' if is_research_only('timm', name) else ''}")
    if not listed:
        raise typer.Exit(1)


def _tagged_names(name: str, tags: tuple[str, ...] | list[str]) -> list[str]:
    return [f"{name}.{tag}" for tag in tags]


@app.command(epilog="Example: cdl backbones check vit_small_patch14_dinov2 eva02_tiny_patch14_224")
def check(
    names: Annotated[
        list[str],
        typer.Argument(metavar="NAME...", help="Timm models, ONNX files or text encoders."),
    ],
    weights: Annotated[
        Path | None, typer.Option(help="A .safetensors file; default: random weights.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Compare outputs of backbones with those of timm or transformers.

    Of ONNX files, with those in a batch. Prints the methods that each can have. Exit
    code 1 if a model is not supported or the outputs differ.
    """
    from cdl.backbones.check import check as compare_with_timm
    from cdl.study.validation import methods_of

    checks = [compare_with_timm(name, weights) for name in names]
    methods = [methods_of(a.shape) if a.shape else [] for a in checks]
    if as_json:
        both = zip(checks, methods, strict=True)
        print_json([{**asdict(replace(a, shape=None)), "methods": m} for a, m in both])
    for a, suitable in () if as_json else zip(checks, methods, strict=True):
        blocks = f", {a.depth} blocks, {a.tokens} tokens, {a.pooling}" if a.depth else ""
        entrances = f", entrances {' '.join(a.entrances)}" if a.depth else ""
        compared = f"width {a.width}{blocks}, largest difference {a.difference:.1e}{entrances}"
        outcome = a.problem or f"{compared}, methods {' '.join(suitable)}: ok"
        print(f"{a.model}: {outcome}")
    if any(a.problem for a in checks):
        raise typer.Exit(1)


@app.command(epilog="Example: cdl backbones fetch sentence-transformers/all-MiniLM-L6-v2")
def fetch(
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME...",
            help="Text encoders on the Hub, OWNER/NAME; classifiers also by timm's tag.",
        ),
    ],
    revision: Annotated[str | None, typer.Option(help="Commit or branch; default: main.")] = None,
    classifier: Annotated[
        bool, typer.Option("--classifier", help="With their heads, as teachers.")
    ] = False,
    mirror: Annotated[
        str | None, typer.Option(help="Folder or address with the files, instead of the Hub.")
    ] = None,
) -> None:
    """Fetch text encoders or classifiers from the Hugging Face Hub.

    Configurations can use a model that cdl does not know once it has been fetched.
    """
    from cdl.backbones.fetch import keep_shape
    from cdl.backbones.fetch_classifier import fetch_classifier
    from cdl.backbones.pretrained import shape_in

    how = {"mirror": mirror, "setting": "--mirror"}
    for name in names:
        if classifier:
            fetched = fetch_classifier(name, revision, **how)
            print(f"{fetched.path}: a classifier, licence {fetched.licence or 'unknown'}")
        else:
            folder = keep_shape(name, revision, **how)
            shape = shape_in(folder)
            print(f"{folder}: width {shape.width}, {shape.depth} blocks, {shape.tokenizer}")


@app.command(
    "import",
    epilog="Example: cdl backbones import ibot.pth --model vit_small_patch16_224.dino",
)
def import_(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="A .pth or .bin file with a state dict.")
    ],
    model: Annotated[
        str, typer.Option(help="Name of the timm model; its tag sets mean and std of the input.")
    ],
    output: Annotated[
        Path | None, typer.Option(help="File to write; default: FILE with suffix .safetensors.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Convert the weights in a .pth FILE to .safetensors.

    Loads tensors only and executes no code from FILE. Checks names and shapes, and
    prints the names of the tensors that it drops.
    """
    from cdl.backbones.check import import_weights

    target = output or file.with_suffix(".safetensors")
    dropped = import_weights(file, model, target)
    if as_json:
        print_json({"file": str(target), "model": model, "dropped": dropped})
    else:
        print(f"{target}: {model}; dropped: {', '.join(dropped) or 'nothing'}")
