"""`python -m client_container.launcher.volunteer`: how the installed command is started."""

from client_container.launcher.volunteer.cli import main

if __name__ == "__main__":
    main(prog_name="dockercomp-volunteer")
