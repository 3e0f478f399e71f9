"""What a person looks at: curves in the terminal and a campaign's page. Nothing here writes to the
database.

Read in this order: `queries` reads rows; `verdict` compares final runs; `data` turns rows into what
a chart shows; `programs` compares program texts; `charts` draws with Plotly; `page` fills the
template; `terminal` draws curves with characters.
"""
