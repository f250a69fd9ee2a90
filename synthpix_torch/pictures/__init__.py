"""Pictures of batches: figures, blinking pairs, colours of flow fields."""
