"""Demo trading bots: features, strategy, paper broker, trade journal and their training."""
