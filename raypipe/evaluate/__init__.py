"""Scoring on the held-out split, measuring, judging."""
