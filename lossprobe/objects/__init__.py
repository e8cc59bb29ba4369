"""Files on object storage: their addresses, and how they are read and written."""
