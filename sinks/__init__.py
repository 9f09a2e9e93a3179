"""Where flows and rejects go. The module's name is the URL scheme."""
