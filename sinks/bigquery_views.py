"""The views that stand beside a BigQuery table of flows: what a defender asks first, each flow counted once.

A condition on `flow_start` of `TABLE_latest` and `TABLE_alerts` reads only those days.
"""

from typing import NamedTuple


class View(NamedTuple):
    """A view of a table `T`.

    Attributes:
        name: It is called `T_NAME`.
        description: What a row is.
        query: The table is `{table}` in it.
    """

    name: str
    description: str
    query: str

    def on(self, table: str) -> str:
        """The query for a table, `project.dataset.table`."""
        return self.query.format(table=table)


VIEWS = (
    View(
        "latest",
        "Of each flow the record with the highest number.",
        # the day is part of what is partitioned by, so that a condition on it outside reads only those days
        """\
SELECT * FROM `{table}`
WHERE TRUE
QUALIFY ROW_NUMBER() OVER (PARTITION BY flow_start, flow_id ORDER BY record_number DESC) = 1""",
    ),
    View(
        "alerts",
        "One row for each flow that the model takes for an attack.",
        """\
SELECT flow_start, sensor, src_ip, src_port, dst_ip, dst_port, protocol, predicted_class, score,
  fwd_ip_octets + rev_ip_octets AS octets, flow_id
FROM `{table}_latest` WHERE is_alert""",
    ),
    View(
        "talkers",
        "The hundred pairs of addresses of each day (UTC) that exchanged most.",
        """\
SELECT * FROM (
  SELECT CAST(flow_start AS DATE) AS day, src_ip, dst_ip, COUNT(*) AS flows,
    SUM(fwd_ip_octets + rev_ip_octets) AS octets
  FROM `{table}_latest` GROUP BY day, src_ip, dst_ip
)
WHERE TRUE
QUALIFY ROW_NUMBER() OVER (PARTITION BY day ORDER BY octets DESC, src_ip, dst_ip) <= 100""",
    ),
    View(
        "conversations",
        "Who talks to which service, and since when: what is new has a late first_seen.",
        """\
SELECT src_ip, dst_ip, dst_port, protocol, MIN(flow_start) AS first_seen, MAX(flow_start) AS last_seen,
  COUNT(*) AS flows, SUM(fwd_ip_octets + rev_ip_octets) AS octets
FROM `{table}_latest` GROUP BY src_ip, dst_ip, dst_port, protocol""",
    ),
)
"""In the order in which they are made: others ask the first."""
