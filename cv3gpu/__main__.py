"""``python -m cv3gpu``."""

from .cli import main

if __name__ == "__main__":
    main(prog_name="cv3gpu")
