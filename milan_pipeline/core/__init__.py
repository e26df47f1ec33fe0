"""What any process needs whatever it does: console, threads, stop signals, devices, typed JSON."""
