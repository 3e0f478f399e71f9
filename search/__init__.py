"""Chooses programs and remembers them; never imports a framework. Folders import downwards only, in
this order:

- `evolution`: the algorithms alone: mutation, population, hurdles.
- `config`: what a campaign is told, and how it is read from a file.
- `storage`: what is recorded, and the database that keeps it.
- `campaign`: state, gates, proposals, the controller's loop, and what can be read of a campaign.
- `report`: curves and a campaign's page, for a person to look at.
- `study`: programs compared by training them, outside a campaign's search.
- `ui`: the same page live, and one for each candidate, in a browser.
- `cli`: the command line.
- `api`: campaigns, programs and studies from Python, which `primevo` gives names to.
"""
