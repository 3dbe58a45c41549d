"""The prompt: its rendering and the origin of each of its characters."""
