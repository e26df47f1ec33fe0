"""Files of weights: a run's, timm's, transformers', the official code's."""
