"""`dockercomp-server`: the operator's command."""

from __future__ import annotations

import click

from source_server.commands.calculator import calculator
from source_server.commands.enrol import enrol
from source_server.commands.hosts import host
from source_server.commands.image import image
from source_server.commands.mail import mail
from source_server.commands.refused import ServerGroup
from source_server.commands.release import release
from source_server.commands.run import down, serve, status, up
from source_server.commands.tend import account, container, housekeep, migrate


@click.group(
    cls=ServerGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="""\b
Examples:
  dockercomp-server up --detach     start everything, and return once it answers
  dockercomp-server down            stop it
""",
)
@click.version_option(package_name="dockercomp")
def main() -> None:
    """Run and look after the source server. State lives under DOCKERCOMP_HOME (default: ./var)."""


for command in (
    *(up, down, serve, status, housekeep, migrate),
    *(account, container, host, release, enrol, image, calculator, mail),
):
    main.add_command(command)


if __name__ == "__main__":
    main(prog_name="dockercomp-server")
