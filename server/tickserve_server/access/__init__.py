"""Who may connect and what for: keys, grants, and the gate that asks for them."""
