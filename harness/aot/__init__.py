"""What compilers say of a training step, without the devices that it is for: `python -m harness.aot`."""
