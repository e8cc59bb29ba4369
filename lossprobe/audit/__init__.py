"""What a gate is made of: the audit file, and the verdict on each of its checks."""
