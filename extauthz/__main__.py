"""``python -m extauthz``."""

from extauthz.cli import main

if __name__ == "__main__":
    main(prog_name="extauthz")
