"""A program leaves. Read `export` (the folder), `score` (how the exported model does), `source`
(the module), `blocks` (its layers), `layer` (the text of one) and `code` (Python text);
`templates` holds the fixed parts.
"""
