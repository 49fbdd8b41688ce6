"""DatasetVersion -> TrainResult; start reading in stage.py, the loop is in loop.py."""
