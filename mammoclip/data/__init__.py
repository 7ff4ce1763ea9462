"""From files to training examples: index, shard, tabulate, and the readers of what they write."""
