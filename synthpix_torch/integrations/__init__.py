"""Adapters to trainers and other libraries."""
