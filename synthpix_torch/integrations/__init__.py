"""Trainers and other libraries."""
