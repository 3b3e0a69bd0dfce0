"""How long trials and studies take, and how far a study is."""
