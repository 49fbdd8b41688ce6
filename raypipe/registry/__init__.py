"""Immutable numbered versions and movable aliases; nothing but objects in the store."""
