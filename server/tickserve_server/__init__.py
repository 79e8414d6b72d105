"""The tickserve daemon: serving process, recorder process, their supervisor and the command line."""
