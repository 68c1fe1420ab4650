"""What a merge did to its models' weights: sampled while it runs, drawn, and said in words."""
