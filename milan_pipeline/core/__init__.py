"""What every process needs: console, threads, stop signals, devices, typed JSON."""
