"""The pass of an audit: texts, then each of them whole or until every check is decided."""
