"""What is true in training and in serving alike."""
