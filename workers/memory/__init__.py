"""What a trained model scores with memories, however it was trained. Read `contexts` (a split as
the model sees it), `masses` (what memories say of the next token), `nearest` (search among many),
`memories` (the table), then `scores` (tuning and measuring).
"""
