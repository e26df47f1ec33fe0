"""Choose a store's codec: one that needs no fitting, the store's own, or one that is fitted now."""

import math

from milan_pipeline.codecs.registry import parse_codec
from milan_pipeline.core.interrupts import StopRequest
from milan_pipeline.errors import ConfigError, DataError
from milan_pipeline.extraction.codec_sample import extracted_sample
from milan_pipeline.extraction.spec import JobSpec
from milan_pipeline.provenance.identity import Identity
from milan_pipeline.shards.manifest import Manifest
from milan_pipeline.stages.extract_targets.command import ExtractTargets
from milan_pipeline.targets.codec_files import read_store_codec, write_store_codec
from milan_pipeline.targets.codec_sample import sample_images
from milan_pipeline.targets.expected_identity import expected_codec
from milan_pipeline.targets.layout import existing_identity, holds_store
from milan_pipeline.targets.transcoding import fitted_codec
from milan_pipeline.teacher.teacher import Teacher


def require_fitted(config: ExtractTargets) -> None:
    """Refuse to share work if every process would fit a codec of its own.

    Raises:
        ConfigError: `--init` has not been run.
    """
    flag = "--part" if config.part else "--scheduler" if config.scheduler else "--processes"
    is_shared = config.part is not None or config.on_dask
    if not (is_shared and parse_codec(config.codec).needs_fit):
        return
    if config.overwrite or not holds_store(config.out):
        again = " --overwrite" if config.overwrite else ""
        raise ConfigError(
            f"--codec {config.codec} is fitted to targets before work can be shared by {flag}; run "
            f"`extract-targets --init{again}` with the other options once, then this without "
            "--init and --overwrite"
        )


def fits_codec(config: ExtractTargets) -> bool:
    """Tell whether a codec may have to be fitted: there is none in the store, or it may differ."""
    if not parse_codec(config.codec).needs_fit:
        return False
    return config.overwrite or existing_identity(config.out) is None


def settled_identity(
    config: ExtractTargets, spec: JobSpec, manifest: Manifest, teacher: Teacher, stop: StopRequest
) -> Identity:
    """Return the targets' identity; if its codec needs fitting, fit it and write it to the store.

    Raises:
        DataError: the store's codec is of a newer version, or there are no targets to fit one to.
        InterruptedRunError: a stop was asked for.
    """
    codec = parse_codec(config.codec).for_width(teacher.width)
    existing = existing_identity(config.out)
    if existing is not None:
        identity = spec.identity(teacher, expected_codec(codec, existing))
        # An identity that differs is refused when the root is created, unless with --overwrite.
        if not config.overwrite or (identity == existing and _has_codec(config.out, existing)):
            return identity
    if not codec.needs_fit:
        return spec.identity(teacher, codec.parameters())
    targets_nND = extracted_sample(
        manifest,
        teacher,
        config.policy,
        batch_size=spec.batch_size,
        workers=config.workers,
        stop=stop,
        count=sample_images(math.prod(teacher.grid)),
    )
    fitted = fitted_codec(codec, targets_nND, stop)
    if existing is None and holds_store(config.out):
        # Another process was faster. Its root names its fit, which may differ between devices.
        return settled_identity(config, spec, manifest, teacher, stop)
    write_store_codec(config.out, fitted)
    return spec.identity(teacher, fitted.parameters())


def _has_codec(store: str, identity: Identity) -> bool:
    """Tell whether the arrays are those that the root names; a killed --overwrite leaves others."""
    try:
        read_store_codec(store, identity)
    except DataError:
        return False
    return True
