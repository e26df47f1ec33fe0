"""The model card of an export, `README.md`: what it is, how to load it, and where it comes from.

It has the form of the Hub's cards. The weights' own licence is left to whoever publishes them: it
may depend on the teacher's, and on that of the images.
"""

import dataclasses
import re
from collections.abc import Mapping

CARD = "README.md"
MANY = 20  # classes that a card lists


@dataclasses.dataclass(frozen=True, kw_only=True)
class Card:
    """What the card says.

    Attributes:
        kind: "encoder", "student", "classifier" or "segmenter".
        form: `--form` of export.
        model: timm's name of the architecture.
        parameters: how many.
        image_size: height and width of its images, in pixels.
        classes: names of outputs, if there are any.
        origin: what is known of teacher, data, training and identity, by name.
        figures: rows of a table: name, value and its 95% interval, in per cent.
    """

    kind: str
    form: str
    model: str
    parameters: int
    image_size: int
    classes: tuple[str, ...]
    origin: Mapping[str, str]
    figures: tuple[tuple[str, str, str], ...]


def _plain(name: str) -> str:
    """Write a name so that Markdown shows it as it is, in one line."""
    return re.sub(r"([\\\\`*_\[\]<>|#])", r"\\\1", " ".join(name.split()))


def card_bytes(card: Card) -> bytes:
    """Write the card as Markdown, with the front matter that the Hub reads."""
    size, millions = card.image_size, f"{card.parameters / 1e6:.1f} million parameters"
    what = f"Its architecture is timm's `{card.model}` with {millions}."
    licence = (
        "No licence of these weights is stated here. Before you publish them, look at the licences "
        "of the teacher, which is the `teacher_license` of a configuration beside them if it is "
        "known, and of the images."
    )
    named = [_plain(name) for name in card.classes[:MANY]]
    classes = ", ".join(named) + (", …" if len(card.classes) > MANY else "")
    parts = [
        f"---\n{_front_matter(card)}---",
        f"# {card.kind.capitalize()} {card.model}",
        f"{KINDS[card.kind]} {what} It takes images of {size} x {size} pixels.",
        *([f"Classes ({len(card.classes)}): {classes}."] if classes else []),
        "## How to load it",
        f"{HOW[card.form]} In this folder:",
        f"```python\n{SNIPPETS[card.form, card.kind].strip()}\n```",
        "## Figures",
        _table(card),
        "## Where it comes from",
        "\n".join(f"- {name}: {text}" for name, text in card.origin.items()),
        "## Licence",
        licence,
    ]
    return ("\n\n".join(parts) + "\n").encode()


def _front_matter(card: Card) -> str:
    lines = {"library_name": LIBRARIES[card.form], "pipeline_tag": TASKS[card.kind]}
    return "".join(f"{name}: {value}\n" for name, value in lines.items()) + "tags: [milan]\n"


def _table(card: Card) -> str:
    if not card.figures:
        return "None are stored with this model: it was not scored by the run that wrote it."
    rows = [("figure", "%", "95% interval"), ("---",) * 3, *card.figures]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


KINDS = {
    "encoder": "An image encoder of milan-pipeline; below is what it was trained on.",
    "student": "An encoder and its prompting decoder, of milan-pipeline; below is what they were "
    "trained on.",
    "classifier": "An image classifier, fine-tuned with milan-pipeline. These are the weights that "
    "scored best on the validation images.",
    "segmenter": "A model that names the class of each pixel, trained with milan-pipeline. These "
    "are the weights that scored best on the validation images.",
}
TASKS = {
    "encoder": "image-feature-extraction",
    "student": "image-feature-extraction",
    "classifier": "image-classification",
    "segmenter": "image-segmentation",
}
LIBRARIES = {
    "timm": "timm",
    "huggingface": "transformers",
    "onnx": "onnx",
    "official": "pytorch",
    "safetensors": "milan-pipeline",
}
HOW = {
    "timm": "timm loads it.",
    "huggingface": "transformers loads it.",
    "onnx": "onnxruntime runs it. The number of images is free, their size is fixed.",
    "official": "MILAN's official code loads it.",
    "safetensors": "milan-pipeline loads it, and takes `model.safetensors` as `--encoder`.",
}

_TIMM = """
import timm
from PIL import Image

model = timm.create_model("local-dir:.", pretrained=True).eval()
transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
pixels = transform(Image.open("image.jpg").convert("RGB"))[None]
"""
_ONNX = """
import json

import numpy as np
import onnxruntime
from PIL import Image

with open("config.json") as file:
    about = json.load(file)
size = about["image_size"]
image = Image.open("image.jpg").convert("RGB")
factor = about["resized_shorter_side"] / min(image.size)
resampling = Image.Resampling[about["interpolation"].upper()]
image = image.resize([round(side * factor) for side in image.size], resampling)
left, top = (image.width - size) // 2, (image.height - size) // 2
image = image.crop((left, top, left + size, top + size))
mean, std = np.float32(about["mean"]), np.float32(about["std"])
pixels = (np.asarray(image, np.float32) / 255 - mean) / std
session = onnxruntime.InferenceSession("model.onnx")
(output,) = session.run(None, {"pixels": pixels.transpose(2, 0, 1)[None]})
"""
SNIPPETS = {
    ("timm", "encoder"): _TIMM
    + "tokens = model.forward_features(pixels)  # the class token, then the patches",
    ("timm", "classifier"): _TIMM
    + """number = int(model(pixels).argmax())
print(number, model.pretrained_cfg.get("label_names", {number: ""})[number])""",
    ("huggingface", "encoder"): """
from PIL import Image
from transformers import ViTImageProcessor, ViTModel

model = ViTModel.from_pretrained(".", add_pooling_layer=False)
processor = ViTImageProcessor.from_pretrained(".")
pixels = processor(Image.open("image.jpg").convert("RGB"), return_tensors="pt")
tokens = model(**pixels).last_hidden_state  # the class token, then the patches
""",
    ("huggingface", "classifier"): """
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForImageClassification

model = AutoModelForImageClassification.from_pretrained(".")
processor = AutoImageProcessor.from_pretrained(".")
pixels = processor(Image.open("image.jpg").convert("RGB"), return_tensors="pt")
print(model.config.id2label[int(model(**pixels).logits.argmax())])
""",
    ("onnx", "encoder"): _ONNX + "print(output.shape)  # the class token, then the patches",
    ("onnx", "classifier"): _ONNX
    + """number = int(output.argmax())
print(number, about["classes"][number] if about["classes"] else "")""",
    ("onnx", "segmenter"): _ONNX
    + """numbers = output[0].argmax(0)  # the class of each pixel
print({about["classes"][n] if about["classes"] else n for n in np.unique(numbers).tolist()})""",
    ("official", "student"): """
import torch

state = torch.load("checkpoint.pth", weights_only=True)["model"]
""",
    ("safetensors", "encoder"): """
import milan_pipeline as mp
from PIL import Image

encoder = mp.load_encoder("./model.safetensors")
transform = mp.image_transform("./model.safetensors", normalise=False)
features = encoder.features(transform(Image.open("image.jpg"))[None])
""",
    ("safetensors", "classifier"): """
import milan_pipeline as mp
from milan_pipeline.evaluate.classification.model import read_classifier
from PIL import Image

model, description = read_classifier("model.safetensors")
transform = mp.image_transform("./model.safetensors")
logits = model.eval()(transform(Image.open("image.jpg"))[None])
print(int(logits.argmax()), description.classes)
""",
    ("safetensors", "segmenter"): """
import torch
from milan_pipeline.evaluate.segmentation.files import read_segmenter

model, description = read_segmenter("model.safetensors")
size = description.image_size
logits = model.eval()(torch.zeros(1, 3, size, size)).main_BYHW  # of normalised pixels
print(description.classes)
""",
}
"""How to load each kind in each form, run from the folder; `image.jpg` is the reader's own."""
