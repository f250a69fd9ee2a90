"""Recordings: batches of a dataset as files that any torch user can open, or as digests."""

from synthpix_torch.recording.manifest import RecordingError
from synthpix_torch.recording.reading import Pair, Recording
from synthpix_torch.recording.writing import record

__all__ = ["Pair", "Recording", "RecordingError", "record"]
