"""The stream of batches, and the place in it."""
