"""The report on a study: an HTML page with numbers, conclusions and figures."""
