"""What a run shows: its live and saved status, its strip of pictures, its plots, and the program around it."""
