"""The logs that trainers write."""
