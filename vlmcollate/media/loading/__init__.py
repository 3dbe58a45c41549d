"""Decodes images, videos and audio from memory, files and the network."""
