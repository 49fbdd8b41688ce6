"""Files -> DatasetVersion: read, checked, split, transforms fitted, shards written."""
