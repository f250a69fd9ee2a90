"""Judges of images and labels that know analytic flows and optics, and no code that renders."""
