"""What every stage imports: a server that has done so forks processes that begin at once."""

import distributed
import open_clip
import timm
import torch
import zarr

import milan_pipeline.stages.extract_targets.run
import milan_pipeline.stages.finetune.run
import milan_pipeline.stages.pack_targets.command
import milan_pipeline.stages.pretrain.plan
import milan_pipeline.stages.segment.run
import milan_pipeline.stages.transcode.run
from milan_pipeline import codecs

__all__ = ["codecs", "distributed", "milan_pipeline", "open_clip", "timm", "torch", "zarr"]
