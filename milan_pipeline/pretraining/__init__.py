"""MILAN's objective, and MAE's: masks, examples, targets, loss."""
