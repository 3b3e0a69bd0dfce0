"""Evaluation of a ledger: leaderboard, statistics, verdict, report and exports. Nothing here writes to a ledger."""
