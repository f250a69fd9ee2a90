"""From flow fields to image pairs and labels."""
