"""Formats: pure decoders from bytes to events, one module each, and the sniffer that picks one."""
