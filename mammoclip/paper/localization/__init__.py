"""Where the findings are: tables and pictures of detection and attribution."""
