"""``python -m avrepro``."""

from avrepro.cli import main

if __name__ == "__main__":
    main()
