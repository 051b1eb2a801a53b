"""The command `leanfield`: exit code 0 fine, 2 bad input, 3 budget cannot be met, 4 missing part.

With --json one object goes to standard output and nothing else; messages go to standard error.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import cast

import typer

from kernels.backends import MissingComponentError
from nas import cli_audit, cli_calibrate, cli_query, cli_search, cli_tables, cli_train
from nas.budget import BudgetError

UsageError = cast("type[typer.BadParameter]", typer.BadParameter.__mro__[1])
"""What typer raises for arguments that do not fit, of which BadParameter is one kind."""

app = typer.Typer(
    name="leanfield",
    help="Find, understand and export efficient convolution blocks.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for _command in (
    cli_search.search,
    cli_search.show,
    cli_search.export,
    cli_audit.audit,
    cli_train.train,
    cli_query.funnel,
    cli_query.field,
    cli_query.cost,
    cli_query.optimum,
    cli_query.doctor,
    cli_calibrate.calibrate,
    cli_tables.tables,
    cli_tables.network,
):
    app.command()(_command)


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; errors become one sentence on standard error."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        return app(words, prog_name="leanfield", standalone_mode=False) or 0
    except UsageError as error:
        error.show()
        return _fail(words, error.format_message(), 2, shown=True)
    except typer.Abort:
        return 1
    except BudgetError as error:
        return _fail(words, str(error), 3, nearest=error.nearest_facts())
    except MissingComponentError as error:
        return _fail(words, str(error), 4)
    except MemoryError as error:
        return _fail(words, f"this takes more memory than there is: {error}", 2)
    except (ValueError, OSError) as error:
        return _fail(words, str(error), 2)


def _fail(
    words: Sequence[str], sentence: str, code: int, *, shown: bool = False, **facts: object
) -> int:
    if not shown:
        print(f"leanfield: {sentence}", file=sys.stderr)
    if "--json" in words:
        print(json.dumps({"error": sentence, "exit_code": code, **facts}))
    return code


def main() -> None:
    """The entry point of the installed command."""
    sys.exit(run())


if __name__ == "__main__":
    main()
