"""Registry of trading models: readable files, atomic changes, one compiled artefact each."""
