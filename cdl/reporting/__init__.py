"""Tables to intervals, figures, a page and answers. No torch, no study."""
