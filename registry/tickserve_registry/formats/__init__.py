"""Model formats: for each framework how its models become bytes, come back, predict and compile."""
