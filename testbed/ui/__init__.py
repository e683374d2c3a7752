"""`testbed ui`: the lab live in a browser. A small server on 127.0.0.1, a page without a build step."""
