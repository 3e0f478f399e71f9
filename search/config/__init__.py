"""A campaign's config. Read `schema` (what it says), `file` (how it is read and checked),
`plugins` (loaded before the rest is checked), `earlier` (configs of earlier versions), `document`
(YAML that knows its lines), `programfile` (programs that a config names). `grid` and `gridfile` are
the same for a study over a grid, whose programs `variant` makes; `parts`, `verdict` and `wording`
serve both.
"""
