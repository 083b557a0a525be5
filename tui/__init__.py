"""The terminal screen: one renderer of view values among several, and the only part that knows Textual."""
