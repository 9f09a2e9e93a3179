"""Models: their folders, what goes into them, forests and what moved their scores."""
