"""Where flows and rejects go. The module's name is the URL scheme. Importing this sets up logging for its commands."""

import logging


class _WithoutCloudNotice(logging.Filter):
    """Drops what Beam logs when it is imported without its Google Cloud extras, or with one library of Google's."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not str(record.msg).startswith(("apitools not found", "Failed to import GCSFileSystem"))


for _name in (None, "apache_beam.io.filesystems"):
    logging.getLogger(_name).addFilter(_WithoutCloudNotice())
