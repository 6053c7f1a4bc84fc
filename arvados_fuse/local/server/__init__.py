"""The server process of the embedded Arvados: HTTPS API, events and Keep services, all on loopback."""
