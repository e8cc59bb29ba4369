"""Chat templates: where a checkpoint has them, rendering in a child process, and the parts of what they render."""
