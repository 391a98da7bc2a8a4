"""Circuits around the arrays, each as a behavioural model and as its subcircuit's instance.

One record of ``technology.periphery`` drives both. Models are plain functions of NumPy
arrays and torch tensors alike; the subcircuits are ``netlists/*.lib``. Importing it loads
no torch.
"""
