"""The generated parts of docs/pages/reference: options, numbers, columns, codes, ids, protocols, metrics, JSON keys."""
