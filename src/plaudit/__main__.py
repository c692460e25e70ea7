"""`python -m plaudit`: the command line."""

from plaudit.cli import main

__all__: list[str] = []

if __name__ == "__main__":
    main()
