"""Campaigns in a browser while they run: pages that a local server makes from the database, which
it cannot write to.

Read in this order: `recent` reads what happened last; `pages` says what each page shows; `marks`
tells whether a page has changed; `site` answers requests; `server` listens on this machine alone.
"""
