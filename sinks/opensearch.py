"""`opensearch://HOST:PORT/INDEX`, `opensearch+https://…`: flows as documents of the Elastic Common Schema.

One index for each UTC day on which flows start, `INDEX-2026.11.21`. `?replicas=N&shards=N&keep_days=N` are settings of
the indices, `?ca=FILE` names the authority of the server's certificate, `?setup=no` leaves the index template to
`python -m sinks.opensearch --setup URL`. Credentials are in the environment: FLOWBEAM_OPENSEARCH_API_KEY, or
_USER and _PASSWORD, or where `queues.server_secrets` says.
"""

import sys

from sinks.search_bulk import main, open_events
from sinks.search_bulk import open_bulk as open_sink

__all__ = ["VARIANTS", "open_events", "open_sink"]

VARIANTS = ("https",)

if __name__ == "__main__":
    sys.exit(main("opensearch", sys.argv[1:]))
