"""The verbs of the command line, a file for each noun. Modules import only typer at the top."""
