"""Records, flow assembly, features, and the Beam transforms around them."""
