"""`python -m search.cli` is the command `primevo`."""

from search.cli.app import main

if __name__ == "__main__":
    main()
