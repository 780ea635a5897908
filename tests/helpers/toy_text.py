"""Toy text encoders: random weights, and a tokenizer of whole words, as folders of transformers."""

import json

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification

WORDS = "book a table for two cancel my refund please where is the parcel one three four".split()
SPECIAL = {"[UNK]": 0, "[PAD]": 1, "[CLS]": 2, "[SEP]": 3}
SHAPE = {"hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 3, "pad_token_id": 1}
SHAPE |= {"intermediate_size": 24, "vocab_size": 32, "max_position_embeddings": 40}
KINDS = {
    "bert": SHAPE,
    "roberta": SHAPE | {"pad_token_id": 1, "type_vocab_size": 1},
    "distilbert": {
        "dim": 12,
        "n_layers": 2,
        "n_heads": 3,
        "hidden_dim": 24,
        "vocab_size": 32,
        "pad_token_id": 1,
    },
    "modernbert": SHAPE
    | {"pad_token_id": 1, "global_attn_every_n_layers": 2, "local_attention": 4}
    | {"bos_token_id": 2, "eos_token_id": 3, "cls_token_id": 2, "sep_token_id": 3},
    "mpnet": SHAPE | {"relative_attention_num_buckets": 32, "pad_token_id": 1},
}


def word_tokenizer(words=WORDS):
    """A tokenizer of whole words, which marks start and end."""
    vocabulary = SPECIAL | {word: i for i, word in enumerate(words, start=len(SPECIAL))}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    made.normalizer = normalizers.Lowercase()
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    marks = [(name, SPECIAL[name]) for name in ("[CLS]", "[SEP]")]
    made.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", special_tokens=marks)
    return made


def model_of(kind="bert", seed=0, **changes):
    """A random model as transformers builds it."""
    torch.manual_seed(seed)
    config = AutoConfig.for_model(kind, **{**KINDS[kind], **changes})
    return AutoModel.from_config(config, attn_implementation="eager").eval()


def save(folder, kind="bert", pooling="mean", words=WORDS, seed=0, **changes):
    """Write an encoder as sentence-transformers saves it; without pooling as transformers does."""
    model = model_of(kind, seed, **changes)
    for parameter in model.parameters():  # far from zero, so that all tokens matter
        parameter.data = parameter.data + 0.1 * torch.randn(parameter.shape)
    model.save_pretrained(folder)
    word_tokenizer(words).save(str(folder / "tokenizer.json"))
    if pooling:
        (folder / "1_Pooling").mkdir()
        modes = {f"pooling_mode_{name}": False for name in ("cls_token", "mean_tokens")}
        modes |= {f"pooling_mode_{ {'mean': 'mean_tokens', 'cls': 'cls_token'}[pooling] }": True}
        about = {"word_embedding_dimension": 12, **modes}
        (folder / "1_Pooling" / "config.json").write_text(json.dumps(about))
    return folder


def save_classifier(folder, classes, kind="bert", words=WORDS):
    """Write a random text classifier as transformers saves it; return its teacher's block."""
    torch.manual_seed(0)
    labels = {"id2label": dict(enumerate(classes))}
    labels |= {"label2id": {name: i for i, name in enumerate(classes)}}
    config = AutoConfig.for_model(kind, **KINDS.get(kind, SHAPE), **labels)
    model = AutoModelForSequenceClassification.from_config(config, attn_implementation="eager")
    for parameter in model.parameters():  # far from zero, so that all tokens matter
        parameter.data = parameter.data + 0.1 * torch.randn(parameter.shape)
    model.save_pretrained(folder)
    word_tokenizer(words).save(str(folder / "tokenizer.json"))
    return {"hf": str(folder)}
