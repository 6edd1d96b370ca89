"""What the package needs of the machine: device and precision, memory, processes, and the record of a run."""
