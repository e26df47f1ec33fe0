"""Fine-tuning on images with masks: views, model, task, inference, scores."""
