"""Entry points: options and wiring, nothing else."""

import logging


class _WithoutCloudNotice(logging.Filter):
    """Drops the one line that Beam logs when it is imported without its Google Cloud extras."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not str(record.msg).startswith("apitools not found")


logging.getLogger().addFilter(_WithoutCloudNotice())
