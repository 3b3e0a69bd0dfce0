"""What runs or reads whole studies: verdicts, champions, reports, reproductions, the look at the installation."""
