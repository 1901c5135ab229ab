"""Studies: objectives × seeds from one file, run, resumed, collected and reported (chapter 10)."""
