"""What of a study lies on the disk: done, damaged, in the way, superfluous. No torch."""
