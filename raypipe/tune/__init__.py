"""DatasetVersion -> TuneResult; start reading in stage.py."""
