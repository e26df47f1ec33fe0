"""What every stage imports: a server that has done so forks processes that begin at once."""

import distributed
import open_clip
import timm
import torch
import zarr

import stages.extract_run
import stages.finetune_run
import stages.pack_targets
import stages.pretrain_plan
import stages.segment_run
import stages.transcode_run
from milan_pipeline import codecs

__all__ = ["codecs", "distributed", "open_clip", "stages", "timm", "torch", "zarr"]
