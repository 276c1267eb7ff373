"""What a server tells of itself: metrics, spans, the log's records, the live view."""
