"""NetworkPolicies: what they allow, the tables that enforce it, and answers without sending a packet."""
