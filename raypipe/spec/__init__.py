"""What a user writes: pydantic models only, never ray or torch."""
