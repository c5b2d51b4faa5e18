"""What a model costs (table VI): parameters, FLOPs, memory, time; every number is measured."""
