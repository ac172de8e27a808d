"""The explorer: results in a browser, straight from the stores (docs/explorer.md).

What a page can ask for has a path (`content.py`); the server, the export and the widget in
notebooks are three ways to bring it there.
"""
