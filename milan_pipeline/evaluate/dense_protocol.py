"""The card of a dense evaluation: all that its mIoU depends on, beside the encoder and the images.

Published figures of one encoder differ by points where only the resolution of the masks differs.
So a stage that names the class of pixels writes a card, in one form, as `protocol` into its
``scores.json`. Cards that differ in how they score make their figures incomparable.
"""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

from milan_pipeline.evaluate.scores_file import Result

PROTOCOL = "protocol"
"""The name of the card in `scores.json`."""
MODEL_FIELDS = ("encoder", "training")
"""What a card tells of how the model came about, not of how it was scored."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DenseProtocol:
    """How the pixels of images were answered and scored; plain JSON.

    Attributes:
        method: with its source.
        encoder: "frozen" or "trained"; None where that is not known.
        features: which of the encoder's are used.
        resolution: of the images that the encoder is given.
        aspect_ratio: whether it is kept.
        crop: which part of an image is answered at once.
        stride: between windows, in pixels; None without windows.
        scales: factors of the resolution whose answers are averaged.
        mirrored: whether answers to the mirror image are averaged, too.
        interpolation_of_images: how pixels are brought to that resolution.
        interpolation_of_masks: how masks are.
        masks_scored_at: the resolution at which answers and masks are compared.
        enlargement_of_answers: how answers get there.
        classes: how many there are.
        ignored: values in the masks of pixels that do not count.
        mean_over: the classes that mIoU is the mean of.
        precision: of the encoder's arithmetic.
        details: what this method alone depends on; they stand beside the rest.
    """

    method: str
    encoder: str | None
    features: str
    resolution: str
    aspect_ratio: str
    crop: str
    stride: int | None
    scales: Sequence[float] = (1.0,)
    mirrored: bool = False
    interpolation_of_images: str = "bilinear, antialiased"
    interpolation_of_masks: str
    masks_scored_at: str
    enlargement_of_answers: str
    classes: int | None
    ignored: Sequence[int]
    mean_over: str = "classes in masks or answers"
    precision: str
    details: dict[str, Any]

    def document(self) -> dict[str, Any]:
        """Return the card as it is written."""
        card = dataclasses.asdict(self)
        return {name: value for name, value in card.items() if name != "details"} | self.details


def ignored_values(ignore_index: int, *, reduce_zero_label: bool) -> list[int]:
    """Return the values of mask pixels that do not count."""
    return [ignore_index, *([0] if reduce_zero_label else [])]


def card_of(result: Result) -> dict[str, Any] | None:
    """Return the card of a result; None where it has none."""
    card = result.extras.get(PROTOCOL)
    return card if isinstance(card, dict) else None


def scoring_of(result: Result) -> dict[str, Any] | None:
    """Return the card without how the model came about, in which compared models may differ."""
    card = card_of(result)
    if card is None:
        return None
    return {name: value for name, value in card.items() if name not in MODEL_FIELDS}


def card_line(card: dict[str, Any]) -> str:
    """Write a card as one line."""
    return "; ".join(f"{_words(name)}: {_text(value)}" for name, value in card.items())


def differing_fields(cards: Iterable[dict[str, Any]]) -> list[str]:
    """Return the fields that are not the same on all cards, in their order."""
    cards = list(cards)
    names = dict.fromkeys(name for card in cards for name in card)
    return [n for n in names if any(card.get(n) != cards[0].get(n) for card in cards)]


def warnings_of_protocols(results: Iterable[Result]) -> list[str]:
    """Say which mIoU of a table come from different protocols, a sentence for each metric.

    Results without a card, of an earlier version, are left out.
    """
    by_metric: dict[str, list[dict[str, Any]]] = {}
    for result in results:
        if (card := scoring_of(result)) is not None:
            for metric in result.metrics:
                if "miou" in metric and not metric.startswith("best-"):
                    by_metric.setdefault(metric, []).append(card)
    differing = {metric: differing_fields(cards) for metric, cards in by_metric.items()}
    return [
        f"{metric}: protocols of the rows differ ({', '.join(map(_words, fields))}); compare only "
        "rows with the same protocol, as scores.json has it"
        for metric, fields in differing.items()
        if fields
    ]


def _words(name: str) -> str:
    return name.replace("_", " ")


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{_words(name)} {_text(each)}" for name, each in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value)) or "none"
    return "none" if value is None else str(value)
