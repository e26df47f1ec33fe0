"""How targets are stored: float tokens to codes and back, behind one interface."""
