"""A teacher by its configuration alone, without torch: enough to count bytes and multiply-adds.

Only open_clip's own vision transformers that pool by their CLS token are foretold, by name or in a
local folder. Whatever else is asked for is for `description`, which builds the tower.

Legend: L patches, N = 1 + L tokens, W width of a token, D target width.
"""

import dataclasses
from typing import Any

from milan_pipeline.images.statistics import Statistics
from milan_pipeline.teacher.configuration import model_config
from milan_pipeline.teacher.content import preprocessing, teacher_content
from milan_pipeline.teacher.published_weights import require_known_tag
from milan_pipeline.teacher.quick_gelu import settle_quick_gelu
from milan_pipeline.teacher.spec import LOCAL, TeacherSpec
from milan_pipeline.teacher.statistics import settled_statistics

SIZES = ("layers", "width", "patch_size", "image_size")
OPTIONAL = {"head_width": 64, "mlp_ratio": 4.0}
"""Options of open_clip's towers, and its defaults."""
WITHOUT_EFFECT = ("ls_init_value",)
"""Options that change neither shapes nor multiply-adds."""
ANY_HASH = "0" * 64
CHANNELS = 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Foretold:
    """A tower that pools by its CLS token.

    Attributes:
        spec: nothing in it is "auto", but for the precision.
        statistics: mean and std of its pixels.
        patch: pixels along a side of a patch.
        side: patches along a side of the grid.
        depth: number of blocks.
        heads: of each attention.
        hidden: width of each perceptron.
        widths: of a token, by space.
        activation: class of the non-linearity.
    """

    spec: TeacherSpec
    statistics: Statistics
    patch: int
    side: int
    depth: int
    heads: int
    hidden: int
    widths: dict[str, int]
    activation: str
    pooling = "cls"
    pool_attention = None

    @property
    def grid(self) -> tuple[int, int]:
        """Tokens down and across."""
        return self.side, self.side

    def identity(self) -> dict[str, dict[str, Any]]:
        """Return the parts of `description.visible_identity`, as long in bytes.

        The hash of the architecture is not computed: it is a row of zeros.
        """
        teacher = teacher_content(
            self.spec, self, names=self.spec.names_in_identity, architecture=ANY_HASH
        )
        pixels = preprocessing(self.side * self.patch, self.statistics)
        return {"teacher": teacher, "preprocessing": pixels}

    def multiply_adds(self) -> float:
        """Count the multiply-adds of one image's forward pass, with those of its prior."""
        width, patches = self.widths["hidden"], self.side**2
        tokens = 1 + patches
        block = tokens * width * (4 * width + 2 * tokens + 2 * self.hidden)
        prior = tokens * width if self.spec.prior == "cls" else 0
        projected = tokens * width * self.widths["projected"]
        last = projected if self.spec.space == "projected" else 0
        stem = patches * CHANNELS * self.patch**2 * width
        return float(stem + self.depth * block + prior + last)


def foretold(spec: TeacherSpec) -> Foretold | None:
    """Return what is known of a teacher without building it; None where that takes building it.

    Raises:
        ConfigError: there is no such model, or its weights are known to be of another kind.
    """
    if ":" in spec.name and not spec.name.startswith(LOCAL):
        return None
    config = model_config(spec.name)
    vision = OPTIONAL | config["vision_cfg"]
    if not _is_plain(vision, config["embed_dim"]):
        return None
    side = spec.grid or vision["image_size"] // vision["patch_size"]
    covered = spec.grid is not None or side * vision["patch_size"] == vision["image_size"]
    can_do = spec.layers <= vision["layers"] and spec.prior in ("auto", "cls", "uniform")
    if not (covered and can_do):
        return None
    require_known_tag(spec)
    quick = settle_quick_gelu(spec.name, spec.pretrained, config)
    return Foretold(
        spec=dataclasses.replace(
            spec,
            space="projected" if spec.space == "auto" else spec.space,
            prior="cls" if spec.prior == "auto" else spec.prior,
        ),
        statistics=settled_statistics(spec),
        patch=vision["patch_size"],
        side=side,
        depth=vision["layers"],
        heads=vision["width"] // vision["head_width"],
        hidden=int(vision["width"] * vision["mlp_ratio"]),
        widths={"hidden": vision["width"], "projected": config["embed_dim"]},
        activation="QuickGELU" if quick else "GELU",
    )


def _is_plain(vision: dict[str, Any], embed_dim: object) -> bool:
    """Tell whether a configuration has no other options than those that are understood here."""
    if set(vision) - {*SIZES, *OPTIONAL, *WITHOUT_EFFECT} or not set(SIZES) <= set(vision):
        return False
    sizes = [embed_dim, *(vision[name] for name in (*SIZES, "head_width"))]
    if not all(type(size) is int and size > 0 for size in sizes):
        return False
    fits = vision["width"] % vision["head_width"] == 0
    return fits and type(vision["mlp_ratio"]) in (int, float) and vision["mlp_ratio"] > 0
