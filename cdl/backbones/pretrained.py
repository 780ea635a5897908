"""Facts of pretrained text encoders for planning; imports neither torch nor transformers.

An encoder is a folder with `config.json`, `model.safetensors` and `tokenizer.json` as transformers
writes it, and, if it is of sentence-transformers, `1_Pooling/config.json`. Encoders of the Hub are
fetched to `data/backbones/OWNER/NAME`, or `OWNER/NAME@REVISION`. Before that, `encoders.csv` has
the shapes of some.
"""

import csv
import json
from collections.abc import Mapping
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from cdl.backbones.shape import BackboneShape, Sites
from cdl.runtime.errors import CdlError
from cdl.runtime.outside import json_object

TABLE = Path(__file__).with_name("encoders.csv")
WEIGHTS = Path("data/backbones")
CONFIG, TENSORS, TOKENIZER = "config.json", "model.safetensors", "tokenizer.json"
POOLING = "1_Pooling/config.json"
FILES = (CONFIG, TENSORS, TOKENIZER)
POOLINGS = ("mean", "cls")
SOURCES = ("hf", "folder")  # fields of a backbone in a configuration
_DEPTHS, _WIDTHS = ("num_hidden_layers", "n_layers"), ("hidden_size", "dim")
_OPTIONS = {"mean": "pooling_mode_mean_tokens", "cls": "pooling_mode_cls_token"}
_REFUSED = {
    "deberta": "DeBERTa computes its scores from relative positions, which prefixes do not have",
    "deberta-v2": "DeBERTa computes its scores from relative positions, which prefixes do not have",
}
_BERT = Sites(
    "intermediate.dense",
    "output.dense",
    {f"{name[0]}_proj": f"attention.self.{name}" for name in ("query", "key", "value")},
)
SITES = {  # by type of model; others have no entrances
    "bert": _BERT,
    "roberta": _BERT,
    "xlm-roberta": _BERT,
    "distilbert": Sites("ffn.lin1", "ffn.lin2", {f"{x}_proj": f"attention.{x}_lin" for x in "qkv"}),
    "mpnet": Sites(_BERT.read, _BERT.add, {f"{x}_proj": f"attention.attn.{x}" for x in "qkv"}),
    "modernbert": Sites("mlp_norm", "mlp.Wo", {"qkv": "attn.Wqkv"}),
}
_BEHIND_PADDING = ("roberta", "xlm-roberta", "mpnet")  # their positions start after that of padding
_INSTEAD = "use for example hf: sentence-transformers/all-MiniLM-L6-v2"


def named(model: str, revision: str | None) -> str:
    """Return the name of a revision of a model of the Hub, `OWNER/NAME@REVISION` if it is given."""
    return f"{model}@{revision}" if revision else model


def folder_of(source: str, model: str, revision: str | None = None) -> Path:
    """Return the folder of an encoder: the user's own, or that of a model of the Hub."""
    return WEIGHTS / named(model, revision) if source == "hf" else Path(model)


def files_in(folder: Path) -> list[Path]:
    """Return the files of an encoder that exist in a folder."""
    return [folder / name for name in (*FILES, POOLING) if (folder / name).is_file()]


def shape_of(source: str, model: str, revision: str | None = None) -> BackboneShape:
    """Return the shape of an encoder from its folder, or of a known one that is not fetched yet.

    Args:
        source: `hf` or `folder`.
        model: OWNER/NAME, or the path of a folder.
        revision: of a model of the Hub; None: `main`.

    Raises:
        CdlError: the folder has no valid configuration, its architecture is refused, or the shape
            of a model of the Hub is unknown until it is fetched.
    """
    folder = folder_of(source, model, revision)
    if (folder / CONFIG).is_file() and (folder / TOKENIZER).is_file():
        return shape_in(folder)
    if source == "folder":
        missing = CONFIG if not (folder / CONFIG).is_file() else TOKENIZER
        found = f"has no file {missing}" if folder.is_dir() else "does not exist"
        raise CdlError(
            f"{folder} {found}; expected a folder that save_pretrained of "
            "transformers or save of sentence-transformers wrote, with a fast tokenizer"
        )
    known = encoders().get(model)
    if known is None:
        option = f" --revision {revision}" if revision else ""
        raise CdlError(
            f"the shape of {model!r} is unknown until it is fetched; run "
            f"`cdl backbones fetch {model}{option}` and then this command again"
        )
    return known


def shape_in(folder: Path) -> BackboneShape:
    """Return the shape of an encoder in a folder; raise `CdlError` if it is refused."""
    config = read_config(folder / CONFIG)
    width, depth = (_first(config, names, folder) for names in (_WIDTHS, _DEPTHS))
    name = f"the tokenizer {tokenizer_digest((folder / TOKENIZER).read_bytes(), folder)[:8]}"
    return text_shape(width, depth, name, config["model_type"], _positions(config))


def text_shape(
    width: int, depth: int, tokenizer: str, kind: str, positions: int | None
) -> BackboneShape:
    """Return the shape of an encoder from its type of model and the name of its tokenizer."""
    return BackboneShape(
        width,
        depth,
        entrances=("mlp", "qkv") if kind in SITES else (),
        modality="text",
        tokenizer=tokenizer,
        positions=positions,
    )


def _positions(config: Mapping[str, Any]) -> int | None:
    """Return the largest number of tokens of an input; None if the configuration has none."""
    most = config.get("max_position_embeddings")
    padding = config.get("pad_token_id", 1) if config["model_type"] in _BEHIND_PADDING else -1
    if not isinstance(most, int) or not isinstance(padding, int):
        return None
    return most - padding - 1


def read_config(file: Path) -> dict[str, Any]:
    """Return the configuration of an encoder; raise `CdlError` if it is refused."""
    config = json_object(file, remedy="fetch or save the model again")
    kind = config.get("model_type")
    if not isinstance(kind, str):
        raise CdlError(f"{file}: model_type is missing; expected a configuration of transformers")
    if kind in _REFUSED:
        raise CdlError(f"{file}: {_REFUSED[kind]}, so it cannot be prompted; {_INSTEAD}")
    return config


def _first(config: Mapping[str, Any], names: tuple[str, ...], folder: Path) -> int:
    found = next((config[name] for name in names if name in config), None)
    if not isinstance(found, int) or found < 1:
        raise CdlError(f"{folder / CONFIG}: invalid {names[0]} {found!r}; expected an integer")
    return found


def tokenizer_digest(tokenizer: bytes, where: object) -> str:
    """Return a digest of how a tokenizer divides texts, without padding and truncation."""
    found = json_object(tokenizer, f"{where}: {TOKENIZER}")
    kept = {k: v for k, v in found.items() if k not in ("padding", "truncation", "version")}
    return sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


def read_pooling(file: Path) -> str:
    """Return how sentence-transformers pools the tokens, one of `POOLINGS`.

    Raises:
        CdlError: the file cannot be read, or pools in another way.
    """
    config = json_object(file, remedy="set pooling to mean or cls")
    found = [name for name, option in _OPTIONS.items() if config.get(option)]
    others = [k for k, v in config.items() if k.startswith("pooling_mode_") and v is True]
    named = config.get("pooling_mode")  # in newer files
    if not others and named in POOLINGS:
        return str(named)
    if len(found) != 1 or len(others) != 1:
        raise CdlError(
            f"{file}: pools by {', '.join(others) or named or 'nothing'}; expected the mean or the "
            "first token: set pooling to mean or cls"
        )
    return found[0]


@cache
def encoders() -> dict[str, BackboneShape]:
    """Return the shapes of known encoders of the Hub by name."""
    with open(TABLE, newline="") as file:
        return {
            row["model"]: text_shape(
                int(row["width"]),
                int(row["depth"]),
                row["tokenizer"],
                row["type"],
                int(row["positions"]),
            )
            for row in csv.DictReader(file)
        }
