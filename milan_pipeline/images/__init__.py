"""Mean and standard deviation of pixels, in [0, 1]; options import them, so no torch here."""

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
