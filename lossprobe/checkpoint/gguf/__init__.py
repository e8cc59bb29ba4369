"""GGUF files: their header measured against the file, llama.cpp in a child process, and weights as numbers."""
