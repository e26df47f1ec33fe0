"""What every stage imports: a server that has done so forks processes that begin at once."""

import distributed
import open_clip
import timm
import torch
import zarr

import stages.extract_targets.run
import stages.finetune.run
import stages.pack_targets.command
import stages.pretrain.plan
import stages.segment.run
import stages.transcode.run
from milan_pipeline import codecs

__all__ = ["codecs", "distributed", "open_clip", "stages", "timm", "torch", "zarr"]
