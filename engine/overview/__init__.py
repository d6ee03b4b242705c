"""What a person sees of a running engine: one model, which the page of rlpx-watch and `rlpx-ctl top` show."""
