"""The commands, one file each: what it prints, and the function behind `jaxvision.NAME`."""
