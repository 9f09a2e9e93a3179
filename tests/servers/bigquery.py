"""A BigQuery emulator of tests: Google's own parser of SQL over SQLite, with everything in memory.

It knows types, tables, views, `insertAll` and queries. What it does not know, `servers.bigquery_gate` does: it takes
unknown columns, rows without REQUIRED ones and numbers out of range, keeps both of two rows with one `insertId`, adds
no column to a table that is there, and has no load jobs without a schema of their own and no lists of STRUCTs.
"""

from typing import Any

from servers.install import installed
from servers.processes import Server, answers

PROJECT, DATASET = "my-project", "net"
"""Those of docs/bigquery.md, so that its queries run as they stand."""


class BigQueryEmulator(Server):
    """What is written is in memory: a killed emulator comes back empty, on the same port."""

    def start(self) -> "BigQueryEmulator":
        """Starts the emulator, and returns when it answers."""
        ports = (f"--port={self.port('http')}", f"--grpc-port={self.port('storage')}")
        program = installed("bigquery") / "bigquery-emulator"
        self.run_process(
            "bigquery", program, f"--project={PROJECT}", f"--dataset={DATASET}", "--host=127.0.0.1", *ports
        )
        self.wait_for("bigquery", self.is_up)
        return self

    def is_up(self) -> bool:
        """Whether the emulator answers."""
        return answers(self.port("http"))

    @property
    def endpoint(self) -> str:
        """For the environment variable BIGQUERY_EMULATOR_HOST."""
        return f"http://127.0.0.1:{self.port('http')}"

    def client(self) -> Any:
        """Google's client, of this server."""
        from google.api_core.client_options import ClientOptions
        from google.auth.credentials import AnonymousCredentials
        from google.cloud import bigquery

        options = ClientOptions(api_endpoint=self.endpoint)
        return bigquery.Client(PROJECT, credentials=AnonymousCredentials(), client_options=options)
