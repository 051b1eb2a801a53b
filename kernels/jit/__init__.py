"""Vector code for the CPU by the compiler that numba brings: no compiler is needed here."""
