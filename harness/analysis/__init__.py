"""What a ledger's numbers say: leaderboard, statistics, status and exports. Nothing here writes to a ledger."""
