"""Operations: metrics over HTTP for whoever watches the daemon."""
