"""ModelVersion -> Endpoint; start reading in stage.py, what one replica does is in app.py."""
