"""What the state must be: generated input, and an independent fold of it."""
