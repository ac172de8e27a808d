"""From a catalogue entry to a loaded Vision Transformer and its taps."""
