"""The student: ViT encoder, decoders, how they are built."""
