"""What a run asked for, did and left, as one HTML page: `read` gathers it, `charts` draws, `page` writes it down."""
