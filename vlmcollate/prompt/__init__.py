"""The prompt: how it is rendered, and where each of its characters came from."""
