"""Texts: UTF-8 bytes, whose words may be left out in training, for pretrained text encoders.

A text is packed as one row of bytes, height 1 and width its number of bytes, before any tokenizer,
so that teacher and student can have tokenizers of their own.
"""

from dataclasses import dataclass

from cdl.data.modalities import ModalityFacts
from cdl.runtime.options import integer, number
from cdl.spec import InputView

_TOKENS = "Largest number of tokens of an input; the end of longer texts is cut off."
_DROP = "Probability that a word is left out of a text in training, drawn anew in every epoch."


@dataclass(frozen=True)
class TextView(InputView):
    """Transformation of texts to inputs.

    modality: `text`.
    tokens: largest number of tokens, with those that mark start and end.
    drop: probability that a word is left out in training; None at prediction.
    """

    modality: str  # type: ignore[misc]  # a field, since only the default modality is implied
    tokens: int
    drop: float | None = None

    @property
    def input_size(self) -> int:
        return self.tokens

    def held_out(self) -> "TextView":
        """Return the transformation at prediction, which drops no words."""
        return TextView(self.modality, self.tokens)


TEXT = ModalityFacts(
    items="texts",
    description="How texts become inputs of a backbone.",
    options={
        "tokens": integer(64, _TOKENS, minimum=4, maximum=8192),
        "drop": number(0.0, _DROP, minimum=0, maximum=0.9),
    },
    size="tokens",
    channels=1,
    resizes=False,
    part=lambda fields: TextView,
    views="cdl.data.text:TextViews",
    backbone="cdl.backbones.encoders:Encoder",
    student="cdl.deployment.text:TextStudent",
    device="cdl.device.texts:Student",
    device_parts=("reading", "tokens", "texts"),
    new="cdl.deployment.new_texts:NewTexts",
)
