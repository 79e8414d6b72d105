"""`python -m tickserve_server`: the same as the `tickserve` command."""

from tickserve_server.launcher import main

if __name__ == "__main__":
    main()
