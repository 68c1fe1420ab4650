"""What a checkpoint is: files, headers, tensors, shards."""
