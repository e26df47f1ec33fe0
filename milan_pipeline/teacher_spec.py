"""Which teacher, and what is asked of it: what shapes targets, before any weight is read."""

import dataclasses
from pathlib import Path

from milan_pipeline.errors import ConfigError

PRECISIONS = ("fp32", "bf16")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TeacherSpec:
    """A CLIP image tower by name.

    Attributes:
        name: an open_clip model (`ViT-B-16`), `hf-hub:ORG/REPO` or `local-dir:PATH`.
        pretrained: weights tag (`openai`) or checkpoint file; None for hf-hub and local-dir.
        precision: type of weights and activations, one of `PRECISIONS`.

    Raises:
        ConfigError: a value is not one of those.
    """

    name: str
    pretrained: str | None = None
    precision: str = "fp32"

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise ConfigError(
                f"--precision {self.precision!r} is unknown; choose one of {', '.join(PRECISIONS)}"
            )

    @property
    def name_in_identity(self) -> str:
        """What the identity calls the tower: the path of a local folder is not part of it."""
        return "local-dir" if self.name.startswith("local-dir:") else self.name

    @property
    def tag_in_identity(self) -> str | None:
        """What the identity calls its weights: the path of a file is not part of it."""
        is_file = self.pretrained is not None and Path(self.pretrained).is_file()
        return "file" if is_file else self.pretrained
