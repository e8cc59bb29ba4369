"""The same tokens under the other losses that people train with."""
