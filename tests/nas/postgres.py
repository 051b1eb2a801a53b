"""A PostgreSQL server of our own on loopback, for the tests; Debian's package is enough."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def programs() -> Path | None:
    """Where initdb and pg_ctl are; Debian keeps them out of the path."""
    found = [Path(at).parent for at in [shutil.which("initdb")] if at]
    found += sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    return next((folder for folder in reversed(found) if (folder / "initdb").exists()), None)


@contextmanager
def server(programs: Path) -> Iterator[str]:
    """The URL of an empty database. As root the server runs as the user postgres."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    folder = Path(tempfile.mkdtemp(prefix="leanfield-pg-"))
    runuser = shutil.which("runuser") or "/usr/sbin/runuser"
    user = [runuser, "-u", "postgres", "--"] if os.geteuid() == 0 else []
    if user:
        shutil.chown(folder, "postgres", "postgres")
    options = f"-p {port} -c listen_addresses=127.0.0.1 -k {folder} -c fsync=off"

    def call(program: str, *words: str) -> None:
        command = [*user, str(programs / program), "-D", str(folder / "data"), *words]
        subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)

    try:
        call("initdb", "-A", "trust", "-U", "leanfield", "--no-sync")
        call("pg_ctl", "-w", "-l", str(folder / "log"), "-o", options, "start")
        try:
            yield f"postgresql://leanfield@127.0.0.1:{port}/postgres"
        finally:
            call("pg_ctl", "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
