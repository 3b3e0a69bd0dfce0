"""What a study is: its settings, its space, its records, and how they are told."""
