"""What a design sees, what it costs and what it is worth."""
