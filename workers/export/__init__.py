"""A program leaves. Read `export` (the folder), `score` (how the exported model does), `source`
(the module), `layer` (one layer) and `code` (Python text); `templates` holds the fixed parts.
"""
