"""What a person looks at: curves in the terminal and a campaign's page. Nothing here writes to the
database.

Read in this order: `queries` reads rows; `data` turns them into what charts show, with intervals by
`verdict`; `findings` says what was found; `view` is all of that of one campaign; `difference` and
`ancestry` compare program texts, and `words` says what changed; `told` is what an export's card
says besides; `charts` draws with Plotly; `sections` says which charts there are; `page` fills the
template; `terminal` draws curves with characters.
"""
