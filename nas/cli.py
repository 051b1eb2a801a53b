"""The command `leanfield`: exit code 0 fine, 2 bad input, 3 budget cannot be met, 4 missing part.

With --json one object goes to standard output and nothing else; messages go to standard error.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

import typer

from kernels.backends import MissingComponentError
from nas import cli_query, cli_search, cli_tables
from nas.budget import BudgetError

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
    cli_query.funnel,
    cli_query.field,
    cli_query.cost,
    cli_query.optimum,
    cli_query.doctor,
    cli_tables.tables,
    cli_tables.network,
):
    app.command()(_command)


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; errors become one sentence on standard error."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        app(words, prog_name="leanfield")
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 1
    except BudgetError as error:
        return _fail(words, str(error), 3, nearest=error.nearest_facts())
    except MissingComponentError as error:
        return _fail(words, str(error), 4)
    except (ValueError, OSError) as error:
        return _fail(words, str(error), 2)
    return 0


def _fail(words: Sequence[str], sentence: str, code: int, **facts: object) -> int:
    print(f"leanfield: {sentence}", file=sys.stderr)
    if "--json" in words:
        print(json.dumps({"error": sentence, "exit_code": code, **facts}))
    return code


def main() -> None:
    """The entry point of the installed command."""
    sys.exit(run())


if __name__ == "__main__":
    main()
