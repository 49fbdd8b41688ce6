"""A run's figures, sent to where people watch many runs at once: TensorBoard, MLflow."""
