"""Being on a cluster."""
