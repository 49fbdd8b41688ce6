"""What columns hold, and how far that has moved."""
