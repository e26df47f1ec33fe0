"""How good an encoder is: three ways to find out; results and their comparison."""
