"""Students as TFLite files for phones and microcontrollers, proven in the real runtimes."""
