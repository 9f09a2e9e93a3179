"""Queues of packet blocks: clients and settings, shared by sources and sinks. The module's name is the URL scheme."""
