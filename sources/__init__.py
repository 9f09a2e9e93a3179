"""From captures to packets: files, header kernels, tunnels, fragments, generated traffic, the reading of queues."""
