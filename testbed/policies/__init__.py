"""NetworkPolicies: what they let through, the tables that enforce it, and the answer without sending a packet."""
