"""What frozen features tell: neighbours, linear classifiers, the official protocol."""
