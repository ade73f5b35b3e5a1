"""The website: mkdocs with a theme, of the pages that are in the repository anyway."""
