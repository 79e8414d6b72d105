"""The serving process: answers predictions from the production models it holds in memory."""
