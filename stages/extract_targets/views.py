"""Take the views of `extract-targets` from another teacher's targets, where that is asked for."""

import dataclasses

from milan_pipeline import storage
from milan_pipeline.errors import ConfigError, MismatchError
from milan_pipeline.images.views import ViewPolicy, policy_of
from milan_pipeline.provenance.identity import Identity, stated_identity
from milan_pipeline.shards.manifest import MANIFEST_NAME
from milan_pipeline.shards.totals import read_totals
from milan_pipeline.stages.extract_targets.command import ExtractTargets
from milan_pipeline.targets.layout import read_identity
from milan_pipeline.targets.store_record import read_store_record


def settled_views(config: ExtractTargets) -> ExtractTargets:
    """Replace `--views-from` by the options that it stands for, and settle the number of views.

    What the teacher sees of a view stays as it was asked for.

    Raises:
        ConfigError: the views are of a policy that these options cannot say.
        DataError, MismatchError, MissingDataError: there are no targets, or they are damaged.
    """
    if config.views_from is None:
        return config if config.views else dataclasses.replace(config, views=config.view_count)
    identity, views = _views_of(config.views_from, config.views)
    policy = policy_of(identity["view_policy"])
    low, high = policy.scale
    if high != ViewPolicy().scale[1]:
        raise ConfigError(
            f"--views-from {config.views_from} has crops of at most {high} of an image, which no "
            "option gives; give other targets"
        )
    if config.teacher_sees == "clean" and not policy.colours:
        raise ConfigError(
            f"--views-from {config.views_from} has views without changes of colours, so that "
            "--teacher-sees clean changes nothing; leave it out, or give targets of views with them"
        )
    return dataclasses.replace(
        config,
        views_from=None,
        views=config.views or views,
        view_policy=policy.text,
        view_seed=policy.seed,
        min_scale=low,
    )


def _views_of(url: str, given: int | None) -> tuple[Identity, int]:
    """Return what the targets of a store or of shards are, and of how many views.

    Raises:
        MismatchError: they are not packed to their end, and no number of views was given.
    """
    if not storage.exists(storage.join(url, MANIFEST_NAME)):
        identity = read_identity(url)
        return identity, read_store_record(url, identity).views
    views = {0}
    manifest, _ = read_totals(url, kind="targets", also=lambda shard: views.add(shard.details.view))
    if given is None and not manifest.complete:
        raise MismatchError(
            f"--views-from {url} is not packed to its end, so how many views it is to have is not "
            "known; run its pack-targets again, or give --views"
        )
    return stated_identity(manifest.common, what=url), 1 + max(views)
