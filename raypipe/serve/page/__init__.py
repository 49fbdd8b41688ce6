"""The pages of an endpoint: templates, styles and scripts, and what puts them together."""
