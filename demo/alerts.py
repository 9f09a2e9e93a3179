"""Shows the alerts among scored flows: class, score, who, whom, why. `make demo` ends with it.

python demo/alerts.py flows
"""

import sys

import duckdb
from rich.console import Console
from rich.table import Table

MOST = 3

ALERTS = """
    SELECT predicted_class, max(score), src_ip, arg_max(dst_ip, score), count(DISTINCT dst_ip), count(DISTINCT flow_id),
        arg_max(explanation, score)
    FROM read_parquet($flows || '/*/*.parquet', union_by_name = true)
    WHERE is_alert
    GROUP BY predicted_class, src_ip
    QUALIFY row_number() OVER (PARTITION BY predicted_class ORDER BY count(*) DESC, src_ip) <= $most
    ORDER BY predicted_class, count(*) DESC, src_ip
"""


def main(folder: str) -> int:
    """Prints a row for each class of attack and source; returns the exit status."""
    found = duckdb.execute(ALERTS, {"flows": folder, "most": MOST}).fetchall()
    table = Table(title=f"alerts: of each class, the {MOST} sources of most flows", title_justify="left")
    for name in ("class", "score", "who", "whom", "flows", "why (of the highest score)"):
        table.add_column(name, justify="right" if name in ("score", "flows") else "left")
    for name, score, source, target, targets, flows, why in found:
        whom = target if targets == 1 else f"{target} and {targets - 1} more"
        table.add_row(name, f"{score:.3f}", source, whom, f"{flows:,}", ", ".join(map(reason, why)))
    Console(width=None if sys.stdout.isatty() else 150).print(table if found else "no alerts")
    return 0


def reason(why: dict[str, object]) -> str:
    """One feature of an explanation: what it is, its value, and where it moved the score."""
    value = "none" if why["value"] is None else f"{why['value']:g}"
    return f"{why['feature']} {value} {'↑' if why['direction'] == 'raises' else '↓'}"


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
