"""Fine-tuning on labelled images: views, model, task, scores."""
