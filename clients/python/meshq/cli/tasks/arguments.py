"""Arguments that several commands about tasks share."""

from __future__ import annotations

from typing import Annotated

import typer

from meshq.cli.declaring import option

IdArgument = Annotated[str, typer.Argument(metavar="ID", help="The id of the task.", show_default=False)]
IdsArgument = Annotated[
    list[str] | None,
    typer.Argument(metavar="ID...", help="The ids of the tasks; or else a filter.", show_default=False),
]
PayloadArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="PAYLOAD",
        help="The input: JSON if it parses as JSON, else a string; - reads it from standard input.",
        show_default=False,
    ),
]
RequestIdOption = Annotated[
    str | None,
    option(
        "--request-id", metavar="ID", help="Makes the command repeatable: the same id gives the same task."
    ),
]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")]
