"""The demo: train, serve, trade, promote and measure, once through the whole service."""
