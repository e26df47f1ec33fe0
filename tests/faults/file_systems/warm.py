"""What the stages import that are not killed: see `tests/faults/warm.py`."""

import sklearn.linear_model

import milan_pipeline.stages.compare
import milan_pipeline.stages.export
import milan_pipeline.stages.index
import milan_pipeline.stages.inspect
import milan_pipeline.stages.pack_images
import milan_pipeline.stages.probe.run
import milan_pipeline.stages.status
import milan_pipeline.stages.verify.command
from milan_pipeline.report import gallery, pages

__all__ = ["gallery", "milan_pipeline", "pages", "sklearn"]
