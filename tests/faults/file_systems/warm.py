"""What the stages import that are not killed: see `tests/faults/warm.py`."""

import sklearn.linear_model

import stages.compare
import stages.export
import stages.index
import stages.inspect
import stages.pack_images
import stages.probe.run
import stages.status
import stages.verify.command
from milan_pipeline.report import gallery, pages

__all__ = ["gallery", "pages", "sklearn", "stages"]
