"""The tickserve daemon: serving process, recorder process, supervisor and command line."""
