"""What a reader asks beside the scores: comparisons, crossings, tuning, sensitivity; tables in and out."""
