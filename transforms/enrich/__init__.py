"""What is known about a flow's addresses: places, networks, zones, threats, names."""
