"""`python -m client_container.launcher`: how a detached launcher is started."""

from client_container.launcher.cli import main

if __name__ == "__main__":
    main()
