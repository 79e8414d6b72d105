"""Processes that load models in the serving process's stead, since a hostile file may end them."""
