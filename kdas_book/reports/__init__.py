"""Tables and files of results, and the configuration file of the released evaluation."""
