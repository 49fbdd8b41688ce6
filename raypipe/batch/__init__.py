"""Batch inference: the same Predictor over whole datasets, with Ray Data."""
