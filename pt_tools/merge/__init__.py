"""Weight arithmetic on safetensors directories: streaming, by tensor name, without torch."""
