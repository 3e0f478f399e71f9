"""A program leaves. Read `export` (the folder), `source` (the module), `layer` (one layer) and
`code` (Python text); `templates` holds the fixed parts.
"""
