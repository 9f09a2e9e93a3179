"""Where flows and rejects go. The module's name is the URL scheme. Importing this sets up logging and warnings."""

import logging
import warnings


class _WithoutCloudNotice(logging.Filter):
    """Drops what Beam logs when it is imported without its Google Cloud extras, or with one library of Google's."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not str(record.msg).startswith(("apitools not found", "Failed to import GCSFileSystem"))


for _name in (None, "apache_beam.io.filesystems"):
    logging.getLogger(_name).addFilter(_WithoutCloudNotice())
# Google's libraries count down to the end of each Python, at every start of every command.
warnings.filterwarnings("ignore", "You are using a (non-supported )?Python version", FutureWarning)
