"""The same work by general model servers over HTTP, each in an environment of its own."""
