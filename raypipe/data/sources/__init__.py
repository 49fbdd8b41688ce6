"""Which files a source names, and how their bytes are reached."""
