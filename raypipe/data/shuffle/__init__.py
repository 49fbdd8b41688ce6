"""Rows meet by hash across Ray tasks: scattered by range of row id, gathered, written as shards."""
