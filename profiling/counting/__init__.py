"""FLOPs and memory of a run: the cost model, torch and fvcore side by side, and a ledger of storages."""
