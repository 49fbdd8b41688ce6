"""What rows must hold: schema, expectations, what is set aside and why."""
