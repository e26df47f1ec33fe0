"""What --encoder names: frozen encoders, and backbones to train further."""
