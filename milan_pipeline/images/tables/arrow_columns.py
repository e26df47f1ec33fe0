"""Which columns of a Parquet or Arrow table have what, by types and by `datasets`' features."""

import contextlib
import dataclasses
import importlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from milan_pipeline.errors import ConfigError, DataError, MilanError, reason_of
from milan_pipeline.images.tables.columns import Columns, named, part_column

Features = Mapping[str, Any]
Form = Literal["path", "bytes", "struct"]
"""Paths of images; their bytes; or both, as `datasets` has them: `{bytes, path}`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layout:
    """The columns of a table, and the names of its classes if it has them."""

    image: str
    form: Form
    label: str | None
    caption: str | None
    part: str | None
    classes: list[str]

    @property
    def others(self) -> list[str]:
        """The columns beside the images."""
        return [name for name in (self.label, self.caption, self.part) if name is not None]


def arrow_library(module: str, place: Path) -> Any:
    """Import pyarrow, or a module of it.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ConfigError(
            f"{place} is read by pyarrow, which is not installed; run "
            "`pip install 'milan-pipeline[tables]'`"
        ) from error


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Say which file it is that pyarrow cannot read.

    Raises:
        DataError: within, pyarrow failed.
    """
    arrow = arrow_library("pyarrow", path)
    try:
        yield
    except MilanError:
        raise
    except (arrow.ArrowException, OSError) as error:
        raise DataError(
            f"{path} cannot be read as a table ({reason_of(error)}); copy or make it again"
        ) from error


def features_of(schema: Any) -> Features:
    """Return what `datasets` wrote of each column into a schema; nothing if others wrote it."""
    try:
        document = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        return as_features(document["info"]["features"])
    except (ValueError, LookupError, TypeError):
        return {}


def as_features(document: Any) -> Features:
    """Return the features of a JSON document that are described as we know them."""
    if not isinstance(document, dict):
        return {}
    return {name: value for name, value in document.items() if isinstance(value, dict)}


def layout_of(schema: Any, features: Features, columns: Columns, place: Path) -> Layout:
    """Find the columns of a table.

    Args:
        schema: of pyarrow.
        features: what `datasets` says of the columns.
        columns: as options name them.
        place: the table, for errors.

    Raises:
        ConfigError: a column is not there or of another type, or several could be meant.
    """
    image = _image_column(schema, features, columns, place)
    label = _label_column(schema, features, columns, place)
    caption = columns.caption_of(schema.names, place)
    names = [] if label is None else features.get(label, {}).get("names")
    return Layout(
        image=image,
        form=_form_of(schema.field(image).type, image, place),
        label=label,
        caption=caption,
        part=part_column(schema.names, (image, label, caption)),
        classes=[str(name) for name in names] if isinstance(names, list) else [],
    )


def _image_column(schema: Any, features: Features, columns: Columns, place: Path) -> str:
    names: list[str] = schema.names
    typed = [
        name
        for name in names
        if features.get(name, {}).get("_type") == "Image" or _is_image(schema.field(name).type)
    ]
    if columns.image is None and len(typed) > 1:
        raise ConfigError(
            f"{place} has {len(typed)} columns of images ({named(typed)}); give one by "
            "--image-column"
        )
    if columns.image is None and typed:
        return typed[0]
    return columns.image_of(names, place)


def _label_column(schema: Any, features: Features, columns: Columns, place: Path) -> str | None:
    names: list[str] = schema.names
    usual = columns.label_of(names, place)
    typed = [n for n in names if features.get(n, {}).get("_type") == "ClassLabel"]
    if columns.label is not None or usual is not None or not typed:
        return usual
    if len(typed) > 1:
        raise ConfigError(
            f"{place} has {len(typed)} columns of classes ({named(typed)}); give one, or none, by "
            "--label-column"
        )
    return typed[0]


def _is_image(kind: Any) -> bool:
    types = arrow_library("pyarrow.types", Path())
    return bool(types.is_struct(kind)) and kind.get_field_index("bytes") >= 0


def _form_of(kind: Any, name: str, place: Path) -> Form:
    types = arrow_library("pyarrow.types", place)
    if _is_image(kind):
        return "struct"
    if types.is_binary(kind) or types.is_large_binary(kind):
        return "bytes"
    if types.is_dictionary(kind):
        kind = kind.value_type
    if types.is_string(kind) or types.is_large_string(kind):
        return "path"
    raise ConfigError(
        f"the column {name} of {place} has values of type {kind}, which are no images and no "
        "paths of images; give another by --image-column"
    )
