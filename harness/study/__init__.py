"""The data types of a study: settings, search space, records and their formatting."""
