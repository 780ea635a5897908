"""`cdl backbones list | check | import`. Torch is imported only by the two that build a model."""

import json
from dataclasses import asdict
from fnmatch import fnmatch
from pathlib import Path
from typing import Annotated, Any

import typer

from cdl.backbones.architectures import architectures

app = typer.Typer(
    help="Frozen backbones: which there are, and whether one works.",
    epilog="Example: cdl backbones list '*dinov3*'",
)
AsJson = Annotated[bool, typer.Option("--json", help="Answer in JSON.")]


@app.command("list", epilog="Example: cdl backbones list '*dinov3*'")
def list_(
    pattern: Annotated[str, typer.Argument(help="Of names; * stands for anything.")] = "*",
    as_json: AsJson = False,
) -> None:
    """List timm's architectures that can be prompted, with their tags."""
    wanted = pattern if "*" in pattern else f"*{pattern}*"
    found: list[dict[str, Any]] = [
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
        if a.shape and any(fnmatch(name, wanted) for name in (a.name, *_full(a.name, a.tags)))
    ]
    if as_json:
        print(json.dumps(found, indent=2))
    text = "{architecture}: width {width}, {depth} blocks, patch {patch}, {size} px, {pooling}"
    for entry in () if as_json else found:
        print(text.format(**entry))
        for tag in entry["tags"]:
            print(f"  {entry['architecture']}.{tag}")
    if not found:
        raise typer.Exit(1)


def _full(name: str, tags: tuple[str, ...]) -> list[str]:
    return [f"{name}.{tag}" for tag in tags]


@app.command(epilog="Example: cdl backbones check vit_small_patch14_dinov2 eva02_tiny_patch14_224")
def check(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="Models of timm.")],
    weights: Annotated[
        Path | None, typer.Option(help="A .safetensors file; without it they are random.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Build models and compare their forward with timm's own.

    Exit code 1 if one is refused or differs.
    """
    from cdl.backbones.check import check as checked

    found = [checked(name, weights) for name in names]
    if as_json:
        print(json.dumps([asdict(answer) for answer in found], indent=2))
    for a in () if as_json else found:
        facts = f"width {a.width}, {a.depth} blocks, {a.tokens} tokens, {a.pooling}"
        about = a.problem or f"{facts}, difference {a.difference:.1e}: ok"
        print(f"{a.model}: {about}")
    if any(answer.problem for answer in found):
        raise typer.Exit(1)


@app.command(
    "import",
    epilog="Example: cdl backbones import ibot.pth --model vit_small_patch16_224.dino",
)
def import_(
    file: Annotated[Path, typer.Argument(help="A .pth or .bin file with a state dict.")],
    model: Annotated[
        str, typer.Option(help="timm's name of what it holds; a tag gives mean, std.")
    ],
    output: Annotated[
        Path | None, typer.Option(help="File to write; without it FILE with .safetensors.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write the weights of a .pth FILE as .safetensors.

    Nothing that FILE holds is run. Names and shapes are checked; what is dropped is said.
    """
    from cdl.backbones.check import import_weights

    target = output or file.with_suffix(".safetensors")
    dropped = import_weights(file, model, target)
    if as_json:
        print(json.dumps({"file": str(target), "model": model, "dropped": dropped}, indent=2))
    else:
        print(f"{target}: {model}; dropped: {', '.join(dropped) or 'nothing'}")
