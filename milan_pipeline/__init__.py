"""Teacher-free MILAN pretraining of vision transformers from cached CLIP targets."""
