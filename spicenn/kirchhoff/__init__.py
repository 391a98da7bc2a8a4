"""Exact solution of resistive crossbars: Kirchhoff's laws, wires included."""
