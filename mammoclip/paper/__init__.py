"""Tables, figures and the report: artifacts in, files for people out. No number is written here by hand."""
