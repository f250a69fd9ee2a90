"""The configuration: its keys, and how it is read and checked."""
